"""The log of a run in one file, user by user, for processes that look up one user at a time.

The file is mapped, not read: processes on one machine share its pages, and opening it takes no
memory of its own.

```
magic, version, sizes, checksums        fixed size
header                                  JSON: kinds of events, mean weight, arrays and their places
user_offsets     int64  [U + 1]         events of user u are user_offsets[u]:user_offsets[u + 1]
user_ends        int64  [U]             where the id of user u ends in user_ids
user_ids         utf-8                  ids one after another, in byte order
item_ends, item_ids                     the same of the vocabulary, then of items outside it
item_index       int32  [E]             0: outside the vocabulary
timestamp_us     int64  [E]             never falling within a user
weight           float32 [E]            below 0: a dislike
kind             uint16 [E]             place in the header's list of kinds
created_us       int64  [E] or [0]      when each arrived, where the log knows
outside_event    int64  [X]             events of items outside the vocabulary, rising
outside_item     int64  [X]             the place of each in item_ids
```

All numbers are little-endian, every array begins at a multiple of 64 bytes.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from bisect import bisect_left
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl

from features.moments import microseconds
from features.tables import CREATED, EVENT, ITEM, TIMESTAMP, USER, WEIGHT, Interactions, Vocabulary
from features.whole_files import whole_file
from recsys.errors import ArtifactError
from recsys.files.writing import sync_directory

__all__ = ["USER_EVENTS", "UserEvents", "UserPast"]

USER_EVENTS = "user_events.bin"

_MAGIC = b"recsysUE"
_VERSION = 1
_HEAD = struct.Struct("<8sIIQII")  # magic, version, bytes of header, of body, crc of each
_ALIGNMENT = 64
_MAX_KINDS = 65_536
_AT_ONCE = 1 << 22


class UserPast(NamedTuple):
    """What one user did, oldest first; E events.

    Attributes:
        item_index: [E] int32, 0 for an item outside the vocabulary.
        timestamp_us: [E] int64 microseconds since 1970-01-01 UTC, never falling.
        weight: [E] float32, below 0 for a dislike.
        kind: [E] uint16, places in `UserEvents.event_names`.
    """

    item_index: np.ndarray
    timestamp_us: np.ndarray
    weight: np.ndarray
    kind: np.ndarray


class UserEvents:
    """The log by user, mapped from a file; safe to share between threads.

    Attributes:
        num_users: U.
        event_names: kinds of events.
        mean_weight: of all likes; 1 where there are none.
        vocabulary_sha256: of the item vocabulary that the indices belong to.
    """

    def __init__(self, header: Mapping[str, Any], body: memoryview) -> None:
        """Use `open`; this trusts what it is given."""
        arrays = {
            name: np.frombuffer(body, dtype=dtype, count=count, offset=offset)
            for name, (dtype, count, offset) in header["arrays"].items()
        }
        self.event_names: tuple[str, ...] = tuple(header["event_names"])
        self.mean_weight = float(header["mean_weight"])
        self.vocabulary_sha256 = str(header["vocabulary_sha256"])
        self.num_users = arrays["user_ends"].size
        self._arrays = arrays
        self._past = UserPast(*(arrays[name] for name in UserPast._fields))
        self._created = arrays["created_us"] if arrays["created_us"].size else None
        self._users = _Texts(arrays["user_ids"], arrays["user_ends"])
        self._items = _Texts(arrays["item_ids"], arrays["item_ends"])
        self._kinds = pl.Series(EVENT, self.event_names, dtype=pl.String)

    @staticmethod
    def write(path: Path, interactions: Interactions, items: Vocabulary) -> None:
        """Write the log; the file has its name once it is whole.

        Args:
            path: replaced if there; who has the old file open keeps it.
            interactions: the log.
            items: what item indices mean.

        Raises:
            ValueError: more kinds of events than a file can name.
        """
        header, arrays = _layout(interactions, items)
        with whole_file(path) as draft, draft.open("wb") as file:
            text = json.dumps(header, ensure_ascii=False).encode()
            file.write(bytes(_HEAD.size) + text)
            file.write(bytes(_aligned(file.tell()) - file.tell()))
            body_crc = size = 0
            for name, (_, _, offset) in header["arrays"].items():
                for data in (bytes(offset - size), arrays[name].data):
                    body_crc = zlib.crc32(data, body_crc)
                    size += file.write(data)
            file.seek(0)
            file.write(_head(text, size, body_crc))
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Self:
        """Map a file that `write` wrote.

        Args:
            path: the file.
            verify: read it once and compare its checksum. Where many processes open one file, one
                of them is enough.

        Raises:
            ArtifactError: no such file, of another version, cut short or damaged.
        """
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < _HEAD.size:
                    raise _damaged(path, f"it has {size} bytes")
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ArtifactError(
                f"cannot read {path}: {error.strerror}; make it with `recsys candidates`"
            ) from error
        magic, version, header_size, body_size, header_crc, body_crc = _HEAD.unpack_from(mapped)
        if magic != _MAGIC:
            raise _damaged(path, "it does not begin as a file of user events does")
        if version != _VERSION:
            raise ArtifactError(
                f"{path} has version {version}, this version reads {_VERSION}; run "
                "`recsys candidates` again"
            )
        content = memoryview(mapped)
        text = content[_HEAD.size : _HEAD.size + header_size]
        begin = _aligned(_HEAD.size + header_size)
        if size != begin + body_size:
            raise _damaged(path, f"it must have {begin + body_size} bytes, got {size}")
        if zlib.crc32(text, zlib.crc32(content[: _HEAD.size - 8])) != header_crc:
            raise _damaged(path, "its header has another checksum than recorded")
        body = content[begin:]
        if verify and _crc(body) != body_crc:
            raise _damaged(path, "its content has another checksum than recorded")
        return cls(json.loads(bytes(text)), body)

    def __len__(self) -> int:
        return self._past.timestamp_us.size

    def of(self, user_id: str, *, before: int | None = None) -> UserPast:
        """What one user did; nothing for an unknown one.

        Args:
            user_id: whose.
            before: microseconds since 1970-01-01 UTC; only what had arrived strictly before it.
                None: everything.

        Returns:
            Views of the file; a copy only where events are left out that arrived late.
        """
        rows = self._rows(user_id, before)
        return UserPast(*(column[rows] for column in self._past))

    def details(
        self, user_id: str, *, before: int | None = None
    ) -> tuple[UserPast, np.ndarray, np.ndarray]:
        """What `of` gives, and what it leaves out of items and arrivals.

        Returns:
            The events; [E] int64 numbers >= 1 of items outside the vocabulary, 0 for others; [E]
            int64 microseconds at which they arrived.
        """
        rows = self._rows(user_id, before)
        past = UserPast(*(column[rows] for column in self._past))
        arrived = past.timestamp_us if self._created is None else self._created[rows]
        outside = np.zeros(past.item_index.size, dtype=np.int64)
        unknown = np.flatnonzero(past.item_index == 0)
        if unknown.size:
            number = unknown + rows.start if isinstance(rows, slice) else rows[unknown]
            at = np.searchsorted(self._arrays["outside_event"], number)
            outside[unknown] = self._arrays["outside_item"][at] + 1
        return past, outside, arrived

    def interactions(self, user_id: str, before: datetime | None = None) -> Interactions:
        """The same as a log: what `Interactions.filter_users` and ``before`` leave of it.

        Args:
            user_id: whose.
            before: UTC, no zone; only what had arrived strictly before it. None: everything.
        """
        rows = self._rows(user_id, None if before is None else microseconds(before))
        past = UserPast(*(column[rows] for column in self._past))
        place = past.item_index.astype(np.int64) - 1
        for event in np.flatnonzero(place < 0):
            number = rows.start + event if isinstance(rows, slice) else rows[event]
            at = np.searchsorted(self._arrays["outside_event"], number)
            place[event] = self._arrays["outside_item"][at]
        columns = {
            USER: pl.Series([user_id] * place.size, dtype=pl.String),
            ITEM: pl.Series(self._items.take(place), dtype=pl.String),
            TIMESTAMP: pl.Series(past.timestamp_us).cast(pl.Datetime("us")),
            EVENT: self._kinds.gather(past.kind),
            WEIGHT: pl.Series(past.weight),
        }
        if self._created is not None:
            columns[CREATED] = pl.Series(self._created[rows]).cast(pl.Datetime("us"))
        return Interactions.of_whole(pl.DataFrame(columns))

    def _rows(self, user_id: str, before: int | None) -> slice | np.ndarray:
        """Where the user's events are."""
        user = self._users.find(user_id)
        if user is None:
            return slice(0, 0)
        start, end = self._arrays["user_offsets"][user : user + 2].tolist()
        if before is None:
            return slice(start, end)
        if self._created is None:
            times = self._past.timestamp_us[start:end]
            return slice(start, start + int(times.searchsorted(before)))
        seen: np.ndarray = start + np.flatnonzero(self._created[start:end] < before)
        if seen.size == 0 or seen[-1] - seen[0] + 1 == seen.size:  # nothing left out in between
            first = int(seen[0]) if seen.size else start
            return slice(first, first + seen.size)
        return seen


