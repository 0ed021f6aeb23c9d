"""Plots of a report as inline SVG: effects with intervals, weights, and curves.

As in `recsys.evaluation.plots`: no script, no font, colours from the page, a <title> on every mark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from recsys.evaluation.plots import NUM_COLOURS, Size, round_ticks, svg, svg_text
from recsys.simulation.report.parts import CurvePlot, EffectLine, WeightsPart

__all__ = ["curve_plot", "forest_plot", "number", "short", "weights_plot", "with_ends"]

WIDTH = 760
NAME_WIDTH, VALUE_WIDTH, ROW = 190, 190, 28
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 24, 50
LETTER = 6.6  # width of a letter of the page's 12 high text, about


def forest_plot(lines: Sequence[EffectLine], *, title: str) -> str:
    """One row a line: its name, a dot with its interval, the numbers; a broken line at zero.

    Lines that are shares and lines that are not have scales of their own, the shares above.

    Raises:
        ValueError: no line.
    """
    if not lines:
        raise ValueError("lines must hold at least one line, got none")
    parts = [[one for one in lines if one.percent], [one for one in lines if not one.percent]]
    return "".join(_forest(part, title) for part in parts if part)


def weights_plot(part: WeightsPart) -> str:
    """Share of the rounds by importance weight; bins are as wide as each other."""
    size = Size(WIDTH, 220)
    total = sum(part.counts) or 1
    shares = [count / total for count in part.counts]
    ticks = round_ticks(0.0, max(shares))
    drawn = _y_axis(ticks, size, percent=True)
    room = (size.width - LEFT - RIGHT) / len(shares)
    each = max(1, math.ceil(52 / room))  # a label every so many bins
    for place, (share, count) in enumerate(zip(shares, part.counts, strict=True)):
        low, high = part.edges[place], part.edges[place + 1]
        top, floor = _y(share, ticks, size), _y(0.0, ticks, size)
        note = f"weight {short(low)} to {short(high)}: {count:,} rounds ({100 * share:.1f}%)"
        drawn.append(
            f'<rect class="fill s0" x="{LEFT + room * place + 0.5:.1f}" y="{top:.1f}" '
            f'width="{max(0.5, room - 1):.1f}" height="{max(0.0, floor - top):.1f}">'
            f"<title>{escape(note)}</title></rect>"
        )
        if place % each == 0:
            x = LEFT + room * place
            drawn.append(svg_text(x, size.height - BOTTOM + 18, short(low), anchor="middle"))
    one = _place_in(part.edges, 1.0)
    if one is not None:
        drawn.append(_vertical(LEFT + room * one, "weight 1", size))
    drawn.append(_below("importance weight, lower end of the bin", size))
    return svg(drawn, f"Importance weights of {part.policy}", size)


def curve_plot(plot: CurvePlot, *, title: str) -> str:
    """The lines of a plot, on a linear or logarithmic x axis."""
    size = Size(WIDTH, 300)
    xs = [x for line in plot.lines for x, _ in line.points]
    ys = [y for line in plot.lines for _, y in line.points]
    if plot.marked_x is not None:
        xs.append(plot.marked_x)
    low, high = (min(0.0, min(ys)), max(1.0, *ys)) if plot.percent else (min(ys), max(ys))
    ticks = round_ticks(low, high)
    drawn = _y_axis(ticks, size, percent=plot.percent)
    scale = math.log10 if plot.log_x else float
    first, last = scale(min(xs)), scale(max(xs))
    span = (last - first) or 1.0

    def across(x: float) -> float:
        return LEFT + 8 + (size.width - LEFT - RIGHT - 16) * (scale(x) - first) / span

    for x in _x_ticks(min(xs), max(xs), plot.log_x):
        drawn.append(svg_text(across(x), size.height - BOTTOM + 18, short(x), anchor="middle"))
    if plot.marked_x is not None:
        drawn.append(_vertical(across(plot.marked_x), plot.marked_label, size))
    for place, line in enumerate(plot.lines):
        colour = f"s{place % NUM_COLOURS}"
        where = [(across(x), _y(y, ticks, size)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        drawn.append(f'<polyline class="line {colour}" points="{path}"/>')
        dots = zip(where, line.points, strict=True) if len(where) <= 60 else ()
        for (x, y), (point, value) in dots:
            note = f"{line.name}: {number(value, plot.percent)} at {short(point)}"
            drawn.append(
                f'<circle class="fill {colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6">'
                f"<title>{escape(note)}</title></circle>"
            )
    drawn.append(_below(plot.x_label, size))
    return svg(drawn, title, size)


def number(value: float, percent: bool = False, *, sign: bool = False) -> str:
    """A value as a reader wants it: four digits that matter, or a percentage."""
    mark = "+" if sign else ""
    if percent:
        digits = 1 if abs(value) >= 0.01 or value == 0 else 2
        return f"{100 * value:{mark}.{digits}f}%"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-4 or size >= 1e6:
        return f"{value:{mark}.3g}"
    if size >= 10 and value == round(value):
        return f"{value:{mark},.0f}"
    digits = 5 if size < 0.01 else 4 if size < 100 else 1
    return f"{value:{mark},.{digits}f}"


def short(value: float) -> str:
    """A number on an axis: 0.25, 12, 3.5k, 2M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.3g}"


