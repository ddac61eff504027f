#!/usr/bin/env python3
"""Draws perf/chart.svg from the raw results of a run: `perf/chart.py [RESULTS.json]`, else from the
newest in perf/results. Bulk only: throughput as ratio to direct, and processor time of the relays.
Standard library only."""

import argparse
import glob
import html
import json
import math
import os
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DIRECT = "direct"
OURS = "sockmux-uring"
BAR_WIDTH, PANEL_GAP, MARGIN = 270, 70, 10
CHARACTER_WIDTH = 7.5  # of the peers' names, about
TOP, ROW, BAR = 104, 26, 16
# Greys and hues that stand out from white as well as from near black.
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #59636e }
.title { font-size: 16px; font-weight: 600 }
.small { font-size: 11px }
.mine { font-weight: 600 }
.bar { fill: #8b949e }
.bar.mine { fill: #2f81f7 }
.axis { stroke: #8b949e; stroke-width: 1 }
@media (prefers-color-scheme: dark) { text { fill: #b1bac4 } .bar { fill: #6e7681 } }
@media (prefers-color-scheme: dark) { .bar.mine { fill: #388bfd } }
"""


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("results", nargs="?", help="raw results; default: the newest")
    words.add_argument("-o", "--output", default=os.path.join(HERE, "chart.svg"))
    given = words.parse_args()
    path = given.results or newest()
    try:
        with open(path) as file:
            run = json.load(file)
        bars, loads = measured(run)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"perf/chart.py: {path}: {error}")
    with open(given.output, "w") as file:
        file.write(draw(run, bars, loads))
    print(f"{len(bars)} peers, {', '.join(loads)}")


def newest():
    # Those with a word behind the time are of other work.
    found = sorted(glob.glob(os.path.join(HERE, "results", "????-??-??-????.json")))
    if not found:
        sys.exit("perf/chart.py: no results to draw: run perf/run first, or name a file")
    return found[-1]


def measured(run):
    """(peer, ratio to direct, relay seconds per GiB), the fastest first, and the loads that they
    are taken over: those that every peer has. Ratios by geometric mean, processor time by mean."""
    lines = [
        line
        for line in run["summary"]
        if line["group"] == "bulk" and line["peer"] != DIRECT and "of_direct" in line
    ]
    peers = list(dict.fromkeys(line["peer"] for line in lines))
    if not peers:
        raise ValueError("no bulk load with direct and another peer in it, nothing to draw")
    found = {(line["peer"], line["load"]): line for line in lines}
    loads = [
        load
        for load in dict.fromkeys(line["load"] for line in lines)
        if all((peer, load) in found for peer in peers)
    ]
    if not loads:
        raise ValueError("no bulk load that every peer has, nothing to draw")
    bars = []
    for peer in peers:
        mine = [found[peer, load] for load in loads]
        ratio = math.exp(statistics.mean(math.log(line["of_direct"]) for line in mine))
        bars.append((peer, ratio, statistics.mean(line["relay_cpu"] for line in mine)))
    return sorted(bars, key=lambda bar: -bar[1]), loads


def draw(run, bars, loads):
    height = TOP + ROW * len(bars) + MARGIN
    on = run["machine"]
    title = f"Bulk over loopback, {run['date'][:10]}, Linux {on['kernel']}"
    under = (
        f"{on['cpu']}, {on['cores']} cores, congestion control {on['congestion_control']}, "
        f"revision {on['revision']}"
    )
    how = f"medians of {run['settings']['repetitions']}, then the mean of: {'; '.join(loads)}"
    first = 2 * MARGIN + max(len(bar[0]) for bar in bars) * CHARACTER_WIDTH
    second = first + BAR_WIDTH + PANEL_GAP
    width = second + BAR_WIDTH + PANEL_GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
        f'aria-label="{html.escape(title, quote=True)}">',
        f"<style>{STYLE}</style>",
        text(MARGIN, 24, title, "title"),
        text(MARGIN, 44, under, "small"),
        text(MARGIN, 62, how, "small"),
        text(first, TOP - 12, "throughput, ratio to direct (more is better)", "small"),
        text(second, TOP - 12, "relays' CPU seconds per GiB (less is better)", "small"),
    ]
    parts += panel(first, [bar[1] for bar in bars], bars, "{:.2f}")
    parts += panel(second, [bar[2] for bar in bars], bars, "{:.2f}")
    for number, (peer, _, _) in enumerate(bars):
        y = TOP + ROW * number + BAR - 3
        kind = "mine" if peer == OURS else ""
        parts.append(text(first - 8, y, peer, kind, "end"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(left, values, bars, form):
    """Bars from `left` on, the longest as wide as the panel."""
    longest = max(values) or 1
    end = TOP + ROW * len(bars) - (ROW - BAR) / 2
    parts = [f'<line class="axis" x1="{left:.1f}" y1="{TOP - 4}" x2="{left:.1f}" y2="{end:.0f}"/>']
    for number, value in enumerate(values):
        y, width = TOP + ROW * number, BAR_WIDTH * value / longest
        kind = " mine" if bars[number][0] == OURS else ""
        size = f'x="{left:.1f}" y="{y}" width="{width:.1f}" height="{BAR}"'
        parts.append(f'<rect class="bar{kind}" {size} rx="2"/>')
        parts.append(text(left + width + 6, y + BAR - 3, form.format(value), kind.strip()))
    return parts


def text(x, y, words, kind="", anchor="start"):
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">'
        f"{html.escape(words)}</text>"
    )


if __name__ == "__main__":
    main()
