"""The part of the report that shows how the two towers were trained, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from recsys.evaluation.drawing import FULL, SMALL
from recsys.evaluation.page import legend, section
from recsys.evaluation.plots import line_plot

__all__ = ["best_epoch", "training_section"]

Epoch = Mapping[str, float | None]
"""What was measured after an epoch, by name; what is missing or None was not measured."""

_NOT_PLOTTED = ("epoch", "num_epochs")


class Panel(NamedTuple):
    """A small plot.

    Attributes:
        title: above it.
        meaning: for a reader who has not met it; a sentence part.
        series: key of the epoch to the name of its line.
        percent: values are shares.
    """

    title: str
    meaning: str
    series: Mapping[str, str]
    percent: bool = False


_MAIN = (
    Panel(
        "Validation recall@20",
        "share of what held-out people went on to choose that is among their 20 best items",
        {"recall": "validation recall@20"},
        percent=True,
    ),
    Panel("Loss", "what the training lowers, mean over the steps", {"loss": "loss"}),
)
_SMALL = (
    Panel(
        "Alignment",
        "squared distance of a person from what they choose; 0 on top of it, 2 unrelated",
        {"alignment": "alignment"},
    ),
    Panel(
        "Uniformity",
        "how evenly vectors spread; about -3.9 everywhere, 0 all in one place",
        {"uniformity_users": "users", "uniformity_items": "items"},
    ),
    Panel(
        "RankMe",
        "how many dimensions the vectors use; below half of them they have collapsed",
        {"rankme_users": "users", "rankme_items": "items"},
    ),
    Panel("Gradient norm", "how hard a step pulls", {"gradient_norm": "gradient norm"}),
    Panel(
        "Coverage",
        "share of the catalogue that is recommended to anybody",
        {"coverage": "coverage"},
        percent=True,
    ),
    Panel(
        "Head share",
        "share of recommendations from the most popular tenth of the catalogue",
        {"head_share": "head share"},
        percent=True,
    ),
    Panel(
        "Tail recall",
        "recall where only the less popular half of the catalogue is wanted",
        {"tail_recall": "tail recall"},
        percent=True,
    ),
    Panel(
        "Pooled AUC",
        "chance that a wanted pair scores above a random one; 0.5 is guessing",
        {"global_auc": "pooled AUC"},
    ),
    Panel(
        "Skewness of occurrences",
        "high where a few items stand in very many lists",
        {"occurrence_skewness": "skewness"},
    ),
    Panel("Seconds", "of an epoch, measuring included", {"seconds": "seconds"}),
)


def best_epoch(epochs: Sequence[Epoch]) -> int | None:
    """Number of the epoch with the highest validation recall, the first of equals; None without.

    >>> best_epoch([{"epoch": 1, "recall": 0.1}, {"epoch": 2, "recall": 0.2}])
    2
    """
    points = _points(epochs, "recall")
    return int(max(points, key=lambda point: point[1])[0]) if points else None


def training_section(epochs: Sequence[Epoch]) -> str:
    """HTML of loss and validation recall, and small plots of whatever else was measured.

    Values that are missing, None or not finite are left out, and so is a plot without values; a
    number that this module does not know gets a plot under its own name.

    Args:
        epochs: one mapping per epoch in order. "epoch" is its number (else the place, from 1),
            "num_epochs" as many as there could have been; the rest are series.

    Returns:
        Nothing if no epoch holds a number.
    """
    known = {key for panel in _MAIN + _SMALL for key in panel.series}
    keys = dict.fromkeys(key for epoch in epochs for key in epoch)  # in order, once each
    others = [
        Panel(key.replace("_", " ").capitalize(), "", {key: key.replace("_", " ")})
        for key in keys
        if key not in known and key not in _NOT_PLOTTED
    ]
    best = best_epoch(epochs)
    main = [_figure(panel, epochs, best, large=True) for panel in _MAIN]
    small = "".join(_figure(panel, epochs, best, large=False) for panel in (*_SMALL, *others))
    if not any(main) and not small:
        return ""
    panels = f'<div class="panels">{small}</div>' if small else ""
    return section("Training of the two towers", _text(epochs, best), "".join(main) + panels)


def _text(epochs: Sequence[Epoch], best: int | None) -> str:
    last, planned = len(epochs), _finite(epochs[-1].get("num_epochs"))
    text = "The value after each pass over the training data. "
    if planned is not None and planned > last:
        text += f"Training stopped after {last} of at most {planned:g} passes. "
    if best is None:
        return text + "Nothing was held out to judge the epochs by, so the last one counts."
    text += f"Epoch {best} did best on what was held out, so training counts up to there."
    if best == _number(epochs[-1], last) and last > 1:
        text += " It is the last one: more epochs might do better still."
    return text


def _figure(panel: Panel, epochs: Sequence[Epoch], best: int | None, *, large: bool) -> str:
    series = {name: _points(epochs, key) for key, name in panel.series.items()}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ""
    numbers = [_number(epoch, place) for place, epoch in enumerate(epochs, start=1)]
    plot = line_plot(
        series,
        title=f"{panel.title} after each epoch",
        x_label="epoch",
        percent=panel.percent,
        y_range=None,
        marked=None if best is None else (best, f"best: {best}"),
        x_range=(min(numbers), max(numbers)),
        size=FULL if large else SMALL,
    )
    meaning = f": {panel.meaning}" if panel.meaning else ""
    caption = f"<b>{escape(panel.title)}</b>{escape(meaning)}"
    return f"<figure><figcaption>{caption}</figcaption>{legend(series)}{plot}</figure>"


def _points(epochs: Sequence[Epoch], key: str) -> list[tuple[float, float]]:
    """(epoch, value) where there is a value."""
    found = []
    for place, epoch in enumerate(epochs, start=1):
        value = _finite(epoch.get(key))
        if value is not None:
            found.append((_number(epoch, place), value))
    return found


def _number(epoch: Epoch, place: int) -> float:
    number = _finite(epoch.get("epoch"))
    return float(place) if number is None else number


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
