"""A simulated log in the form that a service writes: impressions and feedback as tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from features.moments import microseconds
from features.sources.publishing import IMPRESSION_SCHEMA
from features.tables import EVENT, ITEM, TIMESTAMP, USER, WEIGHT
from recsys.simulation.world.arms import SimulatedArm
from recsys.simulation.world.sessions import SessionLog

__all__ = ["feedback_table", "impression_table"]

_DAY_US = 86_400_000_000
_DELAY_US = 5_000_000
"""Between what was shown and a click on it."""


def impression_table(
    log: SessionLog,
    arm: SimulatedArm,
    item_ids: Sequence[str],
    *,
    start: datetime,
    generation: str = "simulated",
) -> pl.DataFrame:
    """One row a place: the columns of the service's impression log.

    A person is a user of that log, named ``<user row>-<person>``: several people share one taste.

    Args:
        log: of ``arm``.
        arm: whose log it is.
        item_ids: [N] ids of the items 1..N.
        start: the simulation's first moment.
        generation: to write into the log.
    """
    n, k = log.rank.shape
    ids = np.asarray(item_ids, dtype=object)
    item_index = np.take_along_axis(arm.item_index[log.user], log.rank, axis=1)
    score = np.take_along_axis(arm.score[log.user], log.rank, axis=1)
    moment = _moments(log, start)
    settings = arm.settings
    values: dict[str, Any] = {
        USER: np.repeat(_names(log), k),
        ITEM: ids[item_index.ravel() - 1],
        TIMESTAMP: np.repeat(moment, k),
        "request_id": np.repeat(_requests(n), k),
        "position": np.tile(np.arange(1, k + 1), n),
        "policy": np.full(n * k, settings.policy, dtype=object),
        "propensity": log.propensity.ravel(),
        "generation": np.full(n * k, generation, dtype=object),
        "arms": np.full(n * k, f"simulation={arm.name}", dtype=object),
        "stage": np.full(n * k, "simulation", dtype=object),
        "source": np.full(n * k, arm.name, dtype=object),
        "score": score.ravel(),
        "degraded": np.zeros(n * k, dtype=bool),
    }
    further = {"arms": pl.String(), "stage": pl.String(), "source": pl.String(),
               "score": pl.Float32(), "degraded": pl.Boolean()}  # fmt: skip
    schema = {**IMPRESSION_SCHEMA, **further}
    return pl.DataFrame([pl.Series(name, values[name]).cast(kind) for name, kind in schema.items()])


def feedback_table(
    log: SessionLog, arm: SimulatedArm, item_ids: Sequence[str], *, start: datetime
) -> pl.DataFrame:
    """One row an event, a click and where it converted a "conversion" behind it.

    Arguments as of `impression_table`; the columns are those of the service's feedback log, and
    every event names its request.
    """
    ids = np.asarray(item_ids, dtype=object)
    names, requests, moment = _names(log), _requests(len(log)), _moments(log, start)
    parts = []
    for number, (event, happened) in enumerate(
        (("click", log.click), ("conversion", log.conversion))
    ):
        row, place = np.nonzero(happened)
        item_index = arm.item_index[log.user[row], log.rank[row, place]]
        parts.append(
            pl.DataFrame(
                {
                    USER: pl.Series(names[row], dtype=pl.String),
                    ITEM: pl.Series(ids[item_index - 1], dtype=pl.String),
                    TIMESTAMP: pl.Series(moment[row] + (number + 1) * _DELAY_US).cast(
                        pl.Datetime("us")
                    ),
                    EVENT: pl.Series([event] * row.size, dtype=pl.String),
                    WEIGHT: np.ones(row.size),
                    "event_id": pl.Series(
                        [f"{event}-{r}-{p}" for r, p in zip(row, place, strict=True)],
                        dtype=pl.String,
                    ),
                    "request_id": pl.Series(requests[row], dtype=pl.String),
                }
            )
        )
    return pl.concat(parts)


def _names(log: SessionLog) -> np.ndarray:
    pairs = zip(log.user.tolist(), log.person.tolist(), strict=True)
    return np.asarray([f"{user}-{person}" for user, person in pairs], dtype=object)


def _requests(n: int) -> np.ndarray:
    return np.asarray([f"simulated-{number}" for number in range(n)], dtype=object)


def _moments(log: SessionLog, start: datetime) -> np.ndarray:
    moment: np.ndarray = microseconds(start) + np.round(log.day * _DAY_US).astype(np.int64)
    return moment
