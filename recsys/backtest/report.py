"""A backtest as tables of text, as one JSON value and as a page."""

from __future__ import annotations

import json
from html import escape
from typing import Any, NamedTuple

from features.moments import duration_text
from features.whole_files import whole_file
from recsys.backtest.ageing import Loss
from recsys.backtest.origins import FUNNEL, POPULAR
from recsys.backtest.run import Backtest
from recsys.evaluation import Interval
from recsys.evaluation.page import folded, legend, page, section, table
from recsys.evaluation.plots import Bar, bar_plot, line_plot

__all__ = ["PAGE_FILE", "Table", "as_dict", "notes", "tables", "write_report"]

JSON_FILE, PAGE_FILE = "backtest.json", "backtest.html"
_DAY_US = 86_400_000_000


class Table(NamedTuple):
    """Rows of text with a title; the first row is the head."""

    title: str
    rows: list[list[str]]


def tables(found: Backtest) -> list[Table]:
    """What is shown first: each origin, and the funnel by age, in the headline metrics."""
    return [
        *(_origin_table(found, metric) for metric in found.headline),
        *(_age_table(found, FUNNEL, metric) for metric in found.headline),
    ]


def notes(found: Backtest) -> list[str]:
    """What a reader of the numbers must know, as sentences."""
    told = []
    if any(found.taken_over):
        count = sum(found.taken_over)
        told.append(f"{count} of {len(found.windows)} models were finished before and taken over")
    if found.steps.horizon_us > found.steps.every_us:
        told.append("windows overlap, so the origins differ less than independent ones would")
    for window, bundle in zip(found.windows, found.bundles, strict=True):
        told += [f"{window.begin:%Y-%m-%d}: {one}" for one in bundle.left_out()]
    return told


def as_dict(found: Backtest) -> dict[str, Any]:
    """All of it as plain JSON values."""
    steps = found.steps
    return {
        "origins": steps.origins,
        "every": duration_text(steps.every_us),
        "horizon": duration_text(steps.horizon_us),
        "metrics": list(found.metrics),
        "windows": [
            {
                "begin": window.begin.isoformat(),
                "end": window.end.isoformat(),
                "bundle": bundle.id,
                "path": str(bundle.path),
                "taken_over": taken_over,
                "left_out": [one._asdict() for one in bundle.left_out()],
            }
            for window, bundle, taken_over in zip(
                found.windows, found.bundles, found.taken_over, strict=True
            )
        ],
        "measured": [
            {
                "origin": found.windows[origin].begin.isoformat(),
                "window": found.windows[window].begin.isoformat(),
                "age": _age(found, window - origin),
                "systems": {
                    system: {metric: one._asdict() for metric, one in metrics.items()}
                    for system, metrics in systems.items()
                },
            }
            for (origin, window), systems in found.intervals.items()
        ],
        "spread": {
            system: {metric: found.spread(system, metric)._asdict() for metric in found.metrics}
            for system in found.systems
        },
        "ageing": {
            system: {
                metric: [_loss_record(found, one) for one in losses]
                for metric, losses in metrics.items()
            }
            for system, metrics in found.losses.items()
        },
        "advice": found.advice,
        "notes": notes(found),
    }


def write_report(found: Backtest) -> None:
    """Write ``backtest.json`` and ``backtest.html`` beside the models."""
    with whole_file(found.directory / JSON_FILE) as path:
        path.write_text(json.dumps(as_dict(found), indent=2) + "\n", encoding="utf-8")
    with whole_file(found.directory / PAGE_FILE) as path:
        path.write_text(_page(found), encoding="utf-8")


def _age(found: Backtest, steps: int) -> str:
    return duration_text(steps * found.steps.every_us)


def _loss_record(found: Backtest, one: Loss) -> dict[str, Any]:
    return {
        "age": _age(found, one.age),
        "windows": one.windows,
        "aged": one.aged,
        "fresh": one.fresh,
        "share": one.share,
        "difference": one.difference._asdict(),
    }


