"""One pass of computing definitions over request rows; the public face is `features.offline`.

Many rows share a user and moment, an item and moment, or a moment. Each of these is a *level*: a
value is computed once for every distinct combination and then spread over the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl

from features.attributes import AttributeValues
from features.grouped import COUNT, GroupedEvents, Statistic
from features.schema import EVENT, ITEM, TIMESTAMP, USER, WEIGHT
from features.vocabulary import Vocabulary

__all__ = ["Computation", "Level"]

Vectors = Mapping[str, tuple[Vocabulary, np.ndarray]]
_CELLS_AT_ONCE = 4_000_000


class Level(NamedTuple):
    """The distinct combinations of one kind, and where each row finds its own.

    Attributes:
        user: [n] int64 user index, 0 if the level has none.
        item: [n] int64 item index, likewise; beyond the catalogue's N for items it lacks.
        moment: [n] int64 position among the distinct moments.
        of_row: [R] int64 position of each row's combination.
    """

    user: np.ndarray
    item: np.ndarray
    moment: np.ndarray
    of_row: np.ndarray


class Computation:
    """Request rows, the log they look back on, and what has been worked out so far.

    Args:
        requests: R rows with user_id, item_id (String) and moment Datetime("us").
        log: the frame of an `Interactions`.
        item_ids: ids of the item table, index 1..N; the log and the requests may know more.
        item_frame: the item table.
        users: ids of the user table and the table itself, or None.
        attributes: values of the item columns used so far, shared between computations.
        vectors: item vectors by name.
    """

    def __init__(
        self,
        requests: pl.DataFrame,
        log: pl.DataFrame,
        *,
        item_ids: Vocabulary,
        item_frame: pl.DataFrame,
        users: tuple[Vocabulary, pl.DataFrame] | None,
        attributes: dict[str, AttributeValues],
        vectors: Vectors,
    ) -> None:
        self.requests = requests
        self.item_frame = item_frame
        self.users = users
        self.vectors = vectors
        self._attributes = attributes
        self._log = log
        self.item_ids = _covering(item_ids, log[ITEM], requests[ITEM])
        self.user_ids = _covering(Vocabulary.from_ids(log[USER]), requests[USER])
        self.log_item = self.item_ids.index(log[ITEM])
        self.log_user = self.user_ids.index(log[USER])
        self._log_time = log[TIMESTAMP].to_physical().to_numpy().astype(np.int64)
        self._log_weight = log[WEIGHT].to_numpy().astype(np.float64)
        moment = requests["moment"].to_physical().to_numpy().astype(np.int64)
        self.moments, moment_of_row = np.unique(moment, return_inverse=True)
        self._rows = Level(
            self.user_ids.index(requests[USER]),
            self.item_ids.index(requests[ITEM]),
            moment_of_row,
            np.arange(moment.size),
        )
        self._levels: dict[str, Level] = {"user_item": self._rows}
        self._groups: dict[tuple[str, str | None, str | None], GroupedEvents] = {}
        self._places: dict[tuple[str, str | None, str | None, int], np.ndarray] = {}
        self._pairs: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
        self._histories: dict[tuple[str | None, int], np.ndarray] = {}

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

    def attribute(self, column: str) -> AttributeValues:
        """The values of an item column."""
        if column not in self._attributes:
            self._attributes[column] = AttributeValues(self.item_frame[column])
        return self._attributes[column]

    @property
    def rows(self) -> Level:
        """The request rows themselves."""
        return self._rows

    def statistic(
        self,
        by: str,
        column: str | None,
        event: str | None,
        statistic: Statistic,
        window_us: int | None = None,
    ) -> np.ndarray:
        """A statistic of the events of each group strictly before the moment.

        Args:
            by: one of `features.definitions.Grouping`.
            column: the item column of an attribute group.
            event: only events of this kind; None: all.
            statistic: what of `GroupedEvents`.
            window_us: only the last so many microseconds (counts and sums); None: all.

        Returns:
            [n] float64, n of the level that belongs to ``by``. Counts, sums: the mean over the
            values of an attribute, NaN without values; last and first: their extreme.
        """
        groups = self._group(by, column, event)
        value = groups.at(statistic, self._place(by, column, event, 0))
        if window_us is not None:
            value = value - groups.at(statistic, self._place(by, column, event, window_us))
        if column is None:
            return value
        scope = "item" if by == "attribute" else "user_item"
        position, _ = self._value_pairs(scope, column)
        size = self.level(scope).item.size
        if statistic[0] == "last":
            return _extreme(np.fmax, value, position, size)
        if statistic[0] == "first":
            return _extreme(np.fmin, value, position, size)
        count = np.bincount(position, minlength=size)
        total = np.bincount(position, weights=value, minlength=size)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def history(self, event: str | None, last: int) -> np.ndarray:
        """[n, last] int64 newest items of each combination of user and moment, 0 on the left."""
        key = (event, last)
        if key not in self._histories:
            groups = self._group("user", None, event)
            place = self._place("user", None, event, 0)
            count = groups.at(COUNT, place).astype(np.int64)
            back = np.arange(last - 1, -1, -1)
            position = np.maximum(place[:, None] - back, -1)
            items = np.append(groups.item, 0)[position]
            self._histories[key] = np.where(back < count[:, None], items, 0)
        return self._histories[key]

    def overlaps(self, column: str, event: str | None, last: int, how: str) -> np.ndarray:
        """Mean over the user's last items of their overlap with the candidate.

        Args:
            column: the item column compared.
            event: only events of this kind; None: all.
            last: how many of the newest events.
            how: "any": 1 if a value is shared; "mean": share of the candidate's values that the
                item has; "jaccard": shared values over all values of both.

        Returns:
            [R] float64, NaN without events or without values of the candidate.
        """
        attribute = self.attribute(column)
        history, of_row = self.history(event, last), self.level("user").of_row
        bits, item = attribute.bits, attribute.rows(self._rows.item)
        history_rows, sizes = attribute.rows(history), attribute.all_sizes
        result = np.empty(item.size)
        for part in _slices(item.size, last * bits.shape[1]):
            owner, candidate = of_row[part], item[part]
            past = history_rows[owner]  # [c, last]
            both = bits[past] & bits[candidate][:, None, :]  # [c, last, W]
            shared = np.bitwise_count(both).sum(axis=2, dtype=np.int64)  # [c, last]
            size = sizes[candidate][:, None]  # [c, 1]
            if how == "any":
                value = (shared > 0).astype(np.float64)
            elif how == "mean":
                value = shared / np.maximum(size, 1)
            else:
                value = shared / np.maximum(sizes[past] + size - shared, 1)
            length = (history[owner] > 0).sum(axis=1)
            known = (length > 0) & (size[:, 0] > 0)
            result[part] = np.where(known, value.sum(axis=1) / np.maximum(length, 1), np.nan)
        return result

    def cosine(self, name: str, event: str | None, last: int) -> np.ndarray:
        """[R] float64 cosine of the candidate's vector and the mean of the user's last ones."""
        vocabulary, vectors = self.vectors[name]
        history = self._rows_in(vocabulary, self.history(event, last))
        of_row = self.level("user").of_row
        dimension = vectors.shape[1]
        mean = np.empty((history.shape[0], dimension))
        for part in _slices(history.shape[0], last * dimension):
            rows = history[part]
            taken = np.where((rows > 0)[..., None], vectors[rows], 0.0)  # [c, last, D]
            mean[part] = taken.sum(axis=1, dtype=np.float64)
        mean_norm = np.sqrt((mean * mean).sum(axis=1))
        candidate = self._rows_in(vocabulary, self._rows.item)
        result = np.empty(candidate.size)
        for part in _slices(candidate.size, dimension):
            own = vectors[candidate[part]].astype(np.float64)
            own[candidate[part] == 0] = 0.0
            dot = (own * mean[of_row[part]]).sum(axis=1)
            norm = np.sqrt((own * own).sum(axis=1)) * mean_norm[of_row[part]]
            result[part] = np.where(norm > 0, dot / np.where(norm > 0, norm, 1.0), np.nan)
        return result

    def _rows_in(self, vocabulary: Vocabulary, item: np.ndarray) -> np.ndarray:
        """Rows of another vocabulary for item indices of any shape, 0 where it lacks the item."""
        distinct, place = np.unique(item, return_inverse=True)
        real = distinct > 0
        rows = np.zeros_like(distinct)
        rows[real] = vocabulary.index(self.item_ids.to_series().gather(distinct[real] - 1))
        spread: np.ndarray = rows[place].reshape(item.shape)
        return spread

    @cached_property
    def _times(self) -> np.ndarray:
        return np.unique(self._log_time)

    @cached_property
    def _log_rank(self) -> np.ndarray:
        return np.searchsorted(self._times, self._log_time)

    def _group(self, by: str, column: str | None, event: str | None) -> GroupedEvents:
        key = (by, column, event)
        if key not in self._groups:
            kept = np.arange(self._log_time.size)
            if event is not None:
                kept = np.flatnonzero((self._log[EVENT] == event).to_numpy())
            if column is not None:
                position, value = self.attribute(column).pairs(self.log_item[kept])
                kept = kept[position]
                group = self._group_code(
                    by, self.log_user[kept], self.log_item[kept], value, column
                )
            else:
                group = self._group_code(by, self.log_user[kept], self.log_item[kept], None, None)
            self._groups[key] = GroupedEvents(
                group,
                self._log_rank[kept],
                self._log_time[kept],
                self._log_weight[kept],
                self.log_item[kept],
                self._times.size,
            )
        return self._groups[key]

    def _group_code(
        self,
        by: str,
        user: np.ndarray,
        item: np.ndarray,
        value: np.ndarray | None,
        column: str | None,
    ) -> np.ndarray:
        """A number >= 1 for each group."""
        code: np.ndarray
        if by == "global":
            code = np.ones_like(user)
        elif by in ("user", "item"):
            code = user if by == "user" else item
        elif value is None or column is None:
            code = user * self.item_ids.size + item
        elif by == "attribute":
            code = value
        else:
            code = user * (self.attribute(column).num_values + 1) + value
        return code

    def _place(self, by: str, column: str | None, event: str | None, lag_us: int) -> np.ndarray:
        """Positions in the groups of the last event before moment - lag, a level's or a pair's."""
        key = (by, column, event, lag_us)
        if key not in self._places:
            groups = self._group(by, column, event)
            rank = np.searchsorted(self._times, self.moments - lag_us, side="left")
            if column is None:
                level = self.level(by)
                group = self._group_code(by, level.user, level.item, None, None)
                self._places[key] = groups.locate(group, rank[level.moment])
            else:
                self._places[key] = self._place_of_pairs(groups, by, column, rank)
        return self._places[key]

    def _place_of_pairs(
        self, groups: GroupedEvents, by: str, column: str, rank: np.ndarray
    ) -> np.ndarray:
        """As `_place`, for every (level position, value) pair of an attribute."""
        level = self.level("item" if by == "attribute" else "user_item")
        position, value = self._value_pairs("item" if by == "attribute" else "user_item", column)
        if by == "attribute":
            outer, of_level = self.level("global"), level.moment
        else:
            outer, of_level = self.level("user"), self.level("user").of_row
        width = self.attribute(column).num_values
        if outer.moment.size * width <= position.size:
            # fewer combinations than pairs: look every combination up once
            every = np.tile(np.arange(1, width + 1), outer.moment.size)
            user = np.repeat(outer.user, width)
            group = self._group_code(by, user, user, every, column)
            table = groups.locate(group, np.repeat(rank[outer.moment], width))
            place: np.ndarray = table[of_level[position] * width + value - 1]
            return place
        user = level.user[position]
        group = self._group_code(by, user, user, value, column)
        return groups.locate(group, rank[level.moment[position]])

    def _value_pairs(self, scope: str, column: str) -> tuple[np.ndarray, np.ndarray]:
        key = (scope, column)
        if key not in self._pairs:
            self._pairs[key] = self.attribute(column).pairs(self.level(scope).item)
        return self._pairs[key]


def _covering(vocabulary: Vocabulary, *columns: pl.Series) -> Vocabulary:
    """The vocabulary, extended by what the columns hold beyond it."""
    for ids in columns:
        index = vocabulary.index(ids)
        if bool((index == 0).any()):
            vocabulary = vocabulary.extend(ids.filter(pl.Series(index == 0)))
    return vocabulary


def _extreme(function: np.ufunc, value: np.ndarray, position: np.ndarray, size: int) -> np.ndarray:
    """[size] extreme of the values at each position, NaN where there is none."""
    result = np.full(size, np.nan)
    if position.size:
        starts = np.flatnonzero(np.diff(position, prepend=-1))
        result[position[starts]] = function.reduceat(value, starts)
    return result


def _slices(rows: int, cells_per_row: int) -> list[slice]:
    step = max(1, _CELLS_AT_ONCE // max(cells_per_row, 1))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
