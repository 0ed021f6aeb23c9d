"""What each user did want: the items, and the join of a result list to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from features.tables import Histories
from recsys.topk import TopK

__all__ = ["Judged", "Truth", "judge"]


@dataclass(frozen=True)
class Truth:
    """The relevant items of Q users in compressed rows: row q is ``[indptr[q]:indptr[q + 1]]``.

    Make one with `from_histories`, `from_rows` or `from_lists`; they merge repeated items of a
    row into one of the largest grade, and drop items of grade 0, which are not relevant.

    Attributes:
        indptr: [Q + 1] int64, from 0 to E.
        item_index: [E] int64 >= 1, rising within a row.
        grade: [E] float64 > 0; 1 where relevance has no grades.
    """

    indptr: np.ndarray
    item_index: np.ndarray
    grade: np.ndarray

    @classmethod
    def from_rows(
        cls, indptr: np.ndarray, item_index: np.ndarray, grade: np.ndarray | None = None
    ) -> Self:
        """From compressed rows in any order within a row.

        Args:
            indptr: [Q + 1] integers, from 0 to E.
            item_index: [E] integers >= 1.
            grade: [E] >= 0. None: every item has grade 1.

        Raises:
            ValueError: an array has a wrong shape, or an index or grade is out of range.
        """
        indptr = np.asarray(indptr, dtype=np.int64)
        item_index = np.asarray(item_index, dtype=np.int64)
        size = item_index.size
        grade = np.ones(size) if grade is None else np.asarray(grade, dtype=np.float64)
        if item_index.ndim != 1 or grade.shape != item_index.shape:
            raise ValueError(
                f"item_index and grade must be flat and of one length, got {item_index.shape} "
                f"and {grade.shape}"
            )
        rises = indptr.ndim == 1 and indptr.size > 0 and bool((np.diff(indptr) >= 0).all())
        if not rises or indptr[0] != 0 or indptr[-1] != size:
            raise ValueError(f"indptr must rise from 0 to the number of items {size}")
        if size and int(item_index.min()) < 1:
            raise ValueError(
                f"item_index of the truth must be >= 1, got {int(item_index.min())}; an item the "
                "vocabulary does not know cannot be judged, drop it"
            )
        if not (np.isfinite(grade) & (grade >= 0)).all():
            raise ValueError("grade must be finite and >= 0; 0 means not relevant")
        num_rows = indptr.size - 1
        row = np.repeat(np.arange(num_rows, dtype=np.int64), np.diff(indptr))
        order = np.lexsort((-grade, item_index, row))  # the largest grade of an item comes first
        row, item_index, grade = row[order], item_index[order], grade[order]
        first = np.ones(size, dtype=bool)
        first[1:] = (np.diff(row) != 0) | (np.diff(item_index) != 0)
        kept = first & (grade > 0)
        return cls(_pointers(row[kept], num_rows), item_index[kept], grade[kept])

    @classmethod
    def from_histories(
        cls, histories: Histories, *, grades: Literal["one", "weight"] = "one"
    ) -> Self:
        """The events of each row as its relevant items.

        Args:
            histories: one row per user, usually of the test part of a split.
            grades: "one": every item met is equally relevant; "weight": by the largest weight of
                its events, and events of weight 0 do not count.

        Raises:
            ValueError: ``grades`` is something else.
        """
        if grades not in ("one", "weight"):
            raise ValueError(f"grades must be 'one' or 'weight', got {grades!r}")
        grade = None if grades == "one" else histories.weight
        return cls.from_rows(histories.indptr, histories.item_index, grade)

    @classmethod
    def from_lists(cls, items: Sequence[Sequence[int]]) -> Self:
        """From one list of relevant item indices per user."""
        counts = np.array([len(row) for row in items], dtype=np.int64)
        flat = np.array([item for row in items for item in row], dtype=np.int64)
        return cls.from_rows(np.concatenate([[0], np.cumsum(counts)]), flat)

    def __len__(self) -> int:
        return self.indptr.size - 1

    @property
    def counts(self) -> np.ndarray:
        """[Q] int64 number of relevant items."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> np.ndarray:
        """[E] int64 row of each item."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    def only(
        self,
        *,
        items: np.ndarray | None = None,
        users: np.ndarray | None = None,
        relevant: np.ndarray | None = None,
    ) -> Truth:
        """The same Q rows with the other items, or everything of the other users, left out.

        Args:
            items: [N + 1] bool, True = stays. None: all.
            users: [Q] bool, True = stays. None: all.
            relevant: [E] bool of the relevant items, True = stays. None: all.

        Raises:
            ValueError: a mask has a wrong shape.
        """
        kept = np.ones(self.item_index.size, dtype=bool)
        if items is not None:
            largest = int(self.item_index.max(initial=0))
            if items.ndim != 1 or items.size <= largest:
                raise ValueError(
                    f"items must be a flat mask over at least {largest + 1} rows, got shape "
                    f"{items.shape}"
                )
            kept &= items[self.item_index]
        if users is not None:
            if users.shape != (len(self),):
                raise ValueError(
                    f"users must have one entry per row: got shape {users.shape} for {len(self)} "
                    "rows"
                )
            kept &= users[self.rows]
        if relevant is not None:
            if relevant.shape != self.item_index.shape:
                raise ValueError(
                    f"relevant must have one entry per relevant item: got shape {relevant.shape} "
                    f"for {self.item_index.size} items"
                )
            kept &= relevant
        indptr = _pointers(self.rows[kept], len(self))
        return Truth(indptr, self.item_index[kept], self.grade[kept])

    def grades_of(self, item_index: np.ndarray) -> np.ndarray:
        """[Q, K] float64 grade of each item of ``item_index`` [Q, K]; 0 where not relevant."""
        if self.item_index.size == 0 or item_index.size == 0:
            return np.zeros(item_index.shape)
        # One sorted key per (row, item) pair; rows are sorted, so the keys already are.
        width = np.int64(max(int(self.item_index.max()), int(item_index.max())) + 1)
        keys = self.rows * width + self.item_index  # [E]
        wanted = np.arange(len(self), dtype=np.int64)[:, None] * width + item_index  # [Q, K]
        at = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
        found = (keys[at] == wanted) & (item_index >= 1)
        return np.where(found, self.grade[at], 0.0)

    def best_grades(self, depth: int) -> np.ndarray:
        """[Q, depth] float64 grades of each row, largest first, 0 after the last."""
        order = np.lexsort((-self.grade, self.rows))
        place = np.arange(order.size) - np.repeat(self.indptr[:-1], self.counts)
        best = np.zeros((len(self), depth))
        kept = place < depth
        best[self.rows[kept], place[kept]] = self.grade[order][kept]
        return best


@dataclass(frozen=True)
class Judged:
    """Result lists joined to the truth; only users with at least one relevant item are in it.

    Attributes:
        row: [U] int64 row each user had among the Q judged.
        grade: [U, K] float64 grade of the item at each place, 0 where it is not relevant or
            nothing was returned.
        ideal: [U, K] float64 grades of the relevant items, largest first, then 0.
        num_relevant: [U] int64 >= 1.
        left_out: Q - U, the users without a relevant item.
    """

    row: np.ndarray
    grade: np.ndarray
    ideal: np.ndarray
    num_relevant: np.ndarray
    left_out: int


def judge(results: TopK | np.ndarray, truth: Truth) -> Judged:
    """Join result lists to what is relevant.

    Args:
        results: lists of Q users, or their [Q, K] item indices; best first, -1 = nothing.
        truth: Q rows.

    Raises:
        ValueError: another number of rows, an index that is neither -1 nor >= 1, or an item
            twice in one list.
    """
    item_index = np.asarray(results.item_index if isinstance(results, TopK) else results)
    check_lists(item_index)
    if item_index.shape[0] != len(truth):
        raise ValueError(
            f"results must have one row per row of the truth: got {item_index.shape[0]} for "
            f"{len(truth)}"
        )
    row = np.nonzero(truth.counts)[0].astype(np.int64)
    return Judged(
        row=row,
        grade=truth.grades_of(item_index)[row],
        ideal=truth.best_grades(item_index.shape[1])[row],
        num_relevant=truth.counts[row],
        left_out=len(truth) - row.size,
    )


def check_lists(item_index: np.ndarray) -> None:
    """Check that ``item_index`` is [Q, K] lists of distinct items, -1 = nothing.

    Raises:
        ValueError: it is not.
    """
    if item_index.ndim != 2 or not np.issubdtype(item_index.dtype, np.integer):
        raise ValueError(
            f"results must be [Q, K] integers, got {item_index.dtype} of shape {item_index.shape}"
        )
    strange = (item_index < -1) | (item_index == 0)
    if strange.any():
        at = int(np.argmax(strange.any(axis=1)))
        value = int(item_index[at][strange[at]][0])
        raise ValueError(f"results must hold item indices >= 1 or -1: row {at} holds {value}")
    in_order = np.sort(item_index, axis=1)
    twice = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 1)
    if twice.any():
        at = int(np.argmax(twice.any(axis=1)))
        item = int(in_order[at, 1:][twice[at]][0])
        raise ValueError(
            f"results must not repeat an item within a list: {int(twice.any(axis=1).sum())} rows "
            f"do, the first is row {at} with item index {item}"
        )


def _pointers(row: np.ndarray, num_rows: int) -> np.ndarray:
    counts = np.bincount(row, minlength=num_rows)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
