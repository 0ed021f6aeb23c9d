"""What happened before each request row, read from running state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from features.computation.base import Computation
from features.computation.feature_tables import FeatureTables
from features.computation.grouped import Statistic
from features.computation.pasts import Past
from features.computation.questions import Asked, Group
from features.errors import DataError
from features.moments import EPOCH
from features.online.cells import Cell, Tape
from features.online.keys import CLOCK, StateKeys
from features.online.plan import StatePlan
from features.online.store import StateStore
from features.tables.schema import ITEM, USER
from features.tables.vocabulary import Vocabulary, covering

__all__ = ["StateComputation"]


class _Found(NamedTuple):
    """The groups among Q questions that have had an event.

    Attributes:
        place: [F] int64 position of each among the questions.
        cells: F cells.
        moments: F moments in microseconds.
    """

    place: np.ndarray
    cells: list[Cell]
    moments: list[int]


class StateComputation(Computation):
    """A `Computation` that reads running state.

    One call of the store fetches the users, and at most one the items and one each attribute's
    values, if a definition asks for them.

    Args:
        requests: as `Computation`; no moment before the newest event in the state.
        tables: as `Computation`.
        store: the state.
        plan: what it holds.

    Raises:
        DataError: a moment lies before the newest event in the state.
    """

    def __init__(
        self, requests: pl.DataFrame, tables: FeatureTables, store: StateStore, plan: StatePlan
    ) -> None:
        self._store = store
        self._keys = StateKeys(plan)
        self._plans = {cell.group: cell for cell in plan.cells}
        self._fields: dict[str, dict[str, bytes]] = {}
        self._found: dict[Group, _Found] = {}
        users = requests[USER].unique(maintain_order=True)
        clock, arrived = self._keys.clock
        self._fetch([clock, self._keys.everybody(), *map(self._keys.user, users)])
        self._check_moments(requests["moment"], self._fields[clock].get(arrived))
        self._tapes: dict[tuple[str, str | None], Tape] = {}
        for user in users:
            for event, size in plan.pasts:
                key, field = self._keys.tape(user, event)
                self._tapes[user, event] = Tape(size, self._fields[key].get(field))
        met = {entry[2] for tape in self._tapes.values() for entry in tape.events}
        item_ids, item, _ = covering(
            tables.item_ids, requests[ITEM], pl.Series(ITEM, sorted(met), dtype=pl.String)
        )
        user_ids = Vocabulary.from_ids(users)
        super().__init__(
            tables,
            requests,
            item_ids=item_ids,
            user_ids=user_ids.to_series(),
            item=item,
            user=user_ids.index(requests[USER]),
            moment=requests["moment"].to_physical().to_numpy().astype(np.int64),
        )
        rows = self.rows
        self._user_text = dict(zip(rows.user.tolist(), requests[USER].to_list(), strict=True))
        self._item_text = dict(zip(rows.item.tolist(), requests[ITEM].to_list(), strict=True))

    @staticmethod
    def _check_moments(moments: pl.Series, clock: bytes | None) -> None:
        """Refuse questions about a past that the state has gone on from."""
        earliest = moments.to_physical().min()
        if clock is None or earliest is None:
            return
        (newest,) = CLOCK.unpack(clock)
        if earliest < newest:
            raise DataError(
                "moment must not be before the newest event in the state, which arrived at "
                f"{EPOCH + timedelta(microseconds=newest)}, got {moments.min()!s}; the state knows "
                "no past, compute_features does"
            )

    def _values(
        self, group: Group, asked: Asked, statistic: Statistic, window_us: int | None
    ) -> np.ndarray:
        found = self._cells(group, asked)
        pairs = zip(found.cells, found.moments, strict=True)
        if statistic[0] in ("first", "last"):
            values = np.full(asked.user.size, np.nan)
            values[found.place] = [cell.time(statistic[0], moment) for cell, moment in pairs]
        else:
            values = np.zeros(asked.user.size)
            values[found.place] = [cell.sum(statistic, moment, window_us) for cell, moment in pairs]
        return values

    def _distinct_counts(
        self, group: Group, asked: Asked, of: str, window_us: int | None
    ) -> np.ndarray:
        found = self._cells(group, asked)
        pairs = zip(found.cells, found.moments, strict=True)
        values = np.zeros(asked.user.size)
        values[found.place] = [cell.distinct(of, moment, window_us) for cell, moment in pairs]
        return values

    def _newest(self, event: str | None, last: int) -> Past:
        level = self.level("user")
        shape = (level.user.size, last)
        past = Past(
            np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64), np.zeros(shape)
        )
        for row, user in enumerate(level.user.tolist()):
            events = self._tapes[self._user_text[user], event].events[-last:]
            if events:
                happened, _, item, _, weight = zip(*events, strict=True)
                past.item[row, -len(events) :] = self.item_ids.index(list(item))
                past.happened[row, -len(events) :] = happened
                past.weight[row, -len(events) :] = weight
        return past

    def _cells(self, group: Group, asked: Asked) -> _Found:
        if group not in self._found:
            plan = self._plans[group]
            users = [self._user_text.get(user, "") for user in asked.user.tolist()]
            items = [self._item_text.get(item, "") for item in asked.item.tolist()]
            values = [""] * asked.user.size
            if group.column is not None:
                names = self.tables.attribute(group.column).names
                values = [names[value - 1] for value in asked.value.tolist()]
            fields = [
                self._keys.cell(group, *each) for each in zip(users, items, values, strict=True)
            ]
            self._fetch(sorted({key for key, _ in fields} - self._fields.keys()))
            packed = [self._fields[key].get(field) for key, field in fields]
            place = [at for at, value in enumerate(packed) if value is not None]
            moments = self.moments_of(group)[asked.moment]
            self._found[group] = _Found(
                np.array(place, dtype=np.int64),
                [Cell(plan, packed[at]) for at in place],
                [int(moments[at]) for at in place],
            )
        return self._found[group]

    def _fetch(self, keys: Sequence[str]) -> None:
        if keys:
            self._fields.update(zip(keys, self._store.read_all(keys), strict=True))
