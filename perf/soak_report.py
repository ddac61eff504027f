"""What a run of `perf/soak` comes to: streams set against faults, the tables, and the plot."""

import html
import statistics

import soak_plot

# After a cut, its streams are told within this.
TOLD_SECS = 5
# A pause that began so long after a fault's end has another cause.
LATE_SECS = 1.5
# What an end may hold more after the run than before.
DESCRIPTORS_MORE = 40
MEMORY_MORE = 1.25
MEMORY_MORE_MIB = 16
# Samples that a figure is the median of.
SAMPLES_SECS = 4


def judged(seen, options):
    """All that is told of a run; `wrong` is what should not have been."""
    began, faults = seen["began"], seen["faults"]
    events = [event for _, event in seen["events"]]
    pings = [event for event in events if "gap" in event]
    normal = statistics.median([event["normal"] for event in events if "normal" in event] or [0.01])
    streams = [event for event in events if "kind" in event]
    for stream in streams:
        stream["cause"] = cause(stream, faults, options) if stream["error"] else None
    for fault in faults:
        fault["pauses"] = {}
    for ping in pings:
        add_pause(ping, faults, normal)
    held = {end: held_by(end, seen) for end in ("receptor", "connector")}
    facts = {
        "normal_gap": normal,
        "faults": [{**fault, "start": fault["start"] - began, "end": fault["end"] - began} for fault in faults],
        "streams": by_kind(streams),
        "lost": [
            {**stream, "opened": stream["opened"] - began, "ended": stream["ended"] - began}
            for stream in streams
            if stream["error"]
        ],
        "mismatches": [f"{stream['key']}: {stream['wrong']}" for stream in streams if stream["wrong"]],
        "datagrams": sum(event.get("datagrams", 0) for event in events),
        "datagrams_lost": sum(event.get("datagrams_lost", 0) for event in events),
        "secs": seen["ended"] - began,
        "held": held,
        "idle_sockets": seen["idle_sockets"],
        "samples": [{**sample, "at": sample["at"] - began} for sample in seen["samples"]],
        "gaps": [{"at": event["at"] - began, "gap": event["gap"], "of": event["ping"]} for event in pings],
        "progress": [
            {"at": at - began, "of": event["progress"], "bytes": event["bytes"]}
            for at, event in seen["events"]
            if "progress" in event
        ],
    }
    facts["wrong"] = wrongs(facts, options)
    return facts


def cause(stream, faults, options):
    """The fault by which a stream may have ended: one that ends streams, while it was open. None: none may."""
    for fault in reversed(faults):
        # The end that was not killed keeps the streams for as long as their link may come back.
        told = TOLD_SECS + (options.resume if fault["kind"] == "kill" else 0)
        was_open = stream["opened"] <= fault["end"] + TOLD_SECS and stream["ended"] >= fault["start"]
        if fault["losing"] and was_open and stream["ended"] <= fault["end"] + told:
            return fault["kind"]
        # A new one may find no descriptor; those that are there stay.
        new = fault["start"] - 1 <= stream["opened"] <= fault["end"] + TOLD_SECS
        if fault["kind"] == "descriptors" and new:
            return fault["kind"]
    return None


def add_pause(ping, faults, normal):
    """A long time between two answers is a pause of the fault in which it began, or which began in its first
    moments. The longest of each stream counts."""
    begin = ping["at"] - ping["gap"]
    for fault in reversed(faults):
        if fault["start"] <= min(begin + 3 * normal, ping["at"]):
            if begin <= fault["end"] + LATE_SECS:
                longest = fault["pauses"].get(ping["ping"], 0)
                fault["pauses"][ping["ping"]] = max(longest, ping["gap"] - normal)
            return


def held_by(end, seen):
    """What an end held before the first fault, after a sixth of the run, at most, and at the end."""
    samples = [sample for sample in seen["samples"] if sample["end"] == end and sample["at"] <= seen["ended"]]
    first = min([fault["start"] for fault in seen["faults"]] or [seen["ended"]])
    sixth = seen["began"] + (seen["ended"] - seen["began"]) / 6
    times = {"begin": first, "sixth": max(first, sixth), "end": seen["ended"]}
    figures = {}
    for what in ("mib", "descriptors", "sockets", "pipes"):
        figures[what] = {"peak": max(sample[what] for sample in samples)}
        for name, time in times.items():
            near = [sample[what] for sample in samples if time - SAMPLES_SECS <= sample["at"] <= time]
            figures[what][name] = statistics.median(near or [0])
    return figures


def by_kind(streams):
    kinds = {}
    for stream in streams:
        figures = kinds.setdefault(stream["kind"], {"streams": 0, "bytes": 0, "expected": 0, "unexpected": 0, "wrong": 0})
        figures["streams"] += 1
        figures["bytes"] += stream["bytes"]
        figures["wrong"] += bool(stream["wrong"])
        if stream["error"]:
            figures["expected" if stream["cause"] else "unexpected"] += 1
    return kinds


