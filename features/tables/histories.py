"""The items each user met, oldest first, as flat arrays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import polars as pl

from features.tables.cuts import rest_of_rows
from features.tables.interactions import Interactions
from features.tables.repeats import NEVER_AGAIN, RepeatRule
from features.tables.schema import EVENT, ITEM, TIMESTAMP, USER, WEIGHT
from features.tables.vocabulary import Vocabulary

if TYPE_CHECKING:
    import scipy.sparse

__all__ = ["Histories"]


@dataclass(frozen=True)
class Histories:
    """U item histories in compressed rows: row r is ``[indptr[r]:indptr[r + 1]]``.

        indptr      0     3 3     5          row 0: items 4 1 4, row 1: nothing, row 2: items 2 7
        item_index  4 1 4   2 7
        timestamp   5 6 9   1 1              oldest first within a row

    Attributes:
        indptr: [U + 1] int64, from 0 to E.
        item_index: [E] int64, indices >= 1 of the item vocabulary.
        timestamp: [E] int64 microseconds since 1970-01-01 UTC, never falling within a row.
        weight: [E] float32.
        target: [E] bool, the events that are to be predicted; the others are history alone. None:
            all are.
        refused: U rows of what was disliked; no likes, and nothing to be shown. None: nothing was.
        hidden_until: [E] int64 microseconds, from when on the item of an event may be shown again.
            None: never.

    Raises:
        ValueError: shapes or types differ from the above, an index is < 1, or a row is not
            sorted by time.
    """

    indptr: np.ndarray
    item_index: np.ndarray
    timestamp: np.ndarray
    weight: np.ndarray
    target: np.ndarray | None = None
    refused: Histories | None = None
    hidden_until: np.ndarray | None = None

    def __post_init__(self) -> None:
        self._check_extras()
        wanted = {
            "indptr": "int64",
            "item_index": "int64",
            "timestamp": "int64",
            "weight": "float32",
        }
        for name, dtype in wanted.items():
            array = getattr(self, name)
            if array.ndim != 1 or array.dtype != dtype:
                raise ValueError(
                    f"{name} must be a one-dimensional {dtype} array, got {array.dtype} of shape "
                    f"{array.shape}"
                )
        sizes = (self.item_index.size, self.timestamp.size, self.weight.size)
        if len(set(sizes)) != 1:
            raise ValueError(f"item_index, timestamp and weight must have one length, got {sizes}")
        ends_right = self.indptr.size and self.indptr[0] == 0 and self.indptr[-1] == sizes[0]
        if not ends_right or bool((np.diff(self.indptr) < 0).any()):
            raise ValueError(
                f"indptr must rise from 0 to the number of events {sizes[0]}, got "
                f"{self.indptr[:3]}..{self.indptr[-1:]}"
            )
        if sizes[0] and int(self.item_index.min()) < 1:
            raise ValueError(
                f"item_index must be >= 1, got {int(self.item_index.min())}; drop unknown items"
            )
        back = np.diff(self.timestamp) < 0
        within = np.ones(back.size + 1, dtype=bool)
        within[self.indptr[1:-1][self.indptr[1:-1] <= back.size]] = False
        if bool((back & within[1:]).any()):
            raise ValueError("timestamp must not fall within a row; sort each history by time")

    @classmethod
    def from_interactions(
        cls,
        interactions: Interactions,
        user_ids: Sequence[str],
        items: Vocabulary,
        *,
        targets: Collection[str] = (),
        repeats: RepeatRule = NEVER_AGAIN,
    ) -> Self:
        """Histories of ``user_ids``, one row each and in their order.

        A user without events gets an empty row, a user named twice two equal rows. Events of items
        the vocabulary does not hold are dropped. Events at the same time keep the order of
        ``interactions``.

        Args:
            interactions: the log.
            user_ids: whose.
            items: what indices mean.
            targets: kinds of events that are to be predicted. Empty: all.
            repeats: for how long events hide their item.
        """
        rows = pl.DataFrame({USER: pl.Series(user_ids, dtype=pl.String)}).with_row_index("row")
        made = cls._of_frame(interactions.frame, rows, items, targets, repeats)
        if interactions.dislikes is None:
            return made
        return replace(made, refused=cls._of_frame(interactions.dislikes, rows, items))

    @classmethod
    def _of_frame(
        cls,
        frame: pl.DataFrame,
        rows: pl.DataFrame,
        items: Vocabulary,
        targets: Collection[str] = (),
        repeats: RepeatRule = NEVER_AGAIN,
    ) -> Self:
        index = items.index(frame[ITEM])
        users = frame.select(USER).with_row_index("event").filter(pl.Series(index > 0))
        placed = users.join(rows, on=USER).select("row", "event").sort("row", "event")
        event = placed["event"].to_numpy()
        counts = np.bincount(placed["row"].to_numpy(), minlength=rows.height)
        timestamp = frame[TIMESTAMP].to_physical().to_numpy()[event].astype(np.int64)
        return cls(
            indptr=_pointers(counts),
            item_index=index[event].astype(np.int64),
            timestamp=timestamp,
            weight=frame[WEIGHT].to_numpy()[event].astype(np.float32),
            target=(frame[EVENT].is_in(list(targets)).to_numpy()[event] if targets else None),
            hidden_until=repeats.hidden_until(timestamp, frame[EVENT].gather(event)),
        )

    def __len__(self) -> int:
        return self.indptr.size - 1

    @property
    def counts(self) -> np.ndarray:
        """[U] int64 number of events of each row."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> np.ndarray:
        """[E] int64 row of each event."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    def take(self, rows: np.ndarray | Sequence[int]) -> Histories:
        """The rows ``rows`` ([n] integers, repeats allowed) in that order.

        Raises:
            IndexError: a row is outside 0..U-1.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and (int(wanted.min()) < 0 or int(wanted.max()) >= len(self)):
            raise IndexError(
                f"rows must be 0..{len(self) - 1}, got {int(wanted.min())}..{int(wanted.max())}"
            )
        counts = self.counts[wanted]
        indptr = _pointers(counts)
        within = np.arange(indptr[-1], dtype=np.int64) - np.repeat(indptr[:-1], counts)
        taken = self._pick(np.repeat(self.indptr[wanted], counts) + within, indptr)
        return taken._refusing(None if self.refused is None else self.refused.take(wanted))

    def targets(self) -> Histories:
        """The events that are to be predicted, and nothing that was disliked."""
        if self.target is None:
            return replace(self, refused=None)
        return replace(self._keep(self.target), target=None, refused=None)

    def within(self, num_items: int) -> Histories:
        """The same rows without items above ``num_items``."""
        kept = self._keep(self.item_index <= num_items)
        return kept._refusing(None if self.refused is None else self.refused.within(num_items))

    def before(self, moment_us: np.ndarray) -> Histories:
        """The events of each row strictly before that row's moment.

        Args:
            moment_us: [U] int64 microseconds since 1970-01-01 UTC.

        Raises:
            ValueError: ``moment_us`` has not one entry per row.
        """
        moment_us = np.asarray(moment_us)
        if moment_us.shape != (len(self),):
            raise ValueError(
                f"moment_us must have one entry per row: got shape {moment_us.shape} for "
                f"{len(self)} rows"
            )
        kept = self.timestamp < np.repeat(moment_us, self.counts)
        past = self if bool(kept.all()) else self._keep(kept)
        return past._refusing(None if self.refused is None else self.refused.before(moment_us))

    def last(self, n: int) -> Histories:
        """The newest ``n`` events of each row; n >= 0.

        Raises:
            ValueError: n < 0.
        """
        if n < 0:
            raise ValueError(f"n must be >= 0, got {n}")
        return self._keep(self._from_end() <= n)

    def head_fraction(
        self, fraction: float, *, number: np.ndarray | None = None
    ) -> tuple[Histories, Histories]:
        """Each row's first floor(fraction * n) events, and the rest.

        No moment is divided; see `features.tables.cuts.rest_of_rows`. What was disliked before the
        rest begins belongs to the head.

        Args:
            fraction: share of the events.
            number: [U] uint64 that rows are drawn by. None: their places.

        Raises:
            ValueError: ``fraction`` is outside 0..1.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"fraction must be 0..1, got {fraction}")
        cut = np.floor(fraction * self.counts).astype(np.int64)
        number = np.arange(len(self), dtype=np.uint64) if number is None else number
        return self._parted(rest_of_rows(self.rows, self.timestamp, cut, number))

    def at_moment(self, moment_us: int) -> tuple[Histories, Histories]:
        """The events of each row strictly before a moment, and the rest."""
        return self._parted(self.timestamp >= moment_us, moment_us)

    def _parted(
        self, late: np.ndarray, moment_us: int | None = None
    ) -> tuple[Histories, Histories]:
        head, rest = self._keep(~late), self._keep(late)
        if self.refused is None:
            return head, rest
        if moment_us is None:  # the moment of each row at which its rest begins
            begins = np.full(len(self), np.iinfo(np.int64).max)
            begins[rest.counts > 0] = rest.timestamp[rest.indptr[:-1][rest.counts > 0]]
        else:
            begins = np.full(len(self), moment_us)
        refused = self.refused
        early = refused.timestamp < np.repeat(begins, refused.counts)
        return head._refusing(refused._keep(early)), rest._refusing(refused._keep(~early))

    def padded(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The newest ``length`` events of each row as two rectangles, padded on the left with 0.

        Returns:
            item_index [U, T] int64 and timestamp [U, T] int64, the newest event in the last
            column.

        Raises:
            ValueError: length < 1.
        """
        if length < 1:
            raise ValueError(f"length must be >= 1, got {length}")
        newest = self.last(length)
        column = length - newest._from_end()
        item_index = np.zeros((len(self), length), dtype=np.int64)
        timestamp = np.zeros((len(self), length), dtype=np.int64)
        item_index[newest.rows, column] = newest.item_index
        timestamp[newest.rows, column] = newest.timestamp
        return item_index, timestamp

    def to_csr(
        self, num_items: int, weights: Literal["one", "weight"] | np.ndarray = "one"
    ) -> scipy.sparse.csr_array:
        """Users x items matrix; column = item index, column 0 is empty.

        Args:
            num_items: N, so that the matrix has N + 1 columns.
            weights: "one": 1 where the user met the item, however often; "weight": the sum of
                the events' weights; an array [E]: its sum over the events of a cell.

        Returns:
            [U, N + 1] float32 with sorted column indices and no duplicates.

        Raises:
            ValueError: an item index exceeds ``num_items``, or ``weights`` is something else.
        """
        from scipy.sparse import csr_array

        self.check_width(num_items)
        if isinstance(weights, str):
            if weights not in ("one", "weight"):
                raise ValueError(f"weights must be 'one', 'weight' or an array, got {weights!r}")
            values = self.weight if weights == "weight" else np.ones_like(self.weight)
        else:
            values = np.asarray(weights, dtype=np.float32)
            if values.shape != self.item_index.shape:
                raise ValueError(
                    f"weights must have one entry per event: got shape {values.shape} for "
                    f"{self.item_index.size} events"
                )
        matrix = csr_array(
            (values.copy(), self.item_index.copy(), self.indptr.copy()),
            shape=(len(self), num_items + 1),
        )
        matrix.sum_duplicates()
        if isinstance(weights, str) and weights == "one":
            matrix.data[:] = 1.0
        return matrix

    def seen_mask(self, num_items: int) -> np.ndarray:
        """[U, N + 1] bool, True where the user met the item, liked or disliked.

        Raises:
            ValueError: an item index exceeds ``num_items``.
        """
        return self._mask(num_items, slice(None))

    def hidden_mask(self, num_items: int, moment_us: np.ndarray | None = None) -> np.ndarray:
        """[U, N + 1] bool, True where the item must not be shown at the moment.

        What was disliked, and what was met and may not be shown again yet.

        Args:
            num_items: N.
            moment_us: [U] int64 microseconds. None: just after each row's newest event.

        Raises:
            ValueError: an item index exceeds ``num_items``.
        """
        if self.hidden_until is None:
            return self.seen_mask(num_items)
        if moment_us is None:
            moment_us = np.zeros(len(self), dtype=np.int64)
            known = self.counts > 0
            moment_us[known] = self.timestamp[self.indptr[1:][known] - 1] + 1
        held = self.hidden_until > np.repeat(moment_us, self.counts)
        return self._mask(num_items, held)

    def _mask(self, num_items: int, events: np.ndarray | slice) -> np.ndarray:
        """[U, N + 1] bool, True for the items of some events and for what was disliked."""
        self.check_width(num_items)
        mask = np.zeros((len(self), num_items + 1), dtype=bool)
        mask[self.rows[events], self.item_index[events]] = True
        if self.refused is not None:
            mask |= self.refused.seen_mask(num_items)
        return mask

    def check_width(self, num_items: int) -> None:
        """Refuse items beyond a catalogue.

        Raises:
            ValueError: an item index exceeds ``num_items``.
        """
        if self.item_index.size and int(self.item_index.max()) > num_items:
            raise ValueError(
                f"num_items must be at least the largest item index "
                f"{int(self.item_index.max())}, got {num_items}"
            )

    def _from_end(self) -> np.ndarray:
        """[E] int64: 1 for the newest event of its row, 2 for the one before, ..."""
        return np.repeat(self.indptr[1:], self.counts) - np.arange(self.item_index.size)

    def _keep(self, mask: np.ndarray) -> Histories:
        kept_before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(mask)])
        kept = self._pick(np.nonzero(mask)[0], kept_before[self.indptr].astype(np.int64))
        return kept._refusing(self.refused)

    def _pick(self, events: np.ndarray, indptr: np.ndarray) -> Histories:
        return Histories(
            indptr,
            self.item_index[events],
            self.timestamp[events],
            self.weight[events],
            None if self.target is None else self.target[events],
            hidden_until=None if self.hidden_until is None else self.hidden_until[events],
        )

    def _refusing(self, refused: Histories | None) -> Histories:
        return self if refused is self.refused else replace(self, refused=refused)

    def _check_extras(self) -> None:
        for name, dtype in (("target", np.bool_), ("hidden_until", np.int64)):
            array = getattr(self, name)
            if array is not None and (array.dtype, array.shape) != (dtype, self.item_index.shape):
                raise ValueError(
                    f"{name} must be one {np.dtype(dtype)} an event, got {array.dtype} of shape "
                    f"{array.shape}"
                )
        if self.refused is not None and len(self.refused) != len(self):
            raise ValueError(
                f"refused must have {len(self)} rows as the history, got {len(self.refused)}"
            )


def _pointers(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
