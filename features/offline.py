"""Definitions to columns, point-in-time: nothing at or after a row's moment enters the row.

The same code serves three uses: training rows over a whole log (`compute_features`), the values of
every item at one moment, to be published (`item_features`), and one live request, which knows the
user's own events and takes the published item values (`request_features`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import polars as pl

from features.computation import Computation
from features.definitions import (
    Definition,
    ListContains,
    ListSize,
    Position,
    SlateRelative,
    TextMatch,
    VectorComponent,
)
from features.errors import DataError
from features.feature_tables import FeatureTables, Vectors
from features.interactions import Interactions
from features.kinds import COMPUTE, slate_relative
from features.log_computation import LogComputation
from features.registry import check_definitions
from features.schema import ITEM, USER
from features.tables import ItemTable, UserTable

__all__ = ["FeatureComputer", "compute_features", "item_features", "request_features"]

_OWN = ("request_id", USER, ITEM, "moment")
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
        self._check_sources()

    def compute(self, requests: pl.DataFrame, interactions: Interactions) -> pl.DataFrame:
        """See `compute_features`."""
        requests = checked_requests(requests, self.definitions)
        return self.evaluate(LogComputation(requests, interactions.frame, self.tables), {})

    def item_features(self, interactions: Interactions, moment: datetime) -> pl.DataFrame:
        """See `item_features`."""
        requests = item_requests(self.items.frame[ITEM], moment)
        computation = LogComputation(requests, interactions.frame, self.tables)
        result = self.evaluate(computation, {}, self.published)
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
        return self.evaluate(LogComputation(requests, events.frame, self.tables), given)

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
            given = _aligned(item_values, item_ids, names)
        for each in self.definitions:
            if isinstance(each, Position):
                given[each.name] = np.full(len(item_ids), each.online, dtype=np.float32)
        return given

    def evaluate(
        self,
        computation: Computation,
        given: Mapping[str, np.ndarray],
        definitions: Sequence[Definition] | None = None,
    ) -> pl.DataFrame:
        """The computation's rows with a Float32 column for each definition.

        Args:
            computation: the rows, and where their past is looked up.
            given: values that are not computed, by definition.
            definitions: None: all.
        """
        requests = computation.requests
        definitions = self.definitions if definitions is None else definitions
        columns: dict[str, np.ndarray] = {}
        for definition in definitions:
            if isinstance(definition, SlateRelative):
                continue
            if definition.name in given:
                value = given[definition.name]
            else:
                value = COMPUTE[type(definition)](computation, definition)
                if definition.scope not in ("request", "user_item"):
                    value = value[computation.level(definition.scope).of_row]
            columns[definition.name] = _filled(value, definition)
        for definition in definitions:
            if isinstance(definition, SlateRelative):
                value = slate_relative(requests["request_id"], columns[definition.of], definition)
                columns[definition.name] = _filled(value, definition)
        ordered = [
            pl.Series(definition.name, columns[definition.name]) for definition in definitions
        ]
        return requests.with_columns(ordered)

    def _check_sources(self) -> None:
        tables = {
            "item": set(self.items.frame.columns),
            "user": set() if self.users is None else set(self.users.frame.columns),
            "vectors": set(self.tables.vectors),
        }
        for definition in self.definitions:
            if definition.name in _OWN:
                raise DataError(
                    f"definition {definition.name!r}: name must not be one of {', '.join(_OWN)}; "
                    "rename it"
                )
            for source in definition.columns():
                table, _, column = source.partition(".")
                if table in tables and column not in tables[table]:
                    known = ", ".join(sorted(tables[table])) or "none given"
                    raise DataError(
                        f"definition {definition.name!r}: {source} must exist; known: {known}"
                    )
            self._check_type(definition)
        for name, (vocabulary, vectors) in self.tables.vectors.items():
            if vectors.ndim != 2 or vectors.shape[0] != vocabulary.size:
                raise DataError(
                    f"vectors {name!r} must be [N + 1, D] with N = {len(vocabulary)}, got shape "
                    f"{vectors.shape}; row 0 is the padding row"
                )

    def _check_type(self, definition: Definition) -> None:
        if isinstance(definition, ListSize | ListContains):
            frame = self.users.frame if definition.table == "user" and self.users else None
            dtype = (self.items.frame if frame is None else frame).schema[definition.column]
            if dtype != pl.List(pl.String):
                raise DataError(
                    f"definition {definition.name!r}: column must be a list of text, got "
                    f"{definition.column!r} of type {dtype}; declare it a list column"
                )
        elif isinstance(definition, TextMatch):
            dtype = self.items.frame.schema[definition.column]
            if dtype != pl.String:
                raise DataError(
                    f"definition {definition.name!r}: column must be text, got "
                    f"{definition.column!r} of type {dtype}"
                )
        elif isinstance(definition, VectorComponent):
            vectors = self.tables.vectors[definition.vectors][1]
            if vectors.ndim == 2 and definition.component >= vectors.shape[1]:
                raise DataError(
                    f"definition {definition.name!r}: component must be below the "
                    f"{vectors.shape[1]} of vectors {definition.vectors!r}, got "
                    f"{definition.component}"
                )


def compute_features(
    definitions: Sequence[Definition],
    requests: pl.DataFrame,
    interactions: Interactions,
    items: ItemTable,
    users: UserTable | None = None,
    vectors: Vectors | None = None,
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

    Returns:
        The R rows in the same order with their own columns, and one Float32 column per definition;
        a missing value is the definition's default, NaN unless it says otherwise.

    Raises:
        DataError: definitions do not fit together or read what does not exist; requests lack a
            column, have one of a wrong type, or a null id or moment.
    """
    return FeatureComputer(definitions, items, users, vectors).compute(requests, interactions)


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


