"""Definitions to columns, point-in-time: nothing at or after a row's moment enters the row.

The same code serves three uses: training rows over a whole log (`compute_features`), the values of
every item at one moment, to be published (`item_features`), and one live request, which knows the
user's own events and takes the published item values (`request_features`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from features.computation.base import Computation
from features.computation.feature_tables import FeatureTables, Vectors
from features.computation.from_log import LogComputation
from features.computation.from_own_events import OwnComputation, OwnEvents
from features.computation.kinds import combine, compute
from features.computation.requests import OWN, aligned, checked_requests, item_requests, parts_of
from features.computation.source_checks import check_sources
from features.definitions.columns import Definition, Position
from features.definitions.sets import check_definitions
from features.errors import DataError
from features.moments import microseconds
from features.tables.entities import ItemTable, UserTable
from features.tables.interactions import Interactions
from features.tables.schema import ITEM, USER
from features.tables.vocabulary import Vocabulary, covering

__all__ = ["FeatureComputer", "compute_features", "item_features", "request_features"]

ROWS_AT_ONCE = 1_000_000
_PUBLISHED = ("global", "item")


class FeatureComputer:
    """Definitions with the tables they read, prepared once and used for many computations.

    Args:
        definitions: what to compute; the columns of the result follow their order.
        items: the catalogue.
        users: the user table, if a definition reads it.
        vectors: by name, a vocabulary of N ids and the [N + 1, D] vectors of their indices.

    Raises:
        DataError: definitions do not fit together, read a column or vectors that do not exist, or
            take a name that every request uses itself.
    """

    def __init__(
        self,
        definitions: Sequence[Definition],
        items: ItemTable,
        users: UserTable | None = None,
        vectors: Vectors | None = None,
    ) -> None:
        self.definitions = check_definitions(definitions)
        self.items = items
        self.users = users
        self.tables = FeatureTables(items, users, vectors or {})
        check_sources(self.definitions, self.tables)

    def compute(
        self,
        requests: pl.DataFrame,
        interactions: Interactions,
        *,
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> pl.DataFrame:
        """See `compute_features`."""
        if rows_at_once < 1:
            raise DataError(f"rows_at_once must be >= 1, got {rows_at_once}")
        requests = checked_requests(requests, self.definitions)
        log, parts = interactions.whole, parts_of(requests, rows_at_once)
        if len(parts) == 1:
            return self.evaluate(requests, LogComputation(requests, log, self.tables), {})
        computed = [
            self.evaluate(requests[part], LogComputation(requests[part], log, self.tables), {})
            for part in parts
        ]
        return pl.concat(computed)[np.argsort(np.concatenate(parts))]

    def item_features(self, interactions: Interactions, moment: datetime) -> pl.DataFrame:
        """See `item_features`."""
        requests = item_requests(self.items.frame[ITEM], moment)
        computation = LogComputation(requests, interactions.whole, self.tables)
        result = self.evaluate(requests, computation, {}, self.published)
        return result.select(ITEM, *(definition.name for definition in self.published))

    def request_features(
        self,
        user_id: str,
        item_ids: Sequence[str],
        moment: datetime,
        events: Interactions,
        item_values: pl.DataFrame | Mapping[str, np.ndarray],
        retrieval: Mapping[str, np.ndarray] | None = None,
    ) -> pl.DataFrame:
        """See `request_features`."""
        requests = self.live_requests(user_id, item_ids, moment, retrieval)
        given = self.live_values(item_ids, item_values)
        own = events.whole.filter(pl.col(USER) == user_id)
        known, met, item = covering(self.known_items, own[ITEM], requests[ITEM])
        values = self.live(
            user_id,
            item,
            microseconds(moment),
            OwnEvents.of_frame(own, met),
            given,
            {name: requests[name] for name in requests.columns if name not in OWN},
            known_items=known,
        )
        return requests.with_columns([pl.Series(name, value) for name, value in values.items()])

    def live(
        self,
        user_id: str,
        item: np.ndarray,
        moment_us: int,
        events: OwnEvents,
        given: Mapping[str, np.ndarray],
        columns: Mapping[str, Any],
        *,
        known_items: Vocabulary | None = None,
    ) -> dict[str, np.ndarray]:
        """`request_features` on indices and arrays, unchecked: what a service calls.

        Args:
            user_id: who asks.
            item: [C] int64 candidates, in ``known_items``.
            moment_us: microseconds since the epoch.
            events: of the user, in ``known_items`` or beyond it.
            given: [C] values that are not computed, by definition: at least the published ones.
            columns: what definitions read of the request, [C] each.
            known_items: begins with `known_items`. None: it is that.

        Returns:
            [C] float32 by definition, in their order.
        """
        computation = OwnComputation(
            self.tables,
            columns,
            user_id=user_id,
            item_ids=self.known_items if known_items is None else known_items,
            item=item,
            events=events,
            moment_us=moment_us,
            vector_rows=self._vector_rows,
        )
        return self.values(computation, {**given, **self._positions(item.size)}, self.definitions)

    @cached_property
    def known_items(self) -> Vocabulary:
        """Items of the catalogue, then those that only vectors know."""
        known = self.tables.item_ids
        for vocabulary, _ in self.tables.vectors.values():
            known = known.extend(vocabulary.to_series())
        return known

    @cached_property
    def _vector_rows(self) -> dict[str, np.ndarray]:
        ids = self.known_items.to_series()
        return {
            name: np.append(0, vocabulary.index(ids))
            for name, (vocabulary, _) in self.tables.vectors.items()
        }

    @property
    def published(self) -> list[Definition]:
        """The definitions whose values depend on the item and the moment alone."""
        return [definition for definition in self.definitions if definition.scope in _PUBLISHED]

    def live_requests(
        self,
        user_id: str,
        item_ids: Sequence[str],
        moment: datetime,
        retrieval: Mapping[str, np.ndarray] | None,
    ) -> pl.DataFrame:
        """The rows of one live request, checked; see `request_features`."""
        requests = pl.DataFrame(
            {
                "request_id": np.zeros(len(item_ids), dtype=np.int64),
                USER: pl.Series([user_id] * len(item_ids), dtype=pl.String),
                ITEM: pl.Series(item_ids, dtype=pl.String),
                "moment": pl.Series([moment] * len(item_ids), dtype=pl.Datetime("us")),
                **(retrieval or {}),
            }
        )
        asked = [each for each in self.definitions if not isinstance(each, Position)]
        return checked_requests(requests, asked)

    def live_values(
        self, item_ids: Sequence[str], item_values: pl.DataFrame | Mapping[str, np.ndarray] | None
    ) -> dict[str, np.ndarray]:
        """What a live request is given instead of computing it, by definition."""
        given: dict[str, np.ndarray] = {}
        if item_values is not None:
            names = [definition.name for definition in self.published]
            given = aligned(item_values, item_ids, names)
        return {**given, **self._positions(len(item_ids))}

    def _positions(self, count: int) -> dict[str, np.ndarray]:
        """What stands for the places that a live request does not know yet."""
        return {
            each.name: np.full(count, each.online, dtype=np.float32)
            for each in self.definitions
            if isinstance(each, Position)
        }

    def evaluate(
        self,
        requests: pl.DataFrame,
        computation: Computation,
        given: Mapping[str, np.ndarray],
        definitions: Sequence[Definition] | None = None,
    ) -> pl.DataFrame:
        """``requests`` with a Float32 column for each definition.

        Args:
            requests: [R] rows.
            computation: of these rows, where their past is looked up.
            given: values that are not computed, by definition.
            definitions: None: all.
        """
        definitions = self.definitions if definitions is None else definitions
        values = self.values(computation, given, definitions)
        return requests.with_columns([pl.Series(name, value) for name, value in values.items()])

    def values(
        self,
        computation: Computation,
        given: Mapping[str, np.ndarray],
        definitions: Sequence[Definition],
    ) -> dict[str, np.ndarray]:
        """[R] float32 values by definition, in their order; see `evaluate`."""
        columns: dict[str, np.ndarray] = {}
        for definition in definitions:
            if definition.made_of:
                continue
            if definition.name in given:
                value = given[definition.name]
            else:
                value = compute(computation, definition)
                if definition.scope not in ("request", "user_item"):
                    value = value[computation.level(definition.scope).of_row]
            columns[definition.name] = _filled(value, definition)
        for definition in definitions:
            if definition.made_of:
                value = combine(computation.request_id, columns, definition)
                columns[definition.name] = _filled(value, definition)
        return {definition.name: columns[definition.name] for definition in definitions}


def compute_features(
    definitions: Sequence[Definition],
    requests: pl.DataFrame,
    interactions: Interactions,
    items: ItemTable,
    users: UserTable | None = None,
    vectors: Vectors | None = None,
    *,
    rows_at_once: int = ROWS_AT_ONCE,
) -> pl.DataFrame:
    """Features of request rows, each as of its own moment.

    Only events strictly before the row's moment enter. Users without events and items without a
    row in the catalogue are fine: counts are 0, what needs them is missing.

    Args:
        definitions: what to compute.
        requests: R rows: request_id (integer; rows of one request compete with each other),
            user_id, item_id, moment Datetime("us") UTC without zone, and the columns that
            definitions read: ``score__<retriever>``, ``rank__<retriever>``, ``position``, texts.
        interactions: the log; it may hold any later events.
        items: the catalogue.
        users: the user table, if a definition reads it.
        vectors: item vectors by name, if a definition reads them.
        rows_at_once: bounds the memory beside the log and the result; the log is sorted anew for
            each part, and a request is never cut.

    Returns:
        The R rows in the same order with their own columns, and one Float32 column per definition;
        a missing value is the definition's default, NaN unless it says otherwise.

    Raises:
        DataError: definitions do not fit together or read what does not exist; requests lack a
            column, have one of a wrong type, or a null id or moment.
    """
    computer = FeatureComputer(definitions, items, users, vectors)
    return computer.compute(requests, interactions, rows_at_once=rows_at_once)


def item_features(
    definitions: Sequence[Definition],
    items: ItemTable,
    interactions: Interactions,
    moment: datetime,
    vectors: Vectors | None = None,
) -> pl.DataFrame:
    """What depends on the item alone, for every item of the catalogue at one moment.

    Args:
        definitions: those of another scope than "item" and "global" are left out.
        items: the catalogue.
        interactions: the log.
        moment: UTC, no zone; events at or after it do not enter.
        vectors: item vectors by name, if a definition reads them.

    Returns:
        N rows in the catalogue's order: item_id and one Float32 column per definition.

    Raises:
        DataError: as `compute_features`.
    """
    published = [definition for definition in definitions if definition.scope in _PUBLISHED]
    return FeatureComputer(published, items, None, vectors).item_features(interactions, moment)


def request_features(
    definitions: Sequence[Definition],
    user_id: str,
    item_ids: Sequence[str],
    moment: datetime,
    events: Interactions,
    item_values: pl.DataFrame | Mapping[str, np.ndarray],
    items: ItemTable,
    users: UserTable | None = None,
    vectors: Vectors | None = None,
    retrieval: Mapping[str, np.ndarray] | None = None,
) -> pl.DataFrame:
    """Features of one live request: the columns of `compute_features`, by the same code.

    A service keeps a `FeatureComputer` and calls its method of this name, which skips the
    preparation of the tables.

    Args:
        definitions: what to compute.
        user_id: who asks; may be unknown.
        item_ids: C candidates.
        moment: UTC, no zone.
        events: the user's own events (others are ignored, later ones too).
        item_values: what `item_features` gave: its frame, or by name [C] arrays of values that
            belong to ``item_ids`` in their order (a `FeatureBlock`'s values). A candidate that
            the frame does not hold has NaN.
        items: the catalogue.
        users: the user table, if a definition reads it.
        vectors: item vectors by name, if a definition reads them.
        retrieval: ``score__<retriever>``, ``rank__<retriever>`` and texts that definitions read,
            as [C] arrays. A position is not known yet; see `Position`.

    Returns:
        C rows in the order of ``item_ids``.

    Raises:
        DataError: as `compute_features`, or ``item_values`` lacks a definition's column.
    """
    computer = FeatureComputer(definitions, items, users, vectors)
    return computer.request_features(user_id, item_ids, moment, events, item_values, retrieval)


def _filled(value: np.ndarray, definition: Definition) -> np.ndarray:
    value = value.astype(np.float32)
    if definition.default is not None:
        value[np.isnan(value)] = definition.default
    return value
