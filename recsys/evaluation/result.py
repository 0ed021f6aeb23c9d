"""What an evaluation found, and its forms as text, as JSON and on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import polars as pl

from recsys.errors import ArtifactError
from recsys.evaluation.significance import Interval
from recsys.files.headers import read_header

__all__ = ["Evaluation", "Exposure", "SliceResult", "comparison_table"]

NUMBERS = "evaluation.json"
USERS = "users.parquet"
FORMAT = 1


class SliceResult(NamedTuple):
    """The numbers of one slice.

    Attributes:
        name: such as "tail items".
        description: who is in it.
        users: users with a relevant item in the slice.
        relevant: relevant items in the slice, over all users.
        metrics: as in `Evaluation`; empty where ``users`` is 0.
    """

    name: str
    description: str
    users: int
    relevant: int
    metrics: Mapping[str, Interval]


class Exposure(NamedTuple):
    """Where in the catalogue, from most to least popular, the lists and the truth lie.

    Attributes:
        recommended: share of recommended places per tenth of the catalogue, most popular first.
        wanted: share of relevant items per tenth.
    """

    recommended: tuple[float, ...]
    wanted: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """Everything measured about one system's lists.

    Attributes:
        per_user: one row per judged user: user_id String, num_relevant, history_length (if
            given) and one Float64 column per relevance metric ("recall@20").
        metrics: mean and bootstrap interval of each of these columns.
        list_metrics: numbers about the lists as a whole ("coverage@20"); "refused@20", the share
            of the lists that hold an item which their user had disliked or returned, where the log
            says so.
        slices: the same means for groups of items and users.
        recall_curve: mean recall at 1, 2, ... up to the length of the lists.
        exposure: how the first ``headline_k`` places spread over the catalogue.
        users: users judged.
        left_out: users without a relevant item, in no mean.
        num_items: N, size of the catalogue.
        headline_k: cutoff to show first.
        level: of the intervals.
    """

    per_user: pl.DataFrame
    metrics: Mapping[str, Interval]
    list_metrics: Mapping[str, float]
    slices: tuple[SliceResult, ...]
    recall_curve: tuple[float, ...]
    exposure: Exposure
    users: int
    left_out: int
    num_items: int
    headline_k: int
    level: float

    def to_table(self) -> str:
        """Aligned text: the means with their intervals, then the slices at ``headline_k``."""
        percent = f"{100 * self.level:g}%"
        lines = [
            f"{self.users} users judged, {self.left_out} left out (no relevant item), "
            f"{self.num_items} items",
            "",
        ]
        rows = [["metric", "mean", f"{percent} interval"]]
        rows += [[name, f"{i.mean:.4f}", _ends(i)] for name, i in self.metrics.items()]
        rows += [[name, f"{value:.4f}", ""] for name, value in self.list_metrics.items()]
        lines += _aligned(rows)
        shown = [name for name in self.metrics if name.endswith(f"@{self.headline_k}")]
        shown = [n for n in shown if n.partition("@")[0] in ("recall", "ndcg")] or shown[:2]
        header = ["slice", "users", "relevant"]
        for name in shown:
            header += [name, f"{percent} interval"]
        table = [header]
        for part in self.slices:
            row = [part.name, str(part.users), str(part.relevant)]
            for name in shown:
                found = part.metrics.get(name)
                row += ["-", ""] if found is None else [f"{found.mean:.4f}", _ends(found)]
            table.append(row)
        return "\n".join([*lines, "", *_aligned(table)]) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """All but ``per_user`` as plain JSON types."""
        return {
            "format": FORMAT,
            "users": self.users,
            "left_out": self.left_out,
            "num_items": self.num_items,
            "headline_k": self.headline_k,
            "level": self.level,
            "metrics": _plain(self.metrics),
            "list_metrics": dict(self.list_metrics),
            "slices": [part._asdict() | {"metrics": _plain(part.metrics)} for part in self.slices],
            "recall_curve": list(self.recall_curve),
            "exposure": {name: list(share) for name, share in self.exposure._asdict().items()},
        }

    def to_json(self) -> str:
        """`to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def save(self, directory: Path) -> None:
        """Write ``evaluation.json`` and ``users.parquet`` into ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        self.per_user.write_parquet(directory / USERS)
        (directory / NUMBERS).write_text(self.to_json())

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, unreadable or of another format version.
        """
        try:
            values = read_header(directory / NUMBERS, FORMAT, remedy="evaluate again")
            per_user = pl.read_parquet(directory / USERS)
        except FileNotFoundError as e:
            raise ArtifactError(f"no evaluation in {directory}: {e.filename or e}") from e
        except (ValueError, pl.exceptions.PolarsError) as e:
            raise ArtifactError(f"the evaluation in {directory} is damaged: {e}") from e
        return cls(
            per_user=per_user,
            metrics=_intervals(values["metrics"]),
            list_metrics=values["list_metrics"],
            slices=tuple(
                SliceResult(**(part | {"metrics": _intervals(part["metrics"])}))
                for part in values["slices"]
            ),
            recall_curve=tuple(values["recall_curve"]),
            exposure=Exposure(**{name: tuple(v) for name, v in values["exposure"].items()}),
            users=values["users"],
            left_out=values["left_out"],
            num_items=values["num_items"],
            headline_k=values["headline_k"],
            level=values["level"],
        )


def comparison_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Aligned text, one row a system: what they share at the first one's ``headline_k``.

    Raises:
        ValueError: no system.
    """
    if not evaluations:
        raise ValueError("evaluations must hold at least one system")
    first = next(iter(evaluations.values()))
    wanted = [f"{name}@{first.headline_k}" for name in ("recall", "ndcg", "hit_rate", "mrr")]
    names = [name for name in wanted if all(name in e.metrics for e in evaluations.values())]
    listed = [
        f"{name}@{first.headline_k}"
        for name in ("coverage", "novelty", "head_share", "refused")
        if all(f"{name}@{first.headline_k}" in e.list_metrics for e in evaluations.values())
    ]
    header = ["system", "users"]
    for name in names:
        header += [name, f"{100 * first.level:g}%"] if name == names[0] else [name, ""]
    rows = [[*header, *listed]]
    for system, found in evaluations.items():
        row = [system, str(found.users)]
        for name in names:
            interval = found.metrics[name]
            row += [f"{interval.mean:.4f}", f"{interval.low:.3f}-{interval.high:.3f}"]
        rows.append(row + [f"{found.list_metrics[name]:.3f}" for name in listed])
    return "\n".join(_aligned(rows)) + "\n"


def _plain(metrics: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: interval._asdict() for name, interval in metrics.items()}


def _intervals(plain: Mapping[str, Any]) -> dict[str, Interval]:
    return {name: Interval(**interval) for name, interval in plain.items()}


def _ends(interval: Interval) -> str:
    return f"{interval.low:.4f} .. {interval.high:.4f}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """First column to the left, the others to the right, two spaces between."""
    width = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(size) if column else cell.ljust(size)
            for column, (cell, size) in enumerate(zip(row, width, strict=True))
        ).rstrip()
        for row in rows
    ]
