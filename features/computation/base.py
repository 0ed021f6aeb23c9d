"""Request rows and what is asked of their past; the public face is `features.computation.computer`.

Many rows share a user and moment, an item and moment, or a moment. Each of these is a *level*: a
value is computed once for every distinct combination and then spread over the rows.

`Computation` knows the rows and the tables. What happened before is asked of a subclass:
`features.computation.from_log` looks it up in a log, `features.online.computation` in state that
was updated event by event.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import polars as pl

from features.computation.feature_tables import FeatureTables
from features.computation.grouped import Statistic
from features.computation.pasts import Past
from features.computation.questions import Asked, Group, Level
from features.tables.vocabulary import Vocabulary

__all__ = ["Computation", "slices"]

_CELLS_AT_ONCE = 4_000_000


class Computation(ABC):
    """Request rows and the tables they point into.

    Args:
        tables: items, users and vectors.
        columns: what the rows bring: request_id, and what definitions read of them; [R] each.
        item_ids: ids of the item table, index 1..N, then of items known beyond it.
        user_ids: [U] ids of all users asked about, different.
        item: [R] int64, the rows' items in ``item_ids``.
        user: [R] int64, the rows' users, 1..U.
        moment: [R] int64 microseconds since the epoch.
    """

    def __init__(
        self,
        tables: FeatureTables,
        columns: pl.DataFrame | Mapping[str, np.ndarray],
        *,
        item_ids: Vocabulary,
        user_ids: pl.Series,
        item: np.ndarray,
        user: np.ndarray,
        moment: np.ndarray,
    ) -> None:
        self.tables = tables
        self.item_ids = item_ids
        self._user_ids = user_ids
        self._columns = columns
        self._user_rows: np.ndarray | None = None
        if moment.size and bool((moment == moment[0]).all()):  # as of one request
            self.moments, moment_of_row = moment[:1], np.zeros(moment.size, dtype=np.int64)
        else:
            self.moments, moment_of_row = np.unique(moment, return_inverse=True)
        self._rows = Level(user, item, moment_of_row, np.arange(moment.size))
        self._levels: dict[str, Level] = {"user_item": self._rows}
        self._pairs: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
        self._pair_counts: dict[tuple[str, str], np.ndarray] = {}
        self._asked: dict[tuple[str, str | None], tuple[Asked, np.ndarray | None]] = {}
        self._pasts: dict[tuple[str | None, int], Past] = {}

    @abstractmethod
    def _values(
        self, group: Group, asked: Asked, statistic: Statistic, window_us: int | None
    ) -> np.ndarray:
        """[Q] float64 statistic of each group; without events 0, of times NaN."""

    @abstractmethod
    def _distinct_counts(
        self, group: Group, asked: Asked, of: str, window_us: int | None
    ) -> np.ndarray:
        """[Q] float64 number of different values of ``of`` in each group."""

    @abstractmethod
    def _newest(self, event: str | None, last: int) -> Past:
        """The newest events of each combination of the level "user"."""

    def level(self, scope: str) -> Level:
        """The level "global", "user", "item" or "user_item" (every row by itself)."""
        if scope not in self._levels:
            rows = self._rows
            none = np.zeros_like(rows.moment)
            user = rows.user if scope == "user" else none
            item = rows.item if scope == "item" else none
            code = (user + item) * self.moments.size + rows.moment
            distinct, of_row = np.unique(code, return_inverse=True)
            owner, moment = np.divmod(distinct, max(self.moments.size, 1))
            nobody = np.zeros_like(owner)
            self._levels[scope] = Level(
                owner if scope == "user" else nobody,
                owner if scope == "item" else nobody,
                moment,
                of_row,
            )
        return self._levels[scope]

    @property
    def rows(self) -> Level:
        """The request rows themselves."""
        return self._rows

    def numbers(self, name: str) -> np.ndarray:
        """[R] float64 column of the rows, NaN where it is null."""
        column = self._columns[name]
        if isinstance(column, pl.Series):
            return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return np.asarray(column, dtype=np.float64)

    def texts(self, name: str) -> pl.Series:
        """[R] String column of the rows."""
        return pl.Series(name, self._columns[name], dtype=pl.String)

    @property
    def request_id(self) -> np.ndarray:
        """[R] int64: rows of one request have the same."""
        return np.asarray(self._columns["request_id"])

    def user_rows(self) -> np.ndarray:
        """[n] int64 rows, from 0, of the user table for the level "user"; -1 where it has none.

        Raises:
            TypeError: there is no user table.
        """
        if self._user_rows is None:
            if self.tables.users is None:
                raise TypeError("there is no user table")
            known, _ = self.tables.users
            row_of = known.index(self._user_ids) - 1
            self._user_rows = row_of[self.level("user").user - 1]
        return self._user_rows

    def moments_of(self, group: Group) -> np.ndarray:
        """[M] int64 microseconds: the distinct moments, or the last refresh before each."""
        if group.refresh_us == 0:
            return np.asarray(self.moments)
        refreshed: np.ndarray = self.moments // group.refresh_us * group.refresh_us
        return refreshed

    def statistic(
        self, group: Group, statistic: Statistic, window_us: int | None = None
    ) -> np.ndarray:
        """A statistic of the events of each group seen before the moment.

        Args:
            group: which events.
            statistic: what of `GroupedEvents`.
            window_us: only the last so many microseconds (counts and sums); None: all.

        Returns:
            [n] float64, n of the group's level. Counts, sums: the mean over the values of an
            attribute, NaN without values; last and first: their extreme.
        """
        asked, of_pair = self._questions(group.by, group.column)
        found = self._values(group, asked, statistic, window_us)
        extreme = {"last": np.fmax, "first": np.fmin}.get(statistic[0])
        return self._of_level(group, found, of_pair, extreme)

    def distinct(self, group: Group, of: str, window_us: int | None = None) -> np.ndarray:
        """[n] float64: number of different values of ``of`` among the events of each group.

        Args:
            group: which events.
            of: "user", "item", or an item column.
            window_us: only the last so many microseconds; None: all.
        """
        asked, of_pair = self._questions(group.by, group.column)
        found = self._distinct_counts(group, asked, of, window_us)
        return self._of_level(group, found, of_pair, None)

    def past(
        self,
        event: str | None,
        last: int,
        ttl_us: int | None = None,
        session_us: int | None = None,
    ) -> Past:
        """The newest events of each combination of the level "user".

        Args:
            event: only events of this kind; None: all.
            last: how many.
            ttl_us: only the last so many microseconds; None: all.
            session_us: only events without a gap longer than this until the moment; None: all.
        """
        if (event, last) not in self._pasts:
            self._pasts[event, last] = self._newest(event, last)
        past = self._pasts[event, last]
        moment = self.moments[self.level("user").moment]
        if ttl_us is not None:
            past = past.since(moment - ttl_us)
        return past if session_us is None else past.session(moment, session_us)

    def overlaps(self, column: str, history: np.ndarray, how: str) -> np.ndarray:
        """Mean over the user's last items of their overlap with the candidate.

        Args:
            column: the item column compared.
            history: [n, L] int64 items of each combination of the level "user", 0: none.
            how: "any": 1 if a value is shared; "mean": share of the candidate's values that the
                item has; "jaccard": shared values over all values of both.

        Returns:
            [R] float64, NaN without events or without values of the candidate.
        """
        attribute = self.tables.attribute(column)
        of_row = self.level("user").of_row
        item = attribute.rows(self._rows.item)
        history_rows, sizes = attribute.rows(history), attribute.all_sizes
        lengths = (history > 0).sum(axis=1)
        filled = np.flatnonzero((history > 0).any(axis=0))
        history_rows = history_rows[:, filled[0] if filled.size else history.shape[1] :]
        single = len(history_rows) == 1
        result = np.empty(item.size)
        for part in slices(item.size, max(history_rows.shape[1], 1) * attribute.width):
            owner, candidate = of_row[part], item[part]
            # [1 or c, last]: of one user every candidate meets the same items
            past = history_rows if single else history_rows[owner]
            shared = attribute.shared(candidate, past)
            size = sizes[candidate].astype(np.int32)[:, None]  # [c, 1]
            if how == "any":
                total = np.count_nonzero(shared, axis=1)
            elif how == "mean":
                total = shared.sum(axis=1) / np.maximum(size[:, 0], 1)
            else:
                together = np.maximum(sizes[past].astype(np.int32) + size - shared, 1)
                total = (shared / together).sum(axis=1)
            length = lengths[owner]
            known = (length > 0) & (size[:, 0] > 0)
            result[part] = np.where(known, total / np.maximum(length, 1), np.nan)
        return result

    def cosine(self, name: str, history: np.ndarray) -> np.ndarray:
        """[R] float64 cosine of the candidate's vector and the mean of those of ``history``."""
        _, vectors = self.tables.vectors[name]
        history = self.vector_rows(name, history)
        of_row = self.level("user").of_row
        dimension = vectors.shape[1]
        mean = np.empty((history.shape[0], dimension))
        for part in slices(history.shape[0], history.shape[1] * dimension):
            rows = history[part]
            taken = np.where((rows > 0)[..., None], vectors[rows], 0.0)  # [c, last, D]
            mean[part] = taken.sum(axis=1, dtype=np.float64)
        mean_norm = np.sqrt((mean * mean).sum(axis=1))
        candidate, norms = self.vector_rows(name, self._rows.item), self.tables.norms(name)
        result = np.empty(candidate.size)
        for part in slices(candidate.size, dimension):
            rows, owner = candidate[part], of_row[part]
            own = vectors.take(rows, axis=0)  # half the time of an index
            if len(mean) == 1:
                dot = own @ mean[0].astype(own.dtype)
            else:
                dot = (own.astype(np.float64) * mean[owner]).sum(axis=1)
            norm = norms[rows] * mean_norm[owner]
            result[part] = np.where(norm > 0, dot / np.where(norm > 0, norm, 1.0), np.nan)
        return result

    def vector_rows(self, name: str, item: np.ndarray) -> np.ndarray:
        """Rows of named vectors for item indices of any shape, 0 where they lack the item."""
        vocabulary, _ = self.tables.vectors[name]
        distinct, place = np.unique(item, return_inverse=True)
        real = distinct > 0
        rows = np.zeros_like(distinct)
        rows[real] = vocabulary.index(self.item_ids.to_series().gather(distinct[real] - 1))
        spread: np.ndarray = rows[place].reshape(item.shape)
        return spread

    def _questions(self, by: str, column: str | None) -> tuple[Asked, np.ndarray | None]:
        """The groups of a level, and for attributes which of them each value pair asks."""
        key = (by, column)
        if key not in self._asked:
            if column is None:
                level = self.level(by)
                none = np.zeros_like(level.moment)
                self._asked[key] = (Asked(level.user, level.item, none, level.moment), None)
            else:
                self._asked[key] = self._questions_of_values(by, column)
        return self._asked[key]

    def _questions_of_values(self, by: str, column: str) -> tuple[Asked, np.ndarray]:
        scope = "item" if by == "attribute" else "user_item"
        level = self.level(scope)
        position, value = self._value_pairs(scope, column)
        if by == "attribute":
            outer, of_level = self.level("global"), level.moment
        else:
            outer, of_level = self.level("user"), self.level("user").of_row
        width = self.tables.attribute(column).num_values
        if outer.moment.size * width <= position.size:
            # fewer combinations than pairs: ask for every combination once
            every = np.tile(np.arange(1, width + 1), outer.moment.size)
            user, moment = np.repeat(outer.user, width), np.repeat(outer.moment, width)
            of_pair = of_level[position] * width + value - 1
            return Asked(user, np.zeros_like(user), every, moment), of_pair
        user = level.user[position]
        asked = Asked(user, np.zeros_like(user), value, level.moment[position])
        return asked, np.arange(position.size)

    def _of_level(
        self,
        group: Group,
        found: np.ndarray,
        of_pair: np.ndarray | None,
        extreme: np.ufunc | None,
    ) -> np.ndarray:
        """[n] from the answers: themselves, or the mean or the extreme over an item's values."""
        if group.column is None or of_pair is None:
            return found
        value = found[of_pair]
        position, _ = self._value_pairs(group.level, group.column)
        size = self.level(group.level).item.size
        if extreme is not None:
            return _extreme(extreme, value, position, size)
        key = (group.level, group.column)
        if key not in self._pair_counts:
            count = np.bincount(position, minlength=size).astype(np.float64)
            self._pair_counts[key] = np.where(count > 0, count, np.nan)
        total = np.bincount(position, weights=value, minlength=size)
        return np.asarray(total / self._pair_counts[key])

    def _value_pairs(self, scope: str, column: str) -> tuple[np.ndarray, np.ndarray]:
        key = (scope, column)
        if key not in self._pairs:
            self._pairs[key] = self.tables.attribute(column).pairs(self.level(scope).item)
        return self._pairs[key]


def _extreme(function: np.ufunc, value: np.ndarray, position: np.ndarray, size: int) -> np.ndarray:
    """[size] extreme of the values at each position, NaN where there is none."""
    result = np.full(size, np.nan)
    if position.size:
        starts = np.flatnonzero(np.diff(position, prepend=-1))
        result[position[starts]] = function.reduceat(value, starts)
    return result


def slices(rows: int, cells_per_row: int) -> list[slice]:
    """Parts of the rows with a bounded number of cells."""
    step = max(1, _CELLS_AT_ONCE // max(cells_per_row, 1))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
