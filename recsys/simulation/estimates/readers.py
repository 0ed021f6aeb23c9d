"""Logs of other shapes as `LoggedFeedback`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from features import ITEM, TIMESTAMP, USER, DataError
from recsys.simulation.estimates.logged_feedback import LoggedFeedback

__all__ = ["FeedbackTable", "from_impressions", "read_feedback_parquet", "read_open_bandit"]

IMPRESSION_NAMES: Mapping[str, str] = {
    "action": ITEM,
    "reward": "reward",
    "propensity": "propensity",
    "position": "position",
    "unit": USER,
    "time": TIMESTAMP,
}
OPEN_BANDIT_NAMES: Mapping[str, str] = {
    "action": "item_id",
    "reward": "click",
    "propensity": "propensity_score",
    "position": "position",
    "time": "timestamp",
}


class FeedbackTable(NamedTuple):
    """Rounds, and what the numbers in them stand for.

    Attributes:
        log: the rounds.
        item_ids: K ids; action a is ``item_ids[a]``.
        frame: n rows with all columns of the source, such as ``policy``, ``generation`` and
            ``arms``, in the order of the rounds.
    """

    log: LoggedFeedback
    item_ids: tuple[str, ...]
    frame: pl.DataFrame


def from_impressions(
    frame: pl.DataFrame,
    *,
    item_ids: Sequence[str] | None = None,
    context: Sequence[str] = (),
    max_position: int = 1,
) -> FeedbackTable:
    """Rounds of the impression log, joined with what followed.

    ``serving.impressions.join_feedback`` joins them.

    The propensity of a place is ``P(item | items above it)``: only that of the first place is one
    of the item alone. With more places, the target's probability must be conditional in the same
    way, and rounds of one slate depend on each other: the unit is the user, or the request where
    there is no user.

    Args:
        frame: columns request_id, user_id, item_id, timestamp, position, propensity and reward;
            others are kept in the table.
        item_ids: what could have been shown, in any order. None: the items that were.
        context: columns of numbers that describe a round.
        max_position: places of a slate that are rounds, >= 1.

    Raises:
        DataError: a column is missing, holds nulls or is no number, or an item is not in
            ``item_ids``.
        ValueError: ``max_position`` is below 1.
    """
    if max_position < 1:
        raise ValueError(f"max_position must be >= 1, got {max_position}")
    _has(frame, [*IMPRESSION_NAMES.values(), "request_id"])
    frame = frame.filter(pl.col("position") <= max_position)
    unit = pl.when(pl.col(USER).is_null()).then("r:" + pl.col("request_id")).otherwise(
        "u:" + pl.col(USER)
    )  # fmt: skip
    named = frame.with_columns(unit.alias("_unit"))
    table = _table(named, {**IMPRESSION_NAMES, "unit": "_unit"}, context, item_ids)
    return table._replace(frame=frame)


def read_open_bandit(
    directory: Path | str, *, campaign: str = "all", policy: str = "random"
) -> FeedbackTable:
    """One log of the Open Bandit Dataset: ``{campaign}_{policy}.parquet`` with its columns.

    Items are numbers 0..K - 1 there, clicks the rewards. The context is the four user features,
    each as the rank of its hash. Users have no id, so every round is its own unit.

    Args:
        directory: of the files.
        campaign: ``all``, ``men`` or ``women``.
        policy: ``random`` or ``bts``, the logger.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a column is missing or wrong.

    Source: Saito, Aihara, Matsutani and Narita, Open Bandit Dataset and Pipeline, NeurIPS 2021.
    """
    frame = pl.read_parquet(Path(directory) / f"{campaign}_{policy}.parquet")
    items = pl.read_parquet(Path(directory) / f"{campaign}_{policy}_item_context.parquet")
    ids = [str(item) for item in sorted(items["item_id"].to_list())]
    users = sorted(name for name in frame.columns if name.startswith("user_feature_"))
    ranked = frame.with_columns(pl.col(users).rank("dense"))
    return _table(ranked, OPEN_BANDIT_NAMES, users, ids)._replace(frame=frame)


def read_feedback_parquet(
    path: Path | str,
    *,
    columns: Mapping[str, str],
    context: Sequence[str] = (),
    item_ids: Sequence[str] | None = None,
) -> FeedbackTable:
    """Any table of rounds.

    Args:
        path: a Parquet file, or a pattern of files.
        columns: names by role: action, reward and propensity, and of position, unit and time what
            there is.
        context: columns of numbers that describe a round.
        item_ids: what could have been done, in any order. None: what was.

    Raises:
        DataError: a role is unknown or missing, a column is missing, holds nulls or is no number,
            or an action is not in ``item_ids``.
    """
    unknown = sorted(set(columns) - set(IMPRESSION_NAMES))
    missing = sorted({"action", "reward", "propensity"} - set(columns))
    if unknown or missing:
        raise DataError(
            f"columns must name action, reward, propensity and may name position, unit, time: "
            f"unknown {unknown}, missing {missing}"
        )
    return _table(pl.read_parquet(path), columns, context, item_ids)


def _table(
    frame: pl.DataFrame,
    columns: Mapping[str, str],
    context: Sequence[str],
    item_ids: Sequence[str] | None,
) -> FeedbackTable:
    _has(frame, [*columns.values(), *context])
    for role, name in columns.items():
        empty = frame[name].is_null()
        if empty.any():
            rows = empty.arg_true()
            raise DataError(
                f"{name} ({role}) must not be null: {len(rows)} of {len(frame)} rows are, first "
                f"rows {rows[:5].to_list()}; drop them"
            )
    shown = frame[columns["action"]].cast(pl.String)
    ids = sorted(shown.unique().to_list()) if item_ids is None else list(item_ids)
    if len(set(ids)) != len(ids):
        raise DataError(f"item_ids must be distinct, got {len(ids)} with {len(set(ids))} different")
    number = pl.DataFrame(
        {"_id": ids, "_n": np.arange(len(ids))}, schema={"_id": pl.String, "_n": pl.Int64}
    )
    action = (
        pl.DataFrame({"_id": shown}).join(number, on="_id", how="left", maintain_order="left")["_n"]
    )  # fmt: skip
    if action.null_count():
        strange = shown.filter(action.is_null()).unique().sort()[:3].to_list()
        raise DataError(
            f"every action must be in item_ids: {action.null_count()} rows are not, such as "
            f"{strange}; give the ids of the whole catalogue"
        )

    def column(role: str, dtype: type[pl.DataType]) -> np.ndarray | None:
        if role not in columns:
            return None
        values = frame[columns[role]]
        if role == "time" and values.dtype.is_temporal():
            return values.cast(pl.Datetime("us")).dt.timestamp("us").to_numpy() / 1e6
        if role == "unit":
            values = values.rank("dense") - 1
        return _numbers(values, dtype)

    reward, propensity = column("reward", pl.Float64), column("propensity", pl.Float64)
    if reward is None or propensity is None:
        raise DataError("columns must name reward and propensity")
    log = LoggedFeedback(
        action.to_numpy().astype(np.int64),
        reward,
        propensity,
        max(1, len(ids)),
        position=column("position", pl.Int64),
        unit=column("unit", pl.Int64),
        context=np.stack([_numbers(frame[name], pl.Float32) for name in context], axis=1)
        if context
        else None,
        time=column("time", pl.Float64),
    )
    return FeedbackTable(log, tuple(ids), frame)


def _numbers(values: pl.Series, dtype: type[pl.DataType]) -> np.ndarray:
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        raise DataError(f"{values.name} must hold numbers, got {values.dtype}")
    found: np.ndarray = values.cast(dtype).to_numpy().copy()
    return found


def _has(frame: pl.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise DataError(f"the log must have the columns {missing}, got {frame.columns}")
