"""Medians and ratios of what was measured, and the table of them."""

import statistics

import hosts

# Figures of a single measurement that are no figures of their own.
NOT_SUMMED = {"repetition", "streams_gib", "requests", "answers"}


def summary(results, loads, peers):
    """One line for each load and peer: medians over the repetitions. `of_direct` is the median of
    the ratios that were taken within a repetition."""
    good = [one for one in results if "error" not in one]
    direct = {
        (one["load"], one["repetition"]): one["rate"]
        for one in good
        if one["peer"] == peers[0].name
    }
    lines = []
    for load in loads:
        for peer in peers:
            mine = [one for one in good if (one["load"], one["peer"]) == (load.name, peer.name)]
            if not mine:
                continue
            line = {"load": load.name, "group": load.group, "peer": peer.name, "n": len(mine)}
            for figure, value in mine[0].items():
                if figure not in NOT_SUMMED and isinstance(value, (int, float)):
                    line[figure] = statistics.median(one[figure] for one in mine)
            ratios = [
                one["rate"] / direct[load.name, one["repetition"]]
                for one in mine
                if (load.name, one["repetition"]) in direct
            ]
            if ratios:
                line["of_direct"] = statistics.median(ratios)
            lines.append(line)
    return lines


def markdown(facts, lines, loads):
    networks = {
        "loopback": "loopback",
        "namespaces": f"a network namespace a host, MTU {hosts.MTU_BYTES:,}",
    }
    on, settings = facts["machine"], facts["settings"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    text = [
        f"{', '.join([on['cpu'], *on['caches']])}, {on['cores']} cores, {on['memory_gib']} GiB; "
        f"{networks[settings['network']]}; Linux {on['kernel']}, "
        f"congestion control {on['congestion_control']}; revision {on['revision']}; "
        f"{facts['date'][:16]}; {versions}.",
        "",
        f"Medians of {settings['repetitions']} interleaved repetitions; CPU is per GiB or per "
        "request, of the relays and of the whole path (client, relays, server).",
        "",
        "| load | peer | n | rate | of direct | relays CPU | path CPU | also |",
        "| --- | --- | --: | --: | --: | --: | --: | --- |",
    ]
    if facts["congestion"]:
        text[3:3] = ["", congestion(facts)]
    by_name = {load.name: load for load in loads}
    text += [row(line, by_name[line["load"]]) for line in lines]
    if facts["troubles"]:
        text += ["", "Not measured, or not every time:", ""]
        text += [f"- {trouble}" for trouble in facts["troubles"]]
    return "\n".join(text)


def congestion(facts):
    """It decides more on loopback than any program does, and some programs choose their own."""
    peers = [f"{peer} {' and '.join(names)}" for peer, names in facts["congestion"].items()]
    return "Congestion control of the relays' own connections: " + "; ".join(peers) + "."


def row(line, load):
    # Direct has no relays, so theirs would be a nought that means nothing.
    relays = figure(line.get("relay_cpu") or None, load.cpu_unit)
    also = ", ".join(form.format(line[key]) for key, form in load.also if key in line)
    ratio = f"{line['of_direct']:.2f}x" if "of_direct" in line else ""
    return (
        f"| {line['load']} | {line['peer']} | {line['n']} | {line['rate']:.2f} {load.unit} "
        f"| {ratio} | {relays} | {figure(line.get('path_cpu'), load.cpu_unit)} | {also} |"
    )


def figure(value, unit):
    return "" if value is None else f"{value:.2f} {unit}"
