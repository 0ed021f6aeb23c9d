"""How much of a feature is there, and how well it alone tells the next event from other items."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from features.computation.computer import compute_features
from features.definitions.columns import Definition
from features.errors import DataError
from features.tables.entities import ItemTable, UserTable
from features.tables.interactions import Interactions
from features.tables.schema import ITEM, TIMESTAMP, USER

__all__ = ["FeatureSignal", "HeldOut", "hold_out", "measure"]


class HeldOut(NamedTuple):
    """Later events, each as a request of what was met and of items that were not.

    Attributes:
        requests: rows of request_id, user_id, item_id, moment, as `compute_features` takes them.
        met: [R] bool, the row is the event; one a request.
        since: time of the first event that could be drawn, UTC.
        users: different users.
    """

    requests: pl.DataFrame
    met: np.ndarray
    since: datetime
    users: int


class FeatureSignal(NamedTuple):
    """One feature on a held-out sample.

    Attributes:
        coverage: share of the rows with a value.
        constant: all values are one.
        auc: probability that the event has a higher value than another item of its request, ties
            half, as a mean over users; below 1/2: lower is better. None: the same for all
            candidates of a request, or missing.
        users: users behind ``auc``.
    """

    coverage: float
    constant: bool
    auc: float | None
    users: int


def hold_out(
    interactions: Interactions,
    items: ItemTable,
    *,
    events: int,
    negatives: int,
    rng: np.random.Generator,
    share: float = 0.2,
) -> HeldOut:
    """Draw from the newest events, each with items of the catalogue the user never met.

    Args:
        interactions: the log.
        items: the catalogue; negatives are drawn from it uniformly.
        events: how many events at most.
        negatives: items drawn a request; those the user met, at any time, are dropped.
        rng: decides the draws.
        share: of the log, newest first, that events are drawn from.

    Raises:
        DataError: nothing is left, or an argument is out of range.
    """
    for name, value in (("events", events), ("negatives", negatives)):
        if value < 1:
            raise DataError(f"{name} must be >= 1, got {value}")
    if not 0 < share < 1:
        raise DataError(f"share must be in 0..1, got {share}")
    frame = interactions.frame
    start = min(int(frame.height * (1 - share)), frame.height - 1)
    if frame.height < 2 or not len(items):
        raise DataError(
            f"interactions must have at least 2 events and the catalogue items, got {frame.height} "
            f"events and {len(items)} items"
        )
    since = frame[TIMESTAMP][start]
    later = frame.filter(pl.col(TIMESTAMP) >= since)
    rows = np.sort(rng.choice(later.height, min(events, later.height), replace=False))
    event = later[rows].select(USER, ITEM, pl.col(TIMESTAMP).alias("moment"))
    event = event.with_row_index("request_id").cast({"request_id": pl.Int64})
    drawn = rng.integers(0, len(items), event.height * negatives)
    others = event.drop(ITEM)[np.repeat(np.arange(event.height), negatives)].with_columns(
        items.frame[ITEM][drawn]
    )
    others = others.join(frame.select(USER, ITEM).unique(), on=[USER, ITEM], how="anti")
    both = pl.concat(
        [
            event.with_columns(pl.lit(True).alias("met")),
            others.select(event.columns).with_columns(pl.lit(False).alias("met")),
        ]
    ).sort("request_id", "met", descending=[False, True], maintain_order=True)
    return HeldOut(both.drop("met"), both["met"].to_numpy(), since, event[USER].n_unique())


def measure(
    definitions: Sequence[Definition],
    held_out: HeldOut,
    interactions: Interactions,
    items: ItemTable,
    users: UserTable | None = None,
) -> dict[str, FeatureSignal]:
    """Coverage and signal of each definition, every row as of its own moment.

    Raises:
        DataError: a definition reads what is not there.
    """
    requests = held_out.requests
    table = compute_features(definitions, requests, interactions, items, users)
    request = requests["request_id"].to_numpy()
    # the event is the first row of its request
    event_row = np.flatnonzero(held_out.met)[np.searchsorted(np.unique(request), request)]
    user = requests[USER].cast(pl.Categorical).to_physical().to_numpy()
    return {
        one.name: _signal(table[one.name].to_numpy(), event_row, held_out.met, user)
        for one in definitions
    }


def _signal(
    values: np.ndarray, event_row: np.ndarray, met: np.ndarray, user: np.ndarray
) -> FeatureSignal:
    known = np.isfinite(values)
    there = values[known]
    constant = there.size == 0 or bool((there == there[0]).all())
    pairs = ~met & known & known[event_row]
    mine, other = values[event_row[pairs]], values[pairs]
    coverage = float(known.mean())
    if constant or not pairs.any() or bool((mine == other).all()):
        return FeatureSignal(coverage, constant, None, 0)
    wins = (mine > other) + 0.5 * (mine == other)
    _, group = np.unique(user[pairs], return_inverse=True)
    per_user = np.bincount(group, wins) / np.bincount(group)
    return FeatureSignal(coverage, constant, float(per_user.mean()), len(per_user))
