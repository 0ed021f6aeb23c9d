"""What an evaluation leaves in a bundle for the gate: every user's list and values.

```
evidence/
  evidence.json    data, split, cutoff, guardrails, and what the leakage checks found
  users.parquet    slice ("" = all users), user_id, items (of all users), one column a metric
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from features.tables import USER, Histories
from recsys.bundle import Bundle
from recsys.bundle.manifest import Manifest
from recsys.dataset import Cut
from recsys.errors import ArtifactError, LeakageError
from recsys.evaluation import (
    Evaluation,
    Interval,
    Truth,
    item_slices,
    judge,
    repeat_slices,
    user_slices,
)
from recsys.evaluation.metrics import USER_METRICS, parse_metric
from recsys.files.headers import read_header, write_header
from recsys.lookup import lookup
from recsys.pipeline.calibration import calibration_error, read_map
from recsys.ranking.leakage import check_feature_leakage, check_time_leakage
from recsys.ranking.ranker import RankingRows
from recsys.simulation.gate.evidence import Evidence, UserValues
from recsys.topk import TopK

__all__ = [
    "EVIDENCE",
    "Measured",
    "calibration_of",
    "find_leakage",
    "make_evidence",
    "read_evidence",
    "write_evidence",
]

EVIDENCE = "evidence"
FORMAT = 1
MOST_ROWS = 200_000
"""Candidates that the leakage check reads: enough for an AUC to three digits."""
LEAST_WANTED = 50
"""Below this many wanted candidates an honest feature can separate them by luck."""
SLICE, ITEMS = "slice", "items"
_SCHEMA = pl.Schema({SLICE: pl.String(), USER: pl.String(), ITEMS: pl.List(pl.String)})


def find_leakage(cut: Cut, rows: RankingRows, trained_until: np.ndarray) -> list[str]:
    """What lets the answer into the inputs, one sentence each; empty where nothing was found.

    Args:
        cut: the question and its answer.
        rows: candidates of the held-out part, labelled; features are not checked where fewer than
            `LEAST_WANTED` of them are wanted.
        trained_until: [Q] int64 microseconds, each user's last event that was trained on.
    """
    found = []
    try:
        check_time_leakage(cut.history, cut.target, cut.history, cut.moment)
    except LeakageError as error:
        found.append(str(error))
    judged = _enough_rows(rows)
    if judged is not None:
        try:
            check_feature_leakage(judged)
        except LeakageError as error:
            found.append(str(error))
    early = cut.target.timestamp < np.repeat(trained_until, cut.target.counts)
    if bool(early.any()):
        found.append(
            f"{int(early.sum())} held-out events of {np.unique(cut.target.rows[early]).size} users "
            "are from before the end of what the bundle was trained on"
        )
    return found


def calibration_of(
    bundle: Bundle, score: np.ndarray, rows: RankingRows, *, seed: int
) -> Interval | None:
    """How far a bundle's map from scores to rates is off; see `calibration_error`.

    Args:
        bundle: with or without such a map.
        score: [R] of both stages.
        rows: R candidates of the held-out part, labelled.
        seed: of the interval.

    Raises:
        ArtifactError: the map is damaged.
    """
    return calibration_error(
        read_map(bundle.file("ranking")),
        score,
        rows.label,
        rows.request_index,
        rng=np.random.default_rng(seed),
    )


def _enough_rows(rows: RankingRows) -> RankingRows | None:
    """Rows of requests with something wanted, not more than are needed; None where too few."""
    if int((rows.label > 0).sum()) < LEAST_WANTED:
        return None
    kept = rows.take(np.isin(rows.request_index, rows.request_index[rows.label > 0]))
    if kept.label.size <= MOST_ROWS:
        return kept
    return kept.take(kept.request_index < kept.request_index[MOST_ROWS])


class Measured(NamedTuple):
    """The whole funnel on the held-out part, and what it was asked.

    Attributes:
        evaluation: of ``lists``.
        lists: Q rows.
        truth: Q rows.
        history: Q rows, the training part.
        user_ids: Q.
        item_ids: N, of index 1, 2, ...
        leakage: see `find_leakage`.
        calibration: error of the ranker's scores as probabilities. None: not measured.
    """

    evaluation: Evaluation
    lists: TopK
    truth: Truth
    history: Histories
    user_ids: Sequence[str]
    item_ids: Sequence[str]
    leakage: Sequence[str]
    calibration: Interval | None = None


def write_evidence(bundle: Bundle, measured: Measured) -> None:
    """Write ``evidence`` into a bundle that was measured on its own data."""
    header = _header(measured, bundle.id, bundle.manifest)
    with bundle.adding(EVIDENCE) as path:
        path.mkdir()
        _table(measured).write_parquet(path / "users.parquet")
        write_header(path / "evidence.json", FORMAT, header)


def make_evidence(bundle: Bundle, measured: Measured, judged_as: Bundle) -> Evidence:
    """Evidence of a bundle that was measured on the data and the split of another one."""
    header = _header(measured, bundle.id, judged_as.manifest)
    return _evidence(header, _table(measured), bundle.manifest.metrics)


def _said(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that say something; a version that does not have another one yet says the same."""
    return {name: value for name, value in settings.items() if value is not None}