class _Texts:
    """Texts one after another in a mapped file, found by place or, where sorted, by content."""

    def __init__(self, content: np.ndarray, ends: np.ndarray) -> None:
        # Single entries of a memoryview cost a third of an array's.
        self._content = content.data
        self._ends = ends.data

    def find(self, text: str) -> int | None:
        """The place of a text among sorted ones, in a few microseconds; None: it is none."""
        wanted = text.encode("utf-8", "surrogatepass")
        place = bisect_left(range(len(self._ends)), wanted, key=self._bytes)
        return place if place < len(self._ends) and self._bytes(place) == wanted else None

    def take(self, places: np.ndarray) -> list[str]:
        """The texts at some places."""
        return [self._bytes(place).decode() for place in places.tolist()]

    def _bytes(self, place: int) -> bytes:
        start = self._ends[place - 1] if place else 0
        return bytes(self._content[start : self._ends[place]])


def _layout(
    interactions: Interactions, items: Vocabulary
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header, and the arrays that it names."""
    frame = interactions.whole
    users, user = _numbered(frame[USER])
    kinds, kind = _numbered(frame[EVENT])
    if len(kinds) > _MAX_KINDS:
        raise ValueError(
            f"interactions must have at most {_MAX_KINDS:,} kinds of events, got {len(kinds):,}; "
            "the column of kinds holds something else"
        )
    order = np.argsort(user, kind="stable")
    index = items.index(frame[ITEM])
    outside = np.flatnonzero(index[order] == 0)
    others, other = _numbered(frame[ITEM].gather(order[outside]))
    created = frame[CREATED].to_physical().to_numpy() if CREATED in frame.columns else None
    user_ids, user_ends = _joined(users)
    item_ids, item_ends = _joined(pl.concat([items.to_series().rename(ITEM), others]))
    arrays = {
        "user_offsets": np.searchsorted(user[order], np.arange(len(users) + 1)).astype("<i8"),
        "user_ends": user_ends,
        "user_ids": user_ids,
        "item_ends": item_ends,
        "item_ids": item_ids,
        "item_index": index[order].astype("<i4"),
        "timestamp_us": frame[TIMESTAMP].to_physical().to_numpy()[order].astype("<i8"),
        "weight": frame[WEIGHT].to_numpy()[order].astype("<f4"),
        "kind": kind[order].astype("<u2"),
        "created_us": np.zeros(0, "<i8") if created is None else created[order].astype("<i8"),
        "outside_event": outside.astype("<i8"),
        "outside_item": (len(items) + other).astype("<i8"),
    }
    places: dict[str, tuple[str, int, int]] = {}
    end = 0
    for name, array in arrays.items():
        places[name] = (array.dtype.str, array.size, _aligned(end))
        end = _aligned(end) + array.nbytes
    mean: Any = interactions.frame[WEIGHT].mean()
    header = {
        "event_names": kinds.to_list(),
        "mean_weight": 1.0 if mean is None else mean,
        "vocabulary_sha256": items.sha256,
        "arrays": places,
    }
    return header, arrays


def _numbered(values: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """The different values in byte order, and the place of each value among them."""
    different = values.unique().sort()
    return different, Vocabulary(different).index(values) - 1


def _joined(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    content = "".join(texts.to_list()).encode()
    ends = texts.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
    return np.frombuffer(content, dtype=np.uint8), ends.astype("<i8")


def _head(text: bytes, body_size: int, body_crc: int) -> bytes:
    begin = _HEAD.pack(_MAGIC, _VERSION, len(text), body_size, 0, 0)[:-8]
    return begin + struct.pack("<II", zlib.crc32(text, zlib.crc32(begin)), body_crc)


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT


def _crc(body: memoryview) -> int:
    crc = 0
    for start in range(0, len(body), _AT_ONCE):
        crc = zlib.crc32(body[start : start + _AT_ONCE], crc)
    return crc


def _damaged(path: Path, how: str) -> ArtifactError:
    return ArtifactError(
        f"{path} is damaged: {how}; copy the bundle again, or run `recsys candidates`"
    )
