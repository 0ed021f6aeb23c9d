"""Definitions to running state: updated event by event, read at any moment from then on.

The state is what `features.online.plan` found that the definitions ask for. Values come from the
code that computes them offline (`features.computation.kinds`); only where it looks for the past is
different. Replaying a log through `OnlineFeatures` gives what `features.compute_features` gives for
it, which `features.online.parity` checks.

    {plan}:g                      everybody's events
    {plan}:i:<item>               an item's
    {plan}:a:<column>:<value>     those of items that share a value of an attribute
    {plan}:u:<user>               a user's: alone, with each item, with each value; the newest ones

Events come in order of arrival; they may have happened earlier. One process at a time writes.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from features.computation.attributes import AttributeValues
from features.computation.computer import FeatureComputer
from features.computation.feature_tables import Vectors
from features.computation.gaps import DAY_US
from features.computation.requests import checked_requests, item_requests
from features.definitions.columns import Definition
from features.errors import DataError
from features.online.arrivals import Arrival, arrivals
from features.online.cells import Cell, Happening, Tape
from features.online.computation import StateComputation
from features.online.keys import CLOCK, SEEN, StateKeys
from features.online.plan import pair_of, plan_state
from features.online.store import Field, MemoryStateStore, StateStore
from features.packing.schema import PackedField, PackedSchema
from features.tables.entities import ItemTable, UserTable
from features.tables.hashing import drawn_place
from features.tables.schema import ITEM

__all__ = ["OnlineFeatures", "UpdateReport"]

_DAY_US = 86_400_000_000
_SEEN = struct.Struct("<Qq")


class UpdateReport(NamedTuple):
    """What became of a batch of events.

    Attributes:
        applied: events that entered the state.
        duplicates: events that were known already.
        late: applied events that had happened before they arrived.
        reordered: applied events whose time of arrival lay before one already applied; they count
            as arrived with it.
    """

    applied: int
    duplicates: int
    late: int
    reordered: int

    def plus(self, other: UpdateReport) -> UpdateReport:
        """What became of both batches."""
        return UpdateReport(*map(operator.add, self, other))


NO_EVENTS = UpdateReport(0, 0, 0, 0)


class OnlineFeatures:
    """Running state of a set of definitions.

    Args:
        definitions: what to compute.
        items: the catalogue; an event counts for the attributes that its item has here.
        users: the user table, if a definition reads it.
        vectors: item vectors by name, if a definition reads them.
        store: where the state lives. None: in this process.
        remember_days: an event that comes again within so many days is counted once.
        cached: how many cells stay unpacked between two updates, at most.

    Attributes:
        plan: what is kept.

    Raises:
        DataError: as `FeatureComputer`, or an argument that is not positive.
    """

    def __init__(
        self,
        definitions: Sequence[Definition],
        items: ItemTable,
        users: UserTable | None = None,
        vectors: Vectors | None = None,
        store: StateStore | None = None,
        *,
        remember_days: float = 7.0,
        cached: int = 100_000,
    ) -> None:
        for name, value in (("remember_days", remember_days), ("cached", cached)):
            if not value > 0:
                raise DataError(f"{name} must be > 0, got {value}")
        self._computer = FeatureComputer(definitions, items, users, vectors)
        self._tables = self._computer.tables
        self._store = MemoryStateStore() if store is None else store
        self.plan = plan_state(self._computer.definitions, self._tables)
        self._keys = StateKeys(self.plan)
        self._cached = cached
        self._open: dict[Field, Any] = {}
        self._make: dict[str, Callable[[bytes | None], Any]] = {
            SEEN: partial(_Seen, round(remember_days * _DAY_US)),
            **{name: partial(Cell, cell) for name, cell in self._keys.cells.items()},
            **{name: partial(Tape, size) for name, size in self._keys.tapes.items()},
        }
        self._values_of: dict[str, dict[str, list[str]]] = {}
        columns = {cell.group.column for cell in self.plan.cells} - {None}
        columns |= {of for cell in self.plan.cells for of, _ in cell.distinct}
        for column in columns - {"user", "item", "basket"}:
            self._values_of[str(column)] = _values_by_item(self._tables.item_frame, str(column))

    @property
    def definitions(self) -> tuple[Definition, ...]:
        """What is computed."""
        return self._computer.definitions

    def update(
        self, events: pl.DataFrame | Sequence[Arrival], arrived: datetime | None = None
    ) -> UpdateReport:
        """Take in events.

        Args:
            events: user_id, item_id, timestamp and, if known, event, weight, created (the time of
                arrival) and event_id. An event without an id is known by its user, item, time and
                kind. Or events from `features.arrival`, in order of arrival.
            arrived: UTC, when events without a time of arrival arrived. None: when they happened.

        Raises:
            DataError: a column is missing, of a wrong type, or null where it must not be; then no
                event entered the state.
        """
        stream = arrivals(events, arrived) if isinstance(events, pl.DataFrame) else events
        if not stream:
            return NO_EVENTS
        places = [self._places(event) for event in stream]
        wanted = {field for each in places for field in each.fields}
        newest = self._load(wanted)
        try:
            report, touched, newest = self._apply(stream, places, newest)
            packed = {field: self._open[field].pack() for field in touched}
            self._store.write({**packed, self._keys.clock: CLOCK.pack(newest)})
        except BaseException:
            self._open.clear()  # the store still has the state from before
            raise
        while len(self._open) > self._cached:
            del self._open[next(iter(self._open))]
        return report

    def compute(self, requests: pl.DataFrame) -> pl.DataFrame:
        """Features of request rows; see `features.compute_features`.

        Args:
            requests: as there; no moment before the newest arrival.

        Raises:
            DataError: as there, or a moment that lies before the newest arrival.
        """
        requests = checked_requests(requests, self.definitions)
        return self._computer.evaluate(requests, self._look(requests), {})

    def request_features(
        self,
        user_id: str,
        item_ids: Sequence[str],
        moment: datetime,
        item_values: pl.DataFrame | Mapping[str, np.ndarray] | None = None,
        retrieval: Mapping[str, np.ndarray] | None = None,
    ) -> pl.DataFrame:
        """Features of one live request.

        Args:
            user_id: who asks; may be unknown.
            item_ids: C candidates.
            moment: UTC, no zone.
            item_values: see `features.request_features`. None: from the state, which takes a read
                of every candidate.
            retrieval: see `features.request_features`.

        Returns:
            C rows in the order of ``item_ids``.

        Raises:
            DataError: as `compute`.
        """
        requests = self._computer.live_requests(user_id, item_ids, moment, retrieval)
        given = self._computer.live_values(item_ids, item_values)
        return self._computer.evaluate(requests, self._look(requests), given)

    def item_features(
        self, moment: datetime, item_ids: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """What depends on the item alone, to be published; see `features.item_features`.

        Args:
            moment: UTC, no zone.
            item_ids: which items. None: the catalogue.
        """
        ids = self._tables.item_frame[ITEM] if item_ids is None else pl.Series(ITEM, item_ids)
        published = self._computer.published
        requests = item_requests(ids.cast(pl.String), moment)
        result = self._computer.evaluate(requests, self._look(requests), {}, published)
        return result.select(ITEM, *(definition.name for definition in published))

    def packed_items(
        self, moment: datetime, item_ids: Sequence[str] | None = None
    ) -> tuple[PackedSchema, dict[str, bytes]]:
        """`item_features` as packed rows that know their time, to be published or cached.

        `PackedSchema.unpack` gives a `FeatureBlock` with presence and age.
        """
        frame = self.item_features(moment, item_ids)
        names = frame.columns[1:]
        schema = PackedSchema(tuple(PackedField(name) for name in names), event_time=True)
        when = np.full(frame.height, moment, dtype="datetime64[us]")
        rows = schema.pack({name: frame[name].to_numpy() for name in names}, event_time=when)
        return schema, dict(zip(frame[ITEM], rows, strict=True))

    def _look(self, requests: pl.DataFrame) -> StateComputation:
        return StateComputation(requests, self._tables, self._store, self.plan)

    def _places(self, event: Arrival) -> _Places:
        keys, user, item = self._keys, event.user, event.item
        every = (None,) if event.weight > 0 else ()  # a dislike counts where its kind is named
        kinds = (*every, event.kind) if event.weight else ()
        cells: list[tuple[Field, list[list[str]]]] = []
        again: list[tuple[Field, Field]] = []
        for group, _, _, distinct in self.plan.cells:
            if group.event not in kinds:
                continue
            values = [self._values(of, event) for of, _ in distinct]
            own = ("",) if group.column is None else self._values(group.column, event)
            fields = [keys.cell(group, user, item, value) for value in own]
            if group.again:
                pair = keys.cell(pair_of(group), user, item, "")
                again += [(pair, field) for field in fields]
            else:
                cells += [(field, values) for field in fields]
        for kind, _ in self.plan.pasts:
            if kind in kinds:
                cells.append((keys.tape(user, kind), []))
        return _Places(keys.seen(user), cells, again)

    def _values(self, of: str, event: Arrival) -> list[str]:
        if of == "user":
            return [event.user]
        if of == "item":
            return [event.item]
        if of == "basket":
            return [f"{event.user} {min(event.happened, event.arrived)}"]
        return self._values_of[of].get(event.item, [])

    def _load(self, wanted: set[Field]) -> int:
        """Unpack what is not at hand; the newest arrival."""
        missing = [field for field in wanted if field not in self._open]
        *packed, clock = self._store.read([*missing, self._keys.clock])
        for field, value in zip(missing, packed, strict=True):
            self._open[field] = self._make[self._keys.name_of(field)](value)
        return -(2**63) if clock is None else int(CLOCK.unpack(clock)[0])

    def _apply(
        self, stream: Sequence[Arrival], places: Sequence[_Places], newest: int
    ) -> tuple[UpdateReport, set[Field], int]:
        """Count the events; what changed, and the newest arrival."""
        applied = late = reordered = 0
        touched: set[Field] = set()
        for event, places_of_event in zip(stream, places, strict=True):
            arrived = max(event.arrived, newest)
            if not self._open[places_of_event.seen].note(event.identity, arrived):
                continue
            newest = arrived
            applied += 1
            late += event.happened < arrived
            reordered += event.arrived < arrived
            happened = min(event.happened, arrived)
            drawn = drawn_place(event.user, event.item, happened)
            happening = Happening(
                happened, arrived, event.item, event.kind, abs(event.weight), drawn
            )
            for pair, field in places_of_event.again:
                first, last = (self._open[pair].time(name, arrived) for name in ("first", "last"))
                if first == first:  # it is known when they met
                    days = (max(0, happened - last) + max(0, first - happened)) / DAY_US
                    self._open[field].add(happening._replace(weight=days), [])
            for field, values in places_of_event.cells:
                self._open[field].add(happening, values)
            touched.update(places_of_event.fields)
        report = UpdateReport(applied, len(stream) - applied, late, reordered)
        return report, touched, newest


class _Places(NamedTuple):
    """Where an event counts.

    Attributes:
        seen: where its user's known events are.
        cells: cells and tapes, each with the values for its unique counts.
        again: cells that count it if its user had met its item, each after the cell that knows.
    """

    seen: Field
    cells: list[tuple[Field, list[list[str]]]]
    again: list[tuple[Field, Field]]

    @property
    def fields(self) -> list[Field]:
        """All of it."""
        cells = (field for field, _ in self.cells)
        return [self.seen, *cells, *(field for _, field in self.again)]


class _Seen:
    """The events of a user that may come again.

    Args:
        remember_us: how long an event is remembered, in microseconds.
        packed: what `pack` gave. None: no event yet.
    """

    def __init__(self, remember_us: int, packed: bytes | None = None) -> None:
        self._remember_us = remember_us
        self._arrived = dict(_SEEN.iter_unpack(packed or b""))

    def note(self, identity: int, arrived: int) -> bool:
        """Remember an event; False if it is known already."""
        oldest = arrived - self._remember_us
        known = self._arrived.get(identity)
        if known is not None and known >= oldest:
            return False
        self._arrived.pop(identity, None)
        self._arrived[identity] = arrived
        while next(iter(self._arrived.values())) < oldest:  # arrivals rise, the oldest is first
            del self._arrived[next(iter(self._arrived))]
        return True

    def pack(self) -> bytes:
        """The events as bytes."""
        return b"".join(_SEEN.pack(*entry) for entry in self._arrived.items())


def _values_by_item(frame: pl.DataFrame, column: str) -> dict[str, list[str]]:
    """The values of an item column by item id, as `AttributeValues` sees them."""
    values = AttributeValues(frame[column])
    position, value = values.pairs(np.arange(1, frame.height + 1))
    found: dict[str, list[str]] = {item: [] for item in frame[ITEM]}
    ids = frame[ITEM].to_list()
    for place, number in zip(position.tolist(), value.tolist(), strict=True):
        found[ids[place]].append(values.names[number - 1])
    return found
