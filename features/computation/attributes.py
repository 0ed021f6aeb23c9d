"""The values of one item attribute by item index, as lists and as bit sets."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl

__all__ = ["AttributeValues"]

_BITS = 64
_MOST_BITS = 4_096  # values; a set of more is sparse enough to be compared value by value


class AttributeValues:
    """Which values each of N items carries; index 0 and indices beyond N carry none.

    Args:
        column: [N] a list column, or one with a single value an item; row r is item index r + 1.

    Attributes:
        names: the V distinct values, sorted; value v of the methods is ``names[v - 1]``.
        num_values: V.
    """

    def __init__(self, column: pl.Series) -> None:
        if column.dtype != pl.List(pl.String):
            text = column.cast(pl.String)
            column = text.reshape((len(text), 1)).cast(pl.List(pl.String))
        exploded = (
            column.to_frame("value")
            .with_row_index("row")
            .explode("value", empty_as_null=True)
            .drop_nulls()
        )
        values = exploded["value"]
        known = values.unique().sort()
        self.names: list[str] = known.to_list()
        self.num_values = len(known)
        found = known.search_sorted(values) if len(values) else pl.Series([], dtype=pl.UInt32)
        self._values = found.to_numpy().astype(np.int64) + 1
        counts = np.bincount(exploded["row"].to_numpy() + 1, minlength=len(column) + 1)
        self._indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])

    def rows(self, item_index: np.ndarray) -> np.ndarray:
        """``item_index`` with everything beyond the table turned into 0."""
        return np.where(item_index < self._indptr.size - 1, item_index, 0)

    def sizes(self, item_index: np.ndarray) -> np.ndarray:
        """[R] int64 number of values of each item."""
        rows = self.rows(item_index)
        sizes: np.ndarray = self._indptr[rows + 1] - self._indptr[rows]
        return sizes

    @cached_property
    def all_sizes(self) -> np.ndarray:
        """[N + 1] int64 number of values by item index."""
        return np.diff(self._indptr)

    def pairs(self, item_index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every (position in ``item_index``, value) as two [P] int64 arrays, position rising."""
        starts = self._indptr[self.rows(item_index)]
        sizes = self.sizes(item_index)
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if ends.size else 0
        within = np.arange(total, dtype=np.int64) - np.repeat(ends - sizes, sizes)
        position = np.repeat(np.arange(item_index.size, dtype=np.int64), sizes)
        return position, self._values[np.repeat(starts, sizes) + within]

    def shared(self, item_index: np.ndarray, others: np.ndarray) -> np.ndarray:
        """How many values items have in common.

        Args:
            item_index: [C] int64, at most N.
            others: [C, L] int64, or [1, L] for all alike; at most N.

        Returns:
            [C, L] int16.
        """
        shared = np.zeros((item_index.size, others.shape[1]), dtype=np.int16)
        if len(others) == 1 and self._few_each:
            met = np.zeros((self.num_values + 1, others.shape[1]), dtype=np.int16)
            place, value = self.pairs(others[0])
            met[value, place] = 1
            start, size = self._indptr[item_index], self.all_sizes[item_index]
            for one in range(int(size.max(initial=0))):
                has = one < size
                shared += met[np.where(has, self._values[np.where(has, start + one, 0)], 0)]
            return shared
        if self.num_values > _MOST_BITS:
            return self._shared_by_value(item_index, others)
        for word in self.bits.T:  # an axis of a few words is slow to sum over
            shared += np.bitwise_count(word[others] & word[item_index][:, None])
        return shared

    def _shared_by_value(self, item_index: np.ndarray, others: np.ndarray) -> np.ndarray:
        """`shared` where sets of bits would be too wide: equal (row, value) pairs are counted."""
        shared = np.zeros((item_index.size, others.shape[1]), dtype=np.int16)
        row, value = self.pairs(item_index)
        own = np.unique(row * (self.num_values + 1) + value)
        for place, other in enumerate(others.T):
            row, value = self.pairs(np.broadcast_to(other, item_index.shape))
            met = np.unique(row * (self.num_values + 1) + value)
            both = np.intersect1d(own, met, assume_unique=True) // (self.num_values + 1)
            shared[:, place] = np.bincount(both, minlength=item_index.size)
        return shared

    @property
    def width(self) -> int:
        """Words of 64 bits that a set of values takes."""
        return max(1, -(-self.num_values // _BITS))

    @cached_property
    def _few_each(self) -> bool:
        """To look up an item's values one by one is less than to compare sets, and the same."""
        most = int(self.all_sizes.max(initial=0))
        if most > self.width:
            return False
        item = np.repeat(np.arange(self.all_sizes.size), self.all_sizes)
        pairs = item * (self.num_values + 1) + self._values
        return np.unique(pairs).size == pairs.size  # no item repeats a value

    @cached_property
    def bits(self) -> np.ndarray:
        """[N + 1, W] uint64 bit sets, bit v - 1 for value v; for a few thousand values."""
        bits = np.zeros((self._indptr.size - 1, self.width), dtype=np.uint64)
        item = np.repeat(np.arange(bits.shape[0]), np.diff(self._indptr))
        word, bit = np.divmod(self._values - 1, _BITS)
        np.bitwise_or.at(bits, (item, word), np.left_shift(np.uint64(1), bit.astype(np.uint64)))
        return bits
