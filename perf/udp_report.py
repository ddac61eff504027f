"""Medians of what `perf/udp` measured, and the table of them."""

import statistics

FIGURES = ("rate", "offered", "loss", "relay_cpu", "path_cpu", "p50_us", "p99_us", "faults")


def summary(results, loads, peers):
    """One line for each load and peer: medians over the repetitions. `of_direct` is the median of
    the ratios that were taken within a repetition: of p50 for pings, else of the rate."""
    good = [one for one in results if "error" not in one]
    direct = {
        (one["load"], one["repetition"]): one for one in good if one["peer"] == peers[0].name
    }
    lines = []
    for load in loads:
        for peer in peers:
            mine = [one for one in good if (one["load"], one["peer"]) == (load.name, peer.name)]
            if not mine:
                continue
            line = {"load": load.name, "group": load.group, "peer": peer.name, "n": len(mine)}
            for figure in FIGURES:
                if figure in mine[0]:
                    line[figure] = statistics.median(one[figure] for one in mine)
            # A fault in one repetition is no less of one for the others.
            line["faults"] = sum(one["faults"] for one in mine)
            compared = "p50_us" if "p50_us" in line else "rate"
            ratios = [
                one[compared] / direct[load.name, one["repetition"]][compared]
                for one in mine
                if (load.name, one["repetition"]) in direct
            ]
            if ratios:
                line["of_direct"] = statistics.median(ratios)
            lines.append(line)
    return lines


def markdown(facts, lines):
    settings = facts["settings"]
    text = [
        head(facts),
        "",
        f"Medians of {settings['repetitions']} interleaved repetitions, in thousands of packets "
        "that arrive a second; CPU is for each of them, of the relays together and of the whole "
        f"path (source, relays, sink). Paced is {settings['rate']:,.0f} packets/s one by one and "
        f"{settings['train_rate']:,.0f} packets/s in trains (UDP_SEGMENT, up to 64; the sink has "
        "UDP_GRO). Of pings, whose ends are on a core each, `of direct` is that of p50.",
        "",
        "| load | peer | n | arrive | of direct | lost | relays CPU | path CPU | p50 | p99 |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    text += [row(line) for line in lines]
    if facts["troubles"]:
        text += ["", "Not measured, or not every time, or wrong:", ""]
        text += [f"- {trouble}" for trouble in facts["troubles"]]
    return "\n".join(text)


def head(facts):
    on = facts["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"{on['cpu']}, {on['cores']} cores, {on['memory_gib']} GiB; Linux {on['kernel']}, "
        f"congestion control {on['congestion_control']}; revision {on['revision']}; "
        f"{facts['date'][:16]}; {versions}."
    )


def row(line):
    # Direct has no relays, so theirs would be a nought that means nothing.
    cells = [
        line["load"],
        line["peer"],
        str(line["n"]),
        f"{line['rate']:.1f} k/s",
        f"{line['of_direct']:.2f}x" if "of_direct" in line else "",
        f"{line['loss'] * 100:.2f} %",
        f"{line['relay_cpu']:.2f} us" if line["relay_cpu"] else "",
        f"{line['path_cpu']:.2f} us",
        f"{line['p50_us']:.1f} us" if "p50_us" in line else "",
        f"{line['p99_us']:.1f} us" if "p99_us" in line else "",
    ]
    return "| " + " | ".join(cells) + " |"


def checked(name, one):
    """What a check of mixed sizes found, in one line."""
    sink = one["sink"]
    faults = ", ".join(
        f"{sink[fault]} {fault.replace('_', ' ')}"
        for fault in ("out_of_order", "duplicated", "merged", "split", "corrupt", "misplaced")
    )
    lost = one["source"]["sent"] - sink["right"]
    return (
        f"{name}: {one['source']['sent']:,} sent at {one['offered']:.0f} k/s, "
        f"{sink['right']:,} arrived right, {lost:,} lost, {faults}"
    )
