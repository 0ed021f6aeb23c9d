"""Is a feature the same online and offline? Replay a log and compare every value."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from features.computation.computer import FeatureComputer
from features.computation.feature_tables import Vectors
from features.computation.requests import checked_requests
from features.definitions.columns import (
    Category,
    DayOfWeek,
    Definition,
    ListContains,
    ListSize,
)
from features.definitions.events import Count, UniqueCount
from features.definitions.history import Session
from features.errors import DataError
from features.online.arrivals import arrivals
from features.online.features import NO_EVENTS, OnlineFeatures, UpdateReport
from features.online.store import StateStore
from features.tables.entities import ItemTable, UserTable
from features.tables.interactions import Interactions
from features.tables.rules import EventRules
from features.tables.schema import CREATED, EVENT, EVENT_ID, ITEM, TIMESTAMP, USER, WEIGHT

__all__ = ["Divergence", "ParityReport", "as_log", "check_parity"]

_RELATIVE, _ABSOLUTE = 1e-5, 1e-6
_SHOWN = 20


class Divergence(NamedTuple):
    """A value that is not the same online and offline.

    Attributes:
        definition: whose value.
        user: user id of the row.
        item: item id of the row.
        moment: UTC.
        offline: the value computed from the log.
        online: the value read from the state.
        events: the newest events of the user or the item that had arrived before the moment, as
            the log holds them.
    """

    definition: Definition
    user: str
    item: str
    moment: datetime
    offline: float
    online: float
    events: pl.DataFrame

    def __str__(self) -> str:
        with pl.Config(tbl_rows=_SHOWN, tbl_hide_dataframe_shape=True):
            return (
                f"{self.definition.name} of user {self.user!r}, item {self.item!r} at "
                f"{self.moment}: offline {self.offline!r}, online {self.online!r}\n"
                f"{self.definition}\n{self.events}"
            )


class ParityReport(NamedTuple):
    """What a replay found.

    Attributes:
        rows: request rows compared.
        values: values compared.
        differing: how many of them differ, by definition; only those that differ somewhere.
        first: the first divergence in time, or None.
        update: what became of the events.
    """

    rows: int
    values: int
    differing: dict[str, int]
    first: Divergence | None
    update: UpdateReport

    @property
    def equal(self) -> bool:
        """Nothing differs."""
        return self.first is None


def check_parity(
    definitions: Sequence[Definition],
    requests: pl.DataFrame,
    events: pl.DataFrame,
    items: ItemTable,
    users: UserTable | None = None,
    vectors: Vectors | None = None,
    store: StateStore | None = None,
) -> ParityReport:
    """Replay events into running state, and at every request compare it with the log.

    Before a request, the events that arrived strictly before its moment enter the state. Counts
    and codes must be equal, other values to 1e-5 of their size (1e-6 at least): sums of weights
    are added up in another order.

    Args:
        definitions: what to compare.
        requests: rows as for `features.compute_features`; those of one request at one moment.
        events: rows as for `OnlineFeatures.update`; duplicates and late events are welcome.
        items: the catalogue.
        users: the user table, if a definition reads it.
        vectors: item vectors by name, if a definition reads them.
        store: an empty state. None: in this process.

    Raises:
        DataError: as `features.compute_features` and `OnlineFeatures.update`, or the rows of a
            request have several moments.
    """
    computer = FeatureComputer(definitions, items, users, vectors)
    requests = checked_requests(requests, computer.definitions)
    moments_of_request = requests.group_by("request_id").agg(pl.col("moment").n_unique())
    mixed = moments_of_request.filter(pl.col("moment") > 1)["request_id"]
    if len(mixed):
        raise DataError(
            f"requests: all rows of a request must have one moment; {len(mixed)} requests have "
            f"more, first: {mixed.min()!s}; give each moment its own request_id"
        )
    log = as_log(events)
    offline = computer.compute(requests, log)
    forever = 36_500.0
    online = OnlineFeatures(definitions, items, users, vectors, store, remember_days=forever)
    names = [definition.name for definition in computer.definitions]
    replayed, update = _replay(online, requests, events)
    differing: dict[str, int] = {}
    first: Divergence | None = None
    moments = requests["moment"]
    for definition in computer.definitions:
        left, right = offline[definition.name].to_numpy(), replayed[definition.name].to_numpy()
        wrong = np.flatnonzero(~_same(left, right, exact=_is_exact(definition)))
        if wrong.size == 0:
            continue
        differing[definition.name] = int(wrong.size)
        row = int(wrong[np.argmin(moments.gather(wrong).to_physical().to_numpy())])
        if first is None or moments[row] < first.moment:
            user, item = requests[USER][row], requests[ITEM][row]
            behind = log.before(moments[row]).frame.filter(
                (pl.col(USER) == user) | (pl.col(ITEM) == item)
            )
            first = Divergence(
                definition,
                user,
                item,
                moments[row],
                float(left[row]),
                float(right[row]),
                behind.tail(_SHOWN),
            )
    return ParityReport(requests.height, requests.height * len(names), differing, first, update)


def _is_exact(definition: Definition) -> bool:
    """Whether values must be equal to the last bit."""
    if isinstance(definition, Count):
        return not definition.weighted
    if isinstance(definition, Session):
        return definition.what in ("events", "items")
    return isinstance(definition, UniqueCount | Category | ListSize | ListContains | DayOfWeek)


def _same(left: np.ndarray, right: np.ndarray, *, exact: bool) -> np.ndarray:
    if exact:
        return np.asarray((left == right) | (np.isnan(left) & np.isnan(right)))
    near = np.isclose(left, right, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
    return np.asarray(near)


def as_log(events: pl.DataFrame) -> Interactions:
    """Rows as for `OnlineFeatures.update` as a log; those of weight below 0 are dislikes."""
    names = [name for name in (EVENT, WEIGHT, CREATED, EVENT_ID) if name in events.columns]
    rules = EventRules()
    if EVENT in names and WEIGHT in names and bool((events[WEIGHT] < 0).any()):
        disliked = set(events.filter(pl.col(WEIGHT) < 0)[EVENT])
        kinds = {kind: -1.0 if kind in disliked else 1.0 for kind in events[EVENT].unique().sort()}
        rules = EventRules(kinds=kinds, negative="< 0")
    return Interactions.from_frame(
        events.select(USER, ITEM, TIMESTAMP, *names), source="events", rules=rules
    )


def _replay(
    online: OnlineFeatures, requests: pl.DataFrame, events: pl.DataFrame
) -> tuple[pl.DataFrame, UpdateReport]:
    """The requests' columns as the state gave them, and what became of all events."""
    stream = arrivals(events)
    arrived = np.array([event.arrived for event in stream], dtype=np.int64)
    order = requests["moment"].arg_sort()
    requests = requests.with_row_index("__row")[order]
    moment = requests["moment"].to_physical().to_numpy()
    starts = np.flatnonzero(np.diff(moment, prepend=-1)) if moment.size else moment
    parts, done, total = [], 0, NO_EVENTS
    for start, end in zip(starts, [*starts[1:], moment.size], strict=True):
        until = int(np.searchsorted(arrived, moment[start], side="left"))
        total = total.plus(online.update(stream[done:until]))
        done = until
        parts.append(online.compute(requests[start:end]))
    replayed = pl.concat(parts).sort("__row").drop("__row") if parts else requests.drop("__row")
    return replayed, total
