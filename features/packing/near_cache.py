"""Packed rows kept in the process, so that hot items cost no round trip.

The values of a generation never change, so a row that was read once is right for as long as its
generation is served; there is nothing to refresh. Rows lie side by side in one array:

    ids -> slot:      one dictionary look-up an id
    slots -> rows:    one gather for all ids
    rows -> columns:  as `PackedSchema.block`
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import repeat
from typing import NamedTuple

import numpy as np

from features.errors import DataError
from features.packing.reader import PackedReader
from features.packing.schema import FeatureBlock, PackedSchema

__all__ = ["NearCache", "NearCacheStats"]

_ENTRY_BYTES = 160  # dictionary entry (also while it grows), slot of the id, two flags
_SWEEP = 1024

Fetch = Callable[[Sequence[str]], Sequence[bytes | None]]


class NearCacheStats(NamedTuple):
    """What a cache did since it was made, and what it holds.

    Attributes:
        hits: ids answered from memory, remembered absences included.
        misses: ids that were fetched.
        evicted: rows taken out to make room, those of dropped generations included.
        rows: rows held now, absences included.
        bytes: what they take, with their ids and the look-up; never above the bound.
    """

    hits: int
    misses: int
    evicted: int
    rows: int
    bytes: int


class NearCache:
    """Packed rows by (generation, item), bounded in bytes; may be shared by threads.

    An item without a row is remembered as absent. When room is needed, generations other than the
    one being read go first, as a whole, the longest unread one first; then rows of the generation
    itself by second chance (CLOCK): a hand goes round the slots, passes over a row that was read
    since it came by last, and takes out the first that was not. That keeps what is hot nearly as
    well as least-recently-used does, and a hit costs one bit instead of a move in a list. A row
    that is read once and never again goes at the hand's first visit.

    Args:
        max_bytes: bound of rows, ids and look-up together.
        generations: how many are held at once: with 2, a rollback finds the cache warm.

    Raises:
        DataError: max_bytes or generations is below 1.
    """

    def __init__(self, max_bytes: int, *, generations: int = 2) -> None:
        for name, value in (("max_bytes", max_bytes), ("generations", generations)):
            if value < 1:
                raise DataError(f"{name} must be >= 1, got {value}; leave the cache out instead")
        self.max_bytes = max_bytes
        self._generations = generations
        self._segments: OrderedDict[tuple[str, int], _Segment] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._evicted = 0

    def get_many(
        self,
        generation: str,
        ids: Sequence[str],
        fetch: Fetch,
        *,
        schema: PackedSchema | PackedReader,
        fields: Sequence[str] | None = None,
        moment: datetime | None = None,
    ) -> FeatureBlock:
        """Feature values of the items, in the order asked.

        The lock is not held while rows are fetched, so two threads that miss the same item at the
        same time both fetch it.

        Args:
            generation: whose values; they must never change.
            ids: C item ids; an id may come twice.
            fetch: (different ids that are not held) -> their packed rows, None where there is
                none. Called once at most.
            schema: what the rows are packed with.
            fields: names of the fields to read. None: all.
            moment: UTC time without zone that ages are taken at. None: the clock.

        Raises:
            DataError: a fetched row is of another schema or damaged (then nothing of the answer
                is kept), fetch returned another number of rows, or there is no such field.
        """
        newest = schema.schema if isinstance(schema, PackedReader) else schema
        key = (generation, newest.schema_id)
        with self._lock:
            segment = self._segment(key, newest.row_bytes)
            slots = segment.find(ids)
            missing = np.flatnonzero(slots < 0)
            rows, present = segment.rows[slots], segment.present[slots]
            segment.read[slots] = True
            self._hits += len(ids) - missing.size
            self._misses += missing.size
        if missing.size:
            wanted = list(dict.fromkeys(ids[place] for place in missing.tolist()))
            blobs = fetch(wanted)
            if len(blobs) != len(wanted):
                raise DataError(
                    f"fetch must return one row per id: got {len(blobs)} rows for {len(wanted)} ids"
                )
            found, there = schema.to_rows(blobs)
            with self._lock:
                self._keep(key, wanted, found, there)
            at = {item_id: place for place, item_id in enumerate(wanted)}
            places = [at[ids[place]] for place in missing.tolist()]
            rows[missing], present[missing] = found[places], there[places]
        return newest.block(rows, present, fields=fields, moment=moment)

    def drop(self, generation: str) -> None:
        """Forget all rows of a generation."""
        with self._lock:
            for key in [key for key in self._segments if key[0] == generation]:
                self._evicted += len(self._segments.pop(key).slot_of)

    def stats(self) -> NearCacheStats:
        """Counters, as of now."""
        with self._lock:
            return NearCacheStats(
                self._hits,
                self._misses,
                self._evicted,
                sum(len(segment.slot_of) for segment in self._segments.values()),
                self._bytes(),
            )

    # -- inside, with the lock held -------------------------------------------------------------

    def _segment(self, key: tuple[str, int], row_bytes: int) -> _Segment:
        segment = self._segments.get(key)
        if segment is None:
            segment = _Segment(self.max_bytes, row_bytes)
            self._segments[key] = segment
            while len(self._segments) > self._generations:
                self._drop_oldest()
        self._segments.move_to_end(key)
        return segment

    def _keep(
        self, key: tuple[str, int], ids: list[str], rows: np.ndarray, present: np.ndarray
    ) -> None:
        segment = self._segment(key, rows.shape[1])
        new, cost = [], 0
        for place, item_id in enumerate(ids):
            size = segment.cost(item_id)
            if item_id not in segment.slot_of and cost + size <= self.max_bytes:
                new.append(place)
                cost += size
        while self._bytes() + cost > self.max_bytes and len(self._segments) > 1:
            self._drop_oldest()
        self._evicted += segment.make_room(self._bytes() + cost - self.max_bytes)
        segment.add([ids[place] for place in new], rows[new], present[new])

    def _drop_oldest(self) -> None:
        _, segment = self._segments.popitem(last=False)
        self._evicted += len(segment.slot_of)

    def _bytes(self) -> int:
        return sum(segment.num_bytes for segment in self._segments.values())


class _Segment:
    """The rows of one generation.

    Its arrays are as long as the bound allows; memory is taken only for slots once used. The last
    slot, -1, is never given to an item: it is what an unknown id reads, an absent row of zeros.
    """

    def __init__(self, max_bytes: int, row_bytes: int) -> None:
        self._fixed = row_bytes + _ENTRY_BYTES
        capacity = max_bytes // (self._fixed + sys.getsizeof("")) + 1
        self.rows = np.zeros((capacity, row_bytes), dtype=np.uint8)
        self.present = np.zeros(capacity, dtype=bool)
        self.read = np.zeros(capacity, dtype=bool)
        self.slot_of: dict[str, int] = {}
        self.num_bytes = 0
        self._ids: list[str | None] = []
        self._free: list[int] = []
        self._hand = 0

    def cost(self, item_id: str) -> int:
        """Bytes of an entry."""
        return self._fixed + sys.getsizeof(item_id)

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """[C] int64 slots, -1 where there is none."""
        return np.fromiter(map(self.slot_of.get, ids, repeat(-1)), np.int64, len(ids))

    def add(self, ids: list[str], rows: np.ndarray, present: np.ndarray) -> None:
        """Put in ids that are not there; there must be room."""
        fresh = max(0, len(ids) - len(self._free))
        slots = [self._free.pop() for _ in range(len(ids) - fresh)]
        slots += range(len(self._ids), len(self._ids) + fresh)
        self._ids += [None] * fresh
        for slot, item_id in zip(slots, ids, strict=True):
            self._ids[slot] = item_id
            self.num_bytes += self.cost(item_id)
        self.slot_of.update(zip(ids, slots, strict=True))
        self.rows[slots] = rows
        self.present[slots] = present
        self.read[slots] = False

    def make_room(self, num_bytes: int) -> int:
        """Take out rows of so many bytes; how many rows that were."""
        goal, before = self.num_bytes - num_bytes, len(self.slot_of)
        while self.num_bytes > goal and self.slot_of:
            start = self._hand
            stop = min(start + _SWEEP, len(self._ids))
            for slot in (np.flatnonzero(~self.read[start:stop]) + start).tolist():
                self._take_out(slot)
                if self.num_bytes <= goal:
                    stop = slot + 1
                    break
            self.read[start:stop] = False
            self._hand = stop % len(self._ids)
        return before - len(self.slot_of)

    def _take_out(self, slot: int) -> None:
        item_id = self._ids[slot]
        if item_id is not None:
            del self.slot_of[item_id]
            self._ids[slot] = None
            self._free.append(slot)
            self.num_bytes -= self.cost(item_id)
