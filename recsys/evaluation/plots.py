"""Bars and lines as inline SVG: no script, no font, no colour of its own.

Colours are the classes s0, s1, ... and the text takes the page's colour, so that the page decides
how light and dark look. Every mark has a <title>, which browsers show under the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

__all__ = [
    "FULL",
    "NUM_COLOURS",
    "SMALL",
    "Bar",
    "Size",
    "bar_plot",
    "line_plot",
    "round_ticks",
    "svg",
    "svg_text",
]

NUM_COLOURS = 8
LABEL_WIDTH = 30.0  # a bar at least this wide has room for its number
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 22, 52


class Size(NamedTuple):
    """Of a plot, in the units of its text, which is 12 high."""

    width: int
    height: int


FULL = Size(760, 300)
SMALL = Size(370, 190)
"""Half a page wide; two stand side by side."""


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
    parts = _frame(ticks, percent, FULL)
    room = (FULL.width - LEFT - RIGHT) / len(groups)
    width = min(54.0, room * 0.8 / len(series))
    for place, group in enumerate(groups):
        middle = LEFT + room * (place + 0.5)
        parts.append(svg_text(middle, FULL.height - BOTTOM + 18, group, anchor="middle"))
        for number, (name, bars) in enumerate(series.items()):
            bar = bars[place]
            x = middle + width * (number - len(series) / 2)
            if bar is not None:
                parts.append(_bar(bar, x, width, ticks, number, f"{group} · {name}", percent))
    return svg([*parts, _below(x_label, FULL)], title, FULL)


def line_plot(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    percent: bool = False,
    from_zero: bool = True,
    marked: tuple[float, str] | None = None,
    x_range: tuple[float, float] | None = None,
    size: Size = FULL,
) -> str:
    """One line per series through its (x, y) points.

    Args:
        series: name to points in rising x; a single point is drawn as a dot.
        title: what the plot shows, for readers who hear it.
        x_label: below the axis.
        percent: show y as percentages.
        from_zero: let the y axis start at zero.
        marked: an x that stands out and what to write there. None: nothing.
        x_range: what the x axis must span at least, so that plots can be compared. None: the
            points.
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
    ticks = round_ticks(0.0 if from_zero else min(ys), max(ys))
    parts = _frame(ticks, percent, size)
    shown = xs + list(x_range or ()) + ([] if marked is None else [marked[0]])
    first, last = min(shown), max(shown)
    span = (last - first) or 1.0

    def across(x: float) -> float:
        return LEFT + 8 + (size.width - LEFT - RIGHT - 16) * (x - first) / span

    for x in _whole_ticks(first, last):
        parts.append(svg_text(across(x), size.height - BOTTOM + 18, f"{x:g}", anchor="middle"))
    if marked is not None:
        parts.append(_mark(across(marked[0]), marked[1], size))
    for number, (name, points) in enumerate(series.items()):
        where = [(across(x), _up(y, ticks, size)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        colour = f"s{number % NUM_COLOURS}"
        parts.append(f'<polyline class="line {colour}" points="{path}"/>')
        dots = where if len(where) <= 60 else []
        for (x, y), (_, value) in zip(dots, points, strict=False):
            note = escape(f"{name}: {_number(value, percent)}")
            parts.append(
                f'<circle class="fill {colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6">'
                f"<title>{note}</title></circle>"
            )
    return svg([*parts, _below(x_label, size)], title, size)


def _bar(
    bar: Bar,
    x: float,
    width: float,
    ticks: Sequence[float],
    number: int,
    name: str,
    percent: bool,
) -> str:
    note = f"{name}: {_number(bar.value, percent)}"
    if bar.low is not None and bar.high is not None:
        note += f" ({_number(bar.low, percent)} to {_number(bar.high, percent)})"
    top, floor = _up(bar.value, ticks, FULL), _up(0.0, ticks, FULL)
    drawn = (
        f"<g><title>{escape(note)}</title>"
        f'<rect class="fill s{number % NUM_COLOURS}" x="{x + 1:.1f}" y="{top:.1f}" '
        f'width="{max(1.0, width - 2):.1f}" height="{max(0.0, floor - top):.1f}"/>'
    )
    if bar.low is not None and bar.high is not None:
        middle, cap = x + width / 2, min(5.0, width / 4)
        low, high = _up(bar.low, ticks, FULL), _up(bar.high, ticks, FULL)
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


def _frame(ticks: Sequence[float], percent: bool, size: Size) -> list[str]:
    """Horizontal lines and the numbers beside them."""
    parts = []
    for tick in ticks:
        y = _up(tick, ticks, size)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{size.width - RIGHT}"/>')
        label = f"{100 * tick:.10g}%" if percent else f"{tick:.10g}"
        parts.append(svg_text(LEFT - 8, y + 4, label, anchor="end"))
    return parts


def _mark(x: float, label: str, size: Size) -> str:
    """A broken line from top to bottom; its label stays within the plot."""
    half = 3.5 * len(label)  # letters of this font are about 7 wide
    middle = min(max(x, LEFT + half), size.width - RIGHT - half)
    line = f'<path class="mark" d="M{x:.1f} {TOP}V{size.height - BOTTOM}"/>'
    return line + svg_text(middle, TOP - 8, label, anchor="middle")


def _below(label: str, size: Size) -> str:
    return svg_text((LEFT + size.width - RIGHT) / 2, size.height - 10, label, anchor="middle")


def _up(value: float, ticks: Sequence[float], size: Size) -> float:
    """The y coordinate of ``value``."""
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return size.height - BOTTOM - share * (size.height - TOP - BOTTOM)


def round_ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers around low..high."""
    if high - low <= 1e-9 * max(1.0, abs(low)):  # flat, as far as a reader could see
        high = low + (abs(low) if abs(low) > 1e-9 else 1.0)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


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


def _number(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}%" if percent else f"{value:.4g}"


def svg_text(x: float, y: float, text: str, *, anchor: str) -> str:
    """Text at (x, y); ``anchor`` is start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def svg(parts: Sequence[str], title: str, size: Size) -> str:
    """A drawing of these parts; ``title`` is what it shows, for readers who hear it."""
    return (
        f'<svg viewBox="0 0 {size.width} {size.height}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )
