"""Bars and lines over a common axis as inline SVG; every mark has a <title>, for the pointer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from recsys.evaluation.drawing import (
    BOTTOM,
    FULL,
    LEFT,
    NUM_COLOURS,
    RIGHT,
    Size,
    across_label,
    height_of,
    number,
    round_ticks,
    short,
    svg,
    svg_text,
    upright,
    y_axis,
)

__all__ = ["Bar", "bar_plot", "line_plot"]

LABEL_WIDTH = 30.0  # a bar at least this wide has room for its number


class Bar(NamedTuple):
    """Height of a bar and, if known, the ends of its whisker."""

    value: float
    low: float | None = None
    high: float | None = None


def bar_plot(
    groups: Sequence[str],
    series: Mapping[str, Sequence[Bar | None]],
    *,
    title: str,
    percent: bool = False,
    x_label: str = "",
) -> str:
    """Groups of bars side by side, one bar a series, from zero up.

    Args:
        groups: labels below the groups.
        series: name to one bar per group; None leaves the place empty.
        title: what the plot shows, for readers who hear it.
        percent: show values as percentages.
        x_label: below the group labels.

    Raises:
        ValueError: a series has not one entry per group, or there is no group or series.
    """
    for name, bars in series.items():
        if len(bars) != len(groups):
            raise ValueError(
                f"series must have one bar per group: {name!r} has {len(bars)} for {len(groups)}"
            )
    if not groups or not series:
        raise ValueError("groups and series must not be empty")
    present = [bar for bars in series.values() for bar in bars if bar is not None]
    tops = [bar.value if bar.high is None else bar.high for bar in present]
    ticks = round_ticks(0.0, max(tops, default=0.0))
    parts = y_axis(ticks, FULL, percent=percent)
    room = (FULL.width - LEFT - RIGHT) / len(groups)
    width = min(54.0, room * 0.8 / len(series))
    for place, group in enumerate(groups):
        middle = LEFT + room * (place + 0.5)
        parts.append(svg_text(middle, FULL.height - BOTTOM + 18, group, anchor="middle"))
        for rank, (name, bars) in enumerate(series.items()):
            bar = bars[place]
            x = middle + width * (rank - len(series) / 2)
            if bar is not None:
                parts.append(_bar(bar, x, width, ticks, rank, f"{group} · {name}", percent))
    return svg([*parts, across_label(x_label, FULL)], title, FULL)


def line_plot(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    percent: bool = False,
    log_x: bool = False,
    marked: tuple[float, str] | None = None,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = (0.0, 0.0),
    size: Size = FULL,
) -> str:
    """One line per series through its (x, y) points.

    Args:
        series: name to points in rising x; a single point is drawn as a dot.
        title: what the plot shows, for readers who hear it.
        x_label: below the axis.
        percent: show y as percentages.
        log_x: a logarithmic x axis; all x above 0.
        marked: an x that stands out and what to write there. None: nothing.
        x_range: what the x axis must span at least, so that plots can be compared. None: the
            points.
        y_range: the same of the y axis.
        size: of the plot.

    Raises:
        ValueError: no series, a series without points, or a point that is not finite.
    """
    if not series or not all(series.values()):
        raise ValueError("series must hold at least one point each")
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    if not all(map(math.isfinite, xs + ys)):
        raise ValueError("series must hold finite points; leave out what was not measured")
    ys += y_range or ()
    ticks = round_ticks(min(ys), max(ys))
    parts = y_axis(ticks, size, percent=percent)
    xs += [*(x_range or ()), *(() if marked is None else marked[:1])]
    scale = math.log10 if log_x else float
    first, last = scale(min(xs)), scale(max(xs))
    span = (last - first) or 1.0

    def across(x: float) -> float:
        return LEFT + 8 + (size.width - LEFT - RIGHT - 16) * (scale(x) - first) / span

    for x in _x_ticks(xs, log_x):
        parts.append(svg_text(across(x), size.height - BOTTOM + 18, short(x), anchor="middle"))
    if marked is not None:
        parts.append(upright(across(marked[0]), marked[1], size))
    for rank, (name, points) in enumerate(series.items()):
        where = [(across(x), height_of(y, ticks, size)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        colour = f"s{rank % NUM_COLOURS}"
        parts.append(f'<polyline class="line {colour}" points="{path}"/>')
        dots = zip(where, points, strict=True) if len(where) <= 60 else ()
        for (x, y), (at, value) in dots:
            note = escape(f"{name}: {number(value, percent)} at {short(at)}")
            parts.append(
                f'<circle class="fill {colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6">'
                f"<title>{note}</title></circle>"
            )
    return svg([*parts, across_label(x_label, size)], title, size)


def _bar(
    bar: Bar,
    x: float,
    width: float,
    ticks: Sequence[float],
    rank: int,
    name: str,
    percent: bool,
) -> str:
    note = f"{name}: {number(bar.value, percent)}"
    if bar.low is not None and bar.high is not None:
        note += f" ({number(bar.low, percent)} to {number(bar.high, percent)})"
    top, floor = height_of(bar.value, ticks, FULL), height_of(0.0, ticks, FULL)
    drawn = (
        f"<g><title>{escape(note)}</title>"
        f'<rect class="fill s{rank % NUM_COLOURS}" x="{x + 1:.1f}" y="{top:.1f}" '
        f'width="{max(1.0, width - 2):.1f}" height="{max(0.0, floor - top):.1f}"/>'
    )
    if bar.low is not None and bar.high is not None:
        middle, cap = x + width / 2, min(5.0, width / 4)
        low, high = height_of(bar.low, ticks, FULL), height_of(bar.high, ticks, FULL)
        drawn += (
            f'<path class="whisker" d="M{middle:.1f} {low:.1f}V{high:.1f}'
            f"M{middle - cap:.1f} {low:.1f}h{2 * cap:.1f}"
            f'M{middle - cap:.1f} {high:.1f}h{2 * cap:.1f}"/>'
        )
        top = high
    if width >= LABEL_WIDTH:
        label = f"{100 * bar.value:.0f}%" if percent else f"{bar.value:.3f}"
        drawn += svg_text(x + width / 2, top - 5, label, anchor="middle")
    return drawn + "</g>"


def _x_ticks(xs: Sequence[float], logarithmic: bool) -> list[float]:
    """Round numbers within ``xs``, whole ones where all of ``xs`` are whole."""
    low, high = min(xs), max(xs)
    if logarithmic:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        steps = (1.0,) if last - first > 4 else (1.0, 2.0, 5.0)
        ticks = [10.0**power * step for power in range(first, last + 1) for step in steps]
    elif all(x == round(x) for x in xs):
        ticks = _whole_ticks(low, high)
    else:
        ticks = round_ticks(low, high)
    return [tick for tick in ticks if low <= tick <= high] or [low]


def _whole_ticks(low: float, high: float) -> list[float]:
    """Up to about ten whole numbers within low..high, both ends among them where they fit."""
    step = max(1.0, _step_of_ten((high - low) / 9))
    inside = [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return inside if low in inside or not inside or inside[0] - low < step / 2 else [low, *inside]


def _step_of_ten(rough: float) -> float:
    if rough <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