def _aligned(
    item_values: pl.DataFrame | Mapping[str, np.ndarray], item_ids: Sequence[str], names: list[str]
) -> dict[str, np.ndarray]:
    """The published values of each candidate, by definition."""
    if isinstance(item_values, pl.DataFrame):
        absent = [name for name in (ITEM, *names) if name not in item_values.columns]
        if absent:
            raise DataError(
                f"item_values must have the column {absent[0]!r}, got "
                f"{', '.join(item_values.columns)}; make it with item_features"
            )
        wanted = pl.DataFrame({ITEM: pl.Series(item_ids, dtype=pl.String)})
        joined = wanted.join(item_values, on=ITEM, how="left", maintain_order="left")
        return {name: joined[name].fill_null(float("nan")).to_numpy() for name in names}
    given = {}
    for name in names:
        if name not in item_values:
            raise DataError(
                f"item_values must have {name!r}, got {', '.join(item_values) or 'none'}; publish "
                "what item_features gives"
            )
        given[name] = np.asarray(item_values[name], dtype=np.float32)
        if given[name].shape != (len(item_ids),):
            raise DataError(
                f"item_values[{name!r}] must have one value per candidate: got shape "
                f"{given[name].shape} for {len(item_ids)} candidates"
            )
    return given


def item_requests(item_ids: pl.Series, moment: datetime) -> pl.DataFrame:
    """One row for each item, of nobody in particular."""
    return item_ids.to_frame(ITEM).select(
        pl.lit(0).alias("request_id"),
        pl.lit("-").alias(USER),
        ITEM,
        pl.lit(moment, dtype=pl.Datetime("us")).alias("moment"),
    )


def checked_requests(requests: pl.DataFrame, definitions: Sequence[Definition]) -> pl.DataFrame:
    """The requests with String ids and microsecond moments."""
    read = {
        source.partition(".")[2]
        for each in definitions
        for source in each.columns()
        if source.startswith("request.")
    }
    for name in (*_OWN, *sorted(read)):
        if name not in requests.columns:
            raise DataError(
                f"requests must have the column {name!r}, got {', '.join(requests.columns)}; add it"
            )
    moment = requests.schema["moment"]
    if not isinstance(moment, pl.Datetime) or moment.time_zone is not None:
        raise DataError(
            f"requests: moment must be a Datetime in UTC without time zone, got {moment}; cast it"
        )
    texts = {each.query for each in definitions if isinstance(each, TextMatch)}
    for name in sorted(read):
        dtype = requests.schema[name]
        if name in texts and dtype != pl.String:
            raise DataError(f"requests: {name} must be text, got {dtype}; cast it to String")
        if name not in texts and not dtype.is_numeric():
            raise DataError(f"requests: {name} must be a number, got {dtype}; cast it")
    requests = requests.with_columns(
        pl.col(USER, ITEM).cast(pl.String), pl.col("moment").cast(pl.Datetime("us"))
    )
    for name in _OWN:
        bad = requests[name].is_null()
        if name in (USER, ITEM):
            bad = bad | (requests[name] == "")
        if bool(bad.any()):
            raise DataError(
                f"requests: {name} must not be null or empty: {int(bad.sum())} of "
                f"{requests.height} are, first in row {bad.arg_true()[0]}; drop these rows"
            )
    return requests