def wrongs(facts, options):
    found = [f"wrong bytes: {mismatch}" for mismatch in facts["mismatches"]]
    for stream in facts["lost"]:
        if not stream["cause"]:
            found.append(
                f"lost: {stream['key']}, open from {stream['opened']:.1f} s to {stream['ended']:.1f} s: {stream['error']}"
            )
    for end, figures in facts["held"].items():
        before, after = (max(figures["mib"]["begin"], figures["mib"]["sixth"]), figures["mib"]["end"])
        if after > before * MEMORY_MORE + MEMORY_MORE_MIB:
            found.append(f"{end}: {after:.0f} MiB at the end, {before:.0f} before")
        before, after = (max(figures["descriptors"]["begin"], figures["descriptors"]["sixth"]), figures["descriptors"]["end"])
        if after > before + DESCRIPTORS_MORE:
            found.append(f"{end}: {after} descriptors at the end, {before} before")
    idle = facts["idle_sockets"]
    if idle["before"] != idle["after"]:
        found.append(f"sockets without any stream: {idle['before']} before, {idle['after']} after")
    if options.cuts and len(facts["faults"]) < options.cuts:
        found.append(f"{len(facts['faults'])} cuts of {options.cuts}")
    return found


def markdown(facts):
    on, settings = facts["machine"], facts["settings"]
    text = [
        f"{on['cpu']}, {on['cores']} cores; Linux {on['kernel']}; revision {on['revision']}; {facts['date'][:16]}; "
        f"{settings['link']}, engine {settings['engine']}, resume {settings['resume']} s, seed {settings['seed']}; "
        f"{facts['secs']:.0f} s, {len(facts['faults'])} faults.",
        "",
        f"Pauses of streams with a message each 10 ms (usually {1e3 * facts['normal_gap']:.1f} ms, which is taken off); "
        "beyond: without the time that the fault itself lasted.",
        "",
        "| fault | number | pause, median ms | longest | beyond, median ms | longest | lost, expected | lost, not expected |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    text += [fault_row(kind, facts) for kind in dict.fromkeys(fault["kind"] for fault in facts["faults"])]
    text += ["", "| streams | ended | GiB | lost, expected | lost, not expected | wrong |"]
    text += ["| --- | --: | --: | --: | --: | --: |"]
    for kind, one in sorted(facts["streams"].items()):
        text.append(
            f"| {kind} | {one['streams']} | {one['bytes'] / 2**30:.2f} | {one['expected']} | {one['unexpected']} "
            f"| {one['wrong']} |"
        )
    text += ["", f"{facts['datagrams']} datagrams, {facts['datagrams_lost']} of them lost.", ""]
    text += ["| end | | begin | after a sixth | peak | end |", "| --- | --- | --: | --: | --: | --: |"]
    for end, figures in facts["held"].items():
        for what, name in (("mib", "MiB"), ("descriptors", "descriptors"), ("pipes", "pipes")):
            one = figures[what]
            text.append(f"| {end} | {name} | {one['begin']:.0f} | {one['sixth']:.0f} | {one['peak']:.0f} | {one['end']:.0f} |")
    text += ["", *([f"- WRONG: {wrong}" for wrong in facts["wrong"]] or ["Nothing wrong."])]
    return "\n".join(text)


def fault_row(kind, facts):
    mine = [fault for fault in facts["faults"] if fault["kind"] == kind]
    seen = [(pause, pause - (fault["end"] - fault["start"])) for fault in mine for pause in fault["pauses"].values()]
    whole, beyond = ([max(0, one[at]) * 1e3 for one in seen] or [0] for at in (0, 1))
    expected = sum(stream["cause"] == kind for stream in facts["lost"])
    # What should not have been lost is told with the fault before it.
    unexpected = sum(
        not stream["cause"] and last_before(stream["ended"], facts["faults"]) == kind for stream in facts["lost"]
    )
    return (
        f"| {kind} | {len(mine)} | {statistics.median(whole):.0f} | {max(whole):.0f} | {statistics.median(beyond):.0f} "
        f"| {max(beyond):.0f} | {expected} | {unexpected} |"
    )


def last_before(time, faults):
    return next((fault["kind"] for fault in reversed(faults) if fault["start"] <= time), None)


def plot(facts):
    """Four panels over the time of the run."""
    secs, settings = facts["secs"], facts["settings"]
    panels = [
        soak_plot.Panel("longest pause of a ping stream, ms", [("", soak_plot.highest(facts["gaps"], secs))], is_log=True),
        soak_plot.Panel("bulk, MiB/s", [("", soak_plot.rate(facts["progress"], secs))]),
    ]
    for what, name in (("mib", "resident memory, MiB"), ("descriptors", "descriptors")):
        lines = [
            (end, [(sample["at"], sample[what]) for sample in facts["samples"] if sample["end"] == end])
            for end in facts["held"]
        ]
        panels.append(soak_plot.Panel(name, lines))
    title = f"perf/soak, {settings['link']} link, {len(facts['faults'])} faults in {secs:.0f} s"
    under = f"{facts['machine']['cpu']}, revision {facts['machine']['revision']}, {facts['date'][:10]}, seed {settings['seed']}"
    return soak_plot.draw(html.escape(title), html.escape(under), panels, facts["faults"], secs)