def _origin_table(found: Backtest, metric: str) -> Table:
    systems = found.systems
    head = ["origin", "users", *systems, f"{FUNNEL} 95%"]
    rows = []
    columns = {system: found.fresh(system, metric) for system in systems}
    for number, window in enumerate(found.windows):
        own = columns[FUNNEL][number]
        values = ["" if (one := columns[system][number]) is None else f"{one.mean:.4f}"
                  for system in systems]  # fmt: skip
        users, interval = ("", "") if own is None else (f"{own.users:,}", _range(own))
        rows.append([f"{window.begin:%Y-%m-%d %H:%M}", users, *values, interval])
    spreads = [found.spread(system, metric) for system in systems]
    rows += [
        ["mean", "", *(f"{one.mean:.4f}" for one in spreads), ""],
        ["std. deviation", "", *(_or_blank(one.deviation) for one in spreads), ""],
        ["smallest", "", *(f"{one.smallest:.4f}" for one in spreads), ""],
        ["largest", "", *(f"{one.largest:.4f}" for one in spreads), ""],
    ]
    return Table(f"{metric} of each origin in its own window", [head, *rows])


def _age_table(found: Backtest, system: str, metric: str) -> Table:
    head = ["age", "windows", "users", "aged", "fresh", "share", "aged - fresh", "95%"]
    rows = [
        [
            _age(found, one.age),
            str(one.windows),
            f"{one.difference.users:,}",
            f"{one.aged:.4f}",
            f"{one.fresh:.4f}",
            "" if one.share is None else f"{one.share:.1%}",
            f"{one.difference.mean:+.4f}",
            f"[{one.difference.low:+.4f}, {one.difference.high:+.4f}]",
        ]
        for one in found.losses[system][metric]
    ]
    return Table(f"{metric} of the {system} by age, against a fresh one", [head, *rows])


def _range(one: Interval) -> str:
    return f"[{one.low:.4f}, {one.high:.4f}]"


def _or_blank(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _page(found: Backtest) -> str:
    every, horizon = (duration_text(us) for us in found.steps[1:])
    parts = [f"<p><b>{escape(found.advice)}</b></p>"]
    for metric in found.headline:
        shown = _origin_table(found, metric)
        text = (
            f"Models trained on what came strictly before each of {found.steps.origins} moments, "
            f"{every} apart, judged on the {horizon} after it. Whiskers hold the mean over users "
            f"in 95 of 100 draws; {POPULAR}: popular items of the last 30 days, for comparison."
        )
        series = {system: _bars(found.fresh(system, metric)) for system in found.systems}
        groups = [f"{window.begin:%Y-%m-%d}" for window in found.windows]
        plot = bar_plot(groups, series, title=shown.title, x_label="origin")
        body = legend(series) + plot + folded("Numbers", table(shown.rows))
        parts.append(section(shown.title, text, body))
    for metric in found.headline:
        parts.append(_ageing_section(found, metric))
    told = "".join(f"<li>{escape(one)}</li>" for one in notes(found))
    parts.append(f"<ul>{told}</ul>" if told else "")
    return page("Does it last? A backtest over several origins", "\n".join(parts))


def _ageing_section(found: Backtest, metric: str) -> str:
    text = (
        "The same users in the same windows, asked with the same histories: how much of what a "
        "fresh model finds an older one still finds. Below 100% it has lost something."
    )
    series = {
        system: points
        for system, metrics in found.losses.items()
        if (points := _shares(found, metrics[metric]))
    }
    label = "age of the model, days"
    title = f"{metric} by the age of the model"
    plot = (
        legend(series)
        + line_plot(series, title=title, x_label=label, percent=True, y_range=(1.0, 1.0))
        if series
        else ""
    )
    shown = {system: _age_table(found, system, metric) for system in found.losses}
    numbers = "".join(f"<h2>{escape(name)}</h2>{table(one.rows)}" for name, one in shown.items())
    return section(title, text, plot + folded("Numbers", numbers))


def _bars(values: list[Interval | None]) -> list[Bar | None]:
    return [None if one is None else Bar(one.mean, one.low, one.high) for one in values]


def _shares(found: Backtest, losses: list[Loss]) -> list[tuple[float, float]]:
    days = found.steps.every_us / _DAY_US
    aged = [(one.age * days, one.share) for one in losses if one.share is not None]
    return [(0.0, 1.0), *aged] if aged else []
