"""Replaying a log: to fill running feature state, or to check it against the log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from features.computation.declarations import load_definitions
from features.definitions import Definition, Position, RetrievalRank, RetrievalScore
from features.errors import DataError
from features.online.features import NO_EVENTS, OnlineFeatures, UpdateReport
from features.online.parity import ParityReport, as_log, check_parity
from features.tables import CREATED, ITEM, TIMESTAMP, USER, Tables
from recsys.config import Config
from recsys.config.features import read_features_toml
from recsys.dataset.definitions import ranker_definitions
from recsys.progress import Progress
from serving.assembly import open_client
from serving.events.feature_state import RedisStateStore

__all__ = ["Filled", "declared_definitions", "fill_state", "replay_parity"]


class Filled(NamedTuple):
    """What `fill_state` did.

    Attributes:
        update: what became of the events.
        state: the name of the definitions' state.
        seconds: how long it took.
    """

    update: UpdateReport
    state: str
    seconds: float


def declared_definitions(
    path: Path | None, config: Config, tables: Tables
) -> tuple[tuple[Definition, ...], list[str]]:
    """The definitions whose values a log determines, and a line on those whose values it does not.

    Args:
        path: TOML with ``[[features]]``. None: those that the ranker is trained on.
        config: the run's configuration.
        tables: what the defaults are made for.

    Raises:
        DataError: a definition breaks its rules, or none is left.
        ConfigError: the file cannot be read.
    """
    if path is None:
        declared = ranker_definitions(config, tables.item_table)
    else:
        declared = load_definitions(read_features_toml(path).get("features", []))
    by_name = {definition.name: definition for definition in declared}
    kept: list[Definition] = []
    left_out: dict[str, list[str]] = {}
    for definition in declared:
        read = [by_name[name] for name in definition.made_of.values()] or [definition]
        reason = next(filter(None, map(_not_of_a_log, read)), "")
        if reason:
            left_out.setdefault(reason, []).append(definition.name)
        else:
            kept.append(definition)
    if not kept:
        raise DataError(
            f"{path or 'the configuration'}: at least one of the features must be computable "
            "from the log"
        )
    return tuple(kept), [
        f"left out, {reason}: {', '.join(names)}" for reason, names in left_out.items()
    ]


def _not_of_a_log(definition: Definition) -> str:
    if isinstance(definition, RetrievalScore | RetrievalRank):
        return "a retriever gives them with the request"
    if isinstance(definition, Position):
        return "they differ online by design"
    columns = definition.columns()
    if any(column.startswith("request.") for column in columns):
        return "they read the request"
    if any(column.startswith("vectors.") for column in columns):
        return "they read vectors, which a bundle brings"
    return ""


def replay_parity(
    events: pl.DataFrame,
    tables: Tables,
    definitions: tuple[Definition, ...],
    *,
    num_requests: int,
    candidates: int,
    seed: int,
) -> ParityReport:
    """`check_parity` at moments of the log.

    A request is a user of the log just before one of the user's events: the event's item and
    others drawn from the catalogue.

    Args:
        events: rows as for `OnlineFeatures.update`.
        tables: what describes items and users.
        definitions: what to compare.
        num_requests: how many moments, at most as many as there are events.
        candidates: items at each moment.
        seed: of moments and items.
    """
    rng = np.random.default_rng(seed)
    log = as_log(events).frame
    chosen = np.sort(rng.choice(log.height, size=min(num_requests, log.height), replace=False))
    ids = tables.item_table.frame[ITEM]
    drawn = rng.integers(len(ids), size=(chosen.size, candidates))
    item = ids.gather(drawn.ravel()).to_numpy().reshape(drawn.shape)
    item[:, 0] = log[ITEM].gather(chosen).to_numpy()
    requests = pl.DataFrame(
        {
            "request_id": np.repeat(np.arange(chosen.size), candidates),
            USER: log[USER].gather(np.repeat(chosen, candidates)),
            ITEM: pl.Series(item.ravel().tolist(), dtype=pl.String),
            "moment": log[TIMESTAMP].gather(np.repeat(chosen, candidates)),
        }
    )
    return check_parity(definitions, requests, events, tables.item_table, tables.user_table)


def fill_state(
    config: Config,
    events: pl.DataFrame,
    tables: Tables,
    definitions: tuple[Definition, ...],
    batch: int,
    *,
    progress: Progress,
) -> Filled:
    """Feed a log to the running state in the configured store.

    Args:
        config: names the store.
        events: rows as for `OnlineFeatures.update`.
        tables: what describes items and users.
        definitions: what to keep state for.
        batch: events of one transaction.
        progress: where to report to.

    Raises:
        StageUnavailable: the store does not answer.
        WriterReplaced: another process has begun to update the state.
    """
    store = RedisStateStore(open_client(config), config.store.namespace, writer=True)
    online = OnlineFeatures(
        definitions, tables.item_table, tables.user_table, store=store, remember_days=36_500
    )
    events = events.sort(CREATED if CREATED in events.columns else TIMESTAMP)
    total = NO_EVENTS
    began = time.perf_counter()
    for start in progress.track(range(0, events.height, batch), "replay events"):
        total = total.plus(online.update(events[start : start + batch]))
    seconds = time.perf_counter() - began
    return Filled(total, online.plan.digest, seconds)
