"""The plot of `perf/soak`: figures over time, with the faults."""

import math

from chart import STYLE, text

WIDTH, LEFT, RIGHT = 900, 70, 20
TOP, HEIGHT, GAP = 90, 110, 40
# As many points as are seen.
POINTS_MAX = 450
LEAST_MS = 10
LINES = ["#2f81f7", "#d29922"]
FAULTS = {
    "fin": "#3fb950", "rst": "#f85149", "storm": "#db61a2", "drop": "#a371f7", "freeze": "#39c5cf", "away": "#1f6feb", "down": "#d29922",
    "stop": "#8b949e", "kill": "#c93c37", "descriptors": "#768390",
}


class Panel:
    """Some lines of points over the same axis."""

    def __init__(self, name, lines, is_log=False):
        self.name, self.lines, self.is_log = name, lines, is_log

    def highest(self):
        return max([value for _, points in self.lines for _, value in points] or [1]) or 1

    def part(self, value):
        """How far up a value is."""
        if not self.is_log:
            return value / self.highest()
        span = math.log(max(10 * LEAST_MS, self.highest()) / LEAST_MS)
        return math.log(max(value, LEAST_MS) / LEAST_MS) / span


def steps(secs):
    return max(1.0, secs / POINTS_MAX)


def highest(gaps, secs):
    """The longest gap of each step, in ms."""
    step, found = steps(secs), {}
    for gap in gaps:
        at = int(gap["at"] / step)
        found[at] = max(found.get(at, 0), 1e3 * gap["gap"])
    return [(number * step, found.get(number, LEAST_MS)) for number in range(int(secs / step) + 1)]


def rate(progress, secs):
    """MiB a second of all bulk streams together, step by step."""
    step, moved, last = steps(secs), {}, {}
    for one in progress:
        at = int(one["at"] / step)
        before = last.get(one["of"], 0)
        # A new transfer of the same stream begins at nought.
        more = one["bytes"] - before if one["bytes"] > before else one["bytes"]
        last[one["of"]] = one["bytes"]
        moved[at] = moved.get(at, 0) + more / step / 2**20
    return [(number * step, moved.get(number, 0)) for number in range(int(secs / step) + 1)]


def thinned(points):
    """No more than are seen; of those that fall together, the highest."""
    size = max(1, len(points) // POINTS_MAX)
    return [max(points[at : at + size], key=lambda point: point[1]) for at in range(0, len(points), size)]


def draw(title, under, panels, faults, secs):
    across = lambda at: LEFT + (WIDTH - LEFT - RIGHT) * min(max(at, 0), secs) / secs
    height = TOP + len(panels) * (HEIGHT + GAP) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">',
        f"<style>{STYLE}</style>",
        text(10, 24, title, "title"),
        text(10, 44, under, "small"),
    ]
    for number, kind in enumerate(dict.fromkeys(fault["kind"] for fault in faults)):
        x = LEFT + 80 * number
        parts.append(f'<rect x="{x}" y="54" width="10" height="10" fill="{FAULTS[kind]}"/>')
        parts.append(text(x + 14, 63, kind, "small"))
    for number, panel in enumerate(panels):
        top = TOP + number * (HEIGHT + GAP)
        bottom = top + HEIGHT
        for fault in faults:
            x, width = across(fault["start"]), max(1, across(fault["end"]) - across(fault["start"]))
            parts.append(
                f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{HEIGHT}" '
                f'fill="{FAULTS[fault["kind"]]}" opacity="0.35"/>'
            )
        parts.append(f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{WIDTH - RIGHT}" y2="{bottom}"/>')
        parts.append(text(LEFT, top - 6, panel.name, "small"))
        parts.append(text(LEFT - 6, top + 10, f"{panel.highest():,.0f}", "small", "end"))
        parts.append(text(LEFT - 6, bottom, f"{LEAST_MS if panel.is_log else 0}", "small", "end"))
        for at, (name, points) in enumerate(panel.lines):
            drawn = " ".join(f"{across(x):.1f},{bottom - HEIGHT * panel.part(y):.1f}" for x, y in thinned(points))
            parts.append(f'<polyline points="{drawn}" fill="none" stroke="{LINES[at]}" stroke-width="1.2"/>')
            if name:
                parts.append(f'<rect x="{LEFT + 200 + 90 * at}" y="{top - 15}" width="10" height="10" fill="{LINES[at]}"/>')
                parts.append(text(LEFT + 214 + 90 * at, top - 6, name, "small"))
    parts.append(text(LEFT, height - 24, "0 s", "small"))
    parts.append(text(WIDTH - RIGHT, height - 24, f"{secs:.0f} s", "small", "end"))
    return "\n".join([*parts, "</svg>"])