def _header(measured: Measured, bundle_id: str, judged_as: Manifest) -> dict[str, Any]:
    evaluation, k = measured.evaluation, measured.evaluation.headline_k
    shares = evaluation.exposure.recommended, evaluation.exposure.wanted
    return {
        "bundle": bundle_id,
        "data": judged_as.data_fingerprint,
        "split": json.dumps(_said(judged_as.config["split"]), sort_keys=True),
        "k": k,
        "coverage": evaluation.list_metrics.get(f"coverage@{k}"),
        "head_share": evaluation.list_metrics.get(f"head_share@{k}"),
        "exposure_gap": float(np.abs(np.subtract(*shares)).sum() / 2),
        "calibration": None if measured.calibration is None else measured.calibration._asdict(),
        "leakage": list(measured.leakage),
    }


def _table(measured: Measured) -> pl.DataFrame:
    """See the module; one row a user and slice."""
    lists, truth, history = measured.lists, measured.truth, measured.history
    popularity = np.bincount(history.item_index, minlength=len(measured.item_ids) + 1)
    slices = (
        *item_slices(popularity),
        *user_slices(history.counts, truth),
        *repeat_slices(truth, history),
    )
    outside = np.array(["", *measured.item_ids], dtype=object)
    frames = []
    for name, wanted in [("", truth), *((part.name, part.of(truth)) for part in slices)]:
        judged = judge(lists, wanted)
        shown = lists.item_index[judged.row, : measured.evaluation.headline_k]
        columns: dict[str, Any] = {
            SLICE: [name] * judged.row.size,
            USER: [measured.user_ids[row] for row in judged.row],
            ITEMS: [
                None if name else [str(outside[item]) for item in row if item > 0] for row in shown
            ],
        }
        for metric in measured.evaluation.metrics:
            parsed = parse_metric(metric)
            columns[metric] = lookup(USER_METRICS, parsed.name, "metric")(judged, parsed.k)
        frames.append(pl.DataFrame(columns, schema_overrides=_SCHEMA))
    return pl.concat(frames)


def read_evidence(bundle: Bundle) -> Evidence:
    """What `write_evidence` wrote.

    ``latency_p99_ms`` comes from the manifest's metrics, if there; so does ``calibration_error``
    where the evaluation did not measure it.

    Raises:
        ArtifactError: the bundle was not evaluated, or a file is damaged or of another format.
    """
    directory = bundle.path / EVIDENCE
    if not directory.is_dir():
        raise ArtifactError(
            f"bundle {bundle.id} has no {EVIDENCE}; measure it with `recsys evaluate` first"
        )
    try:
        header = read_header(directory / "evidence.json", FORMAT, remedy="evaluate again")
        table = pl.read_parquet(directory / "users.parquet")
        if header["bundle"] != bundle.id:
            raise ArtifactError(
                f"{directory} must be of bundle {bundle.id}, got {header['bundle']!r}; evaluate "
                "again"
            )
        return _evidence(header, table, bundle.manifest.metrics)
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{directory} is damaged ({error}); evaluate again") from error


def _evidence(
    header: Mapping[str, Any], table: pl.DataFrame, measured: Mapping[str, Any]
) -> Evidence:
    metrics = [name for name in table.columns if name not in (SLICE, USER, ITEMS)]
    everybody = table.filter(pl.col(SLICE) == "")
    calibration = header.get("calibration")
    return Evidence(
        name=header["bundle"],
        data=header["data"],
        split=header["split"],
        k=header["k"],
        users=_values(everybody, metrics),
        slices={
            str(name): _values(part, metrics)
            for (name,), part in table.group_by(SLICE, maintain_order=True)
            if name
        },
        lists=np.array(everybody[ITEMS].list.join("\x1f").to_list(), dtype=object),
        coverage=header["coverage"],
        head_share=header["head_share"],
        exposure_gap=header["exposure_gap"],
        calibration_error=(
            calibration["mean"] if calibration else measured.get("calibration_error")
        ),
        latency_p99_ms=measured.get("latency_p99_ms"),
        leakage=tuple(header["leakage"]),
    )


def _values(part: pl.DataFrame, metrics: Sequence[str]) -> UserValues:
    return UserValues(
        user_id=part[USER].to_numpy(), values={name: part[name].to_numpy() for name in metrics}
    )
