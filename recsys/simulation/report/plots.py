"""Plots of a report as inline SVG: effects with intervals, weights, and curves.

As in `recsys.evaluation.plots`, every mark has a <title>.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from recsys.evaluation.drawing import (
    BOTTOM,
    FULL,
    LEFT,
    RIGHT,
    Size,
    across_label,
    height_of,
    number,
    round_ticks,
    short,
    svg,
    svg_text,
    tick_label,
    upright,
    y_axis,
)
from recsys.evaluation.plots import line_plot
from recsys.simulation.report.parts import CurvePlot, EffectLine, WeightsPart

__all__ = ["curve_plot", "forest_plot", "weights_plot", "with_ends"]

NAME_WIDTH, VALUE_WIDTH, ROW = 190, 190, 28


def forest_plot(lines: Sequence[EffectLine], *, title: str) -> str:
    """One row a line: its name, a dot with its interval, the numbers; a broken line at zero.

    Lines that are shares and lines that are not have scales of their own, the shares above.

    Raises:
        ValueError: no line.
    """
    if not lines:
        raise ValueError("lines must hold at least one line, got none")
    parts = [[line for line in lines if line.percent], [line for line in lines if not line.percent]]
    return "".join(_forest(part, title) for part in parts if part)


def weights_plot(part: WeightsPart) -> str:
    """Share of the rounds by importance weight; bins are as wide as each other."""
    size = Size(FULL.width, 220)
    total = sum(part.counts) or 1
    shares = [count / total for count in part.counts]
    ticks = round_ticks(0.0, max(shares))
    drawn = y_axis(ticks, size, percent=True)
    room = (size.width - LEFT - RIGHT) / len(shares)
    each = max(1, math.ceil(52 / room))  # a label every so many bins
    for place, (share, count) in enumerate(zip(shares, part.counts, strict=True)):
        low, high = part.edges[place], part.edges[place + 1]
        top, floor = height_of(share, ticks, size), height_of(0.0, ticks, size)
        note = f"weight {short(low)} to {short(high)}: {count:,} rounds ({100 * share:.1f}%)"
        drawn.append(
            f'<rect class="fill s0" x="{LEFT + room * place + 0.5:.1f}" y="{top:.1f}" '
            f'width="{max(0.5, room - 1):.1f}" height="{max(0.0, floor - top):.1f}">'
            f"<title>{escape(note)}</title></rect>"
        )
        if place % each == 0:
            x = LEFT + room * place
            drawn.append(svg_text(x, size.height - BOTTOM + 18, short(low), anchor="middle"))
    at_one = _place_in(part.edges, 1.0)
    if at_one is not None:
        drawn.append(upright(LEFT + room * at_one, "weight 1", size))
    drawn.append(across_label("importance weight, lower end of the bin", size))
    return svg(drawn, f"Importance weights of {part.policy}", size)


def curve_plot(plot: CurvePlot, *, title: str) -> str:
    """The lines of a plot, on a linear or logarithmic x axis; of shares, from 0 to 100%."""
    return line_plot(
        {line.name: line.points for line in plot.lines},
        title=title,
        x_label=plot.x_label,
        percent=plot.percent,
        log_x=plot.log_x,
        marked=None if plot.marked_x is None else (plot.marked_x, plot.marked_label),
        y_range=(0.0, 1.0) if plot.percent else None,
    )


def _forest(lines: Sequence[EffectLine], title: str) -> str:
    percent = lines[0].percent
    size = Size(FULL.width, 18 + ROW * len(lines) + 30)
    ends = [
        v for effect in lines for v in (effect.value, effect.low, effect.high, 0.0) if v is not None
    ]
    ticks = round_ticks(min(ends), max(ends))
    left, right = NAME_WIDTH, size.width - VALUE_WIDTH
    floor = 10 + ROW * len(lines)

    def across(value: float) -> float:
        return left + (right - left) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    drawn = []
    for place, tick in enumerate(ticks):
        drawn.append(f'<path class="grid" d="M{across(tick):.1f} 8V{floor}"/>')
        if place % max(1, math.ceil(len(ticks) / 6)) == 0:
            label = tick_label(tick, percent)
            drawn.append(svg_text(across(tick), floor + 18, label, anchor="middle"))
    drawn.append(f'<path class="mark" d="M{across(0.0):.1f} 4V{floor}"/>')
    for place, effect in enumerate(lines):
        y = 10 + ROW * (place + 0.5)
        colour = _side(effect)
        name = effect.name if len(effect.name) <= 27 else effect.name[:26] + "…"
        note = f"{effect.name}: {with_ends(effect)}"
        drawn.append(f"<g><title>{escape(note)}</title>")
        drawn.append(svg_text(0, y + 4, name, anchor="start"))
        if effect.low is not None and effect.high is not None:
            low, high = across(effect.low), across(effect.high)
            drawn.append(
                f'<path class="span {colour}" d="M{low:.1f} {y}H{high:.1f}'
                f'M{low:.1f} {y - 5}v10M{high:.1f} {y - 5}v10"/>'
            )
        drawn.append(
            f'<circle class="fill {colour}" cx="{across(effect.value):.1f}" cy="{y}" r="4.5"/>'
        )
        drawn.append(svg_text(size.width, y + 4, with_ends(effect), anchor="end"))
        drawn.append("</g>")
    return svg(drawn, title, size)


def with_ends(effect: EffectLine) -> str:
    """The difference and its interval, such as +0.0120 [+0.0040, +0.0200]."""
    text = number(effect.value, effect.percent, sign=True)
    if effect.low is None or effect.high is None:
        return text
    low, high = (number(end, effect.percent, sign=True) for end in (effect.low, effect.high))
    return f"{text} [{low}, {high}]"


def _side(effect: EffectLine) -> str:
    """Green where the whole interval is above zero, orange below, grey where neither."""
    if effect.low is not None and effect.low > 0:
        return "s2"
    if effect.high is not None and effect.high < 0:
        return "s5"
    return "s6"


def _place_in(edges: Sequence[float], value: float) -> float | None:
    """Where ``value`` lies, in bins from the left; None outside."""
    for place in range(len(edges) - 1):
        if edges[place] <= value <= edges[place + 1]:
            return place + (value - edges[place]) / (edges[place + 1] - edges[place])
    return None