def _forest(lines: Sequence[EffectLine], title: str) -> str:
    percent = lines[0].percent
    size = Size(WIDTH, 18 + ROW * len(lines) + 30)
    ends = [v for one in lines for v in (one.value, one.low, one.high, 0.0) if v is not None]
    ticks = round_ticks(min(ends), max(ends))
    left, right = NAME_WIDTH, size.width - VALUE_WIDTH
    floor = 10 + ROW * len(lines)

    def across(value: float) -> float:
        return left + (right - left) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    drawn = []
    for place, tick in enumerate(ticks):
        drawn.append(f'<path class="grid" d="M{across(tick):.1f} 8V{floor}"/>')
        if place % max(1, math.ceil(len(ticks) / 6)) == 0:
            label = f"{100 * tick:.10g}%" if percent else f"{tick:.10g}"
            drawn.append(svg_text(across(tick), floor + 18, label, anchor="middle"))
    drawn.append(f'<path class="mark" d="M{across(0.0):.1f} 4V{floor}"/>')
    for place, one in enumerate(lines):
        y = 10 + ROW * (place + 0.5)
        colour = _side(one)
        name = one.name if len(one.name) <= 27 else one.name[:26] + "…"
        note = f"{one.name}: {with_ends(one)}"
        drawn.append(f"<g><title>{escape(note)}</title>")
        drawn.append(svg_text(0, y + 4, name, anchor="start"))
        if one.low is not None and one.high is not None:
            low, high = across(one.low), across(one.high)
            drawn.append(
                f'<path class="span {colour}" d="M{low:.1f} {y}H{high:.1f}'
                f'M{low:.1f} {y - 5}v10M{high:.1f} {y - 5}v10"/>'
            )
        drawn.append(
            f'<circle class="fill {colour}" cx="{across(one.value):.1f}" cy="{y}" r="4.5"/>'
        )
        drawn.append(svg_text(size.width, y + 4, with_ends(one), anchor="end"))
        drawn.append("</g>")
    return svg(drawn, title, size)


def with_ends(one: EffectLine) -> str:
    """The difference and its interval, such as +0.0120 [+0.0040, +0.0200]."""
    text = number(one.value, one.percent, sign=True)
    if one.low is None or one.high is None:
        return text
    low, high = (number(end, one.percent, sign=True) for end in (one.low, one.high))
    return f"{text} [{low}, {high}]"


def _side(one: EffectLine) -> str:
    """Green where the whole interval is above zero, orange below, grey where neither."""
    if one.low is not None and one.low > 0:
        return "s2"
    if one.high is not None and one.high < 0:
        return "s5"
    return "s6"


def _y(value: float, ticks: Sequence[float], size: Size) -> float:
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return size.height - BOTTOM - share * (size.height - TOP - BOTTOM)


def _y_axis(ticks: Sequence[float], size: Size, *, percent: bool) -> list[str]:
    drawn = []
    for tick in ticks:
        y = _y(tick, ticks, size)
        drawn.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{size.width - RIGHT}"/>')
        label = f"{100 * tick:.10g}%" if percent else f"{tick:.10g}"
        drawn.append(svg_text(LEFT - 8, y + 4, label, anchor="end"))
    return drawn


def _x_ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    if not logarithmic:
        return [tick for tick in round_ticks(low, high) if low <= tick <= high] or [low]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1.0,) if last - first > 4 else (1.0, 2.0, 5.0)
    ticks = [10.0**power * step for power in range(first, last + 1) for step in steps]
    return [tick for tick in ticks if low <= tick <= high] or [low]


def _place_in(edges: Sequence[float], value: float) -> float | None:
    """Where ``value`` lies, in bins from the left; None outside."""
    for place in range(len(edges) - 1):
        if edges[place] <= value <= edges[place + 1]:
            return place + (value - edges[place]) / (edges[place + 1] - edges[place])
    return None


def _vertical(x: float, label: str, size: Size) -> str:
    half = LETTER * len(label) / 2
    middle = min(max(x, LEFT + half), size.width - RIGHT - half)
    line = f'<path class="mark" d="M{x:.1f} {TOP}V{size.height - BOTTOM}"/>'
    return line + svg_text(middle, TOP - 8, label, anchor="middle")


def _below(label: str, size: Size) -> str:
    return svg_text((LEFT + size.width - RIGHT) / 2, size.height - 10, label, anchor="middle")
