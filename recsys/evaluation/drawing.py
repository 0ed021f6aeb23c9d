"""Pieces of a plot: the drawing, its axes and marks, and numbers as readers want them.

No script, no font, no colour of its own. Colours are the classes s0, s1, ... and the text takes the
page's colour, so that the page decides how light and dark look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = [
    "BOTTOM",
    "FULL",
    "LEFT",
    "NUM_COLOURS",
    "RIGHT",
    "SMALL",
    "Size",
    "across_label",
    "height_of",
    "number",
    "round_ticks",
    "short",
    "svg",
    "svg_text",
    "tick_label",
    "upright",
    "y_axis",
]

NUM_COLOURS = 8
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 22, 52


class Size(NamedTuple):
    """Of a plot, in the units of its text, which is 12 high."""

    width: int
    height: int


FULL = Size(760, 300)
SMALL = Size(370, 190)
"""Half a page wide; two stand side by side."""


def svg(parts: Sequence[str], title: str, size: Size) -> str:
    """A drawing of these parts; ``title`` is what it shows, for readers who hear it."""
    return (
        f'<svg viewBox="0 0 {size.width} {size.height}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )


def svg_text(x: float, y: float, text: str, *, anchor: str) -> str:
    """Text at (x, y); ``anchor`` is start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def y_axis(ticks: Sequence[float], size: Size, *, percent: bool) -> list[str]:
    """Horizontal lines and the numbers beside them."""
    parts = []
    for tick in ticks:
        y = height_of(tick, ticks, size)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{size.width - RIGHT}"/>')
        parts.append(svg_text(LEFT - 8, y + 4, tick_label(tick, percent), anchor="end"))
    return parts


def height_of(value: float, ticks: Sequence[float], size: Size) -> float:
    """The y coordinate of ``value``, between the first tick and the last."""
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return size.height - BOTTOM - share * (size.height - TOP - BOTTOM)


def across_label(label: str, size: Size) -> str:
    """What the x axis is, below it."""
    return svg_text((LEFT + size.width - RIGHT) / 2, size.height - 10, label, anchor="middle")


def upright(x: float, label: str, size: Size) -> str:
    """A broken line from top to bottom; its label stays within the plot."""
    half = 3.5 * len(label)  # letters of this font are about 7 wide
    middle = min(max(x, LEFT + half), size.width - RIGHT - half)
    line = f'<path class="mark" d="M{x:.1f} {TOP}V{size.height - BOTTOM}"/>'
    return line + svg_text(middle, TOP - 8, label, anchor="middle")


def round_ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers around low..high."""
    if high - low <= 1e-9 * max(1.0, abs(low)):  # flat, as far as a reader could see
        high = low + (abs(low) if abs(low) > 1e-9 else 1.0)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def tick_label(tick: float, percent: bool) -> str:
    """A round number beside its line."""
    return f"{100 * tick:.10g}%" if percent else f"{tick:.10g}"


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
