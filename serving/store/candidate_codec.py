"""One user's candidates as one small binary value.

```
offset    0      4        5        6      8            8+wn       8+(w+2)n
          magic  version  layout   n      item_index   score      source            crc32
          RCND   u8 = 2   u8       u16    w bytes x n  f16 x n    4 or 8 bits x n   u32
```

Little-endian. The layout's low three bits are w, the bytes of an item index: the fewest of 2, 3
and 4 that the largest index of the list needs; the next bit says that no source is above 15, so
that two share a byte, the first in the low half. 100 candidates of a catalogue below 65,536 items
take 462 bytes, below 16.8 million 562. The crc covers everything before it. Version 1, with 4
bytes an index and 8 bits a source, is still read.

Scores are rounded to half precision. Rounding is monotone, so a non-increasing list stays
non-increasing, but different scores may become equal: the order of a list is its order in the
value, never a re-sort of the decoded scores. Half precision holds magnitudes up to 65,504 with
about three digits; larger ones are refused rather than turned into infinity.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from serving.errors import CorruptValue

__all__ = ["VERSION", "CandidateList", "decode_candidates", "encode_candidates", "encoded_size"]

MAGIC = b"RCND"
VERSION = 2
_HEADER = struct.Struct("<4sBBH")
_CRC = struct.Struct("<I")
_SCORE_BYTES = 2
_INDEX_BYTES = 0b111
_HALF_SOURCES = 0b1000
_WIDE = 4  # the layout of version 1
_HALVES = (np.arange(256) & 15 | np.arange(256) >> 4 << 8).astype("<u2")
"""Both halves of a byte as two bytes, the low half first."""
_MAX_ENTRIES = 2**16 - 1
_MAX_SCORE = float(np.finfo(np.float16).max)


class CandidateList(NamedTuple):
    """Best first, no padding.

    Attributes:
        item_index: [n] int64, 1..N.
        score: [n] float32 (half-precision values), non-increasing.
        source: [n] uint8, position in the generation's ``source_names``.
    """

    item_index: np.ndarray
    score: np.ndarray
    source: np.ndarray


def encoded_size(count: int, *, num_items: int, num_sources: int = 16) -> int:
    """Bytes, at most, of a value that holds ``count`` of ``num_items`` items."""
    layout = _index_bytes(num_items) | (_HALF_SOURCES if num_sources <= 16 else 0)
    return _size(count, layout)


def encode_candidates(
    item_index: np.ndarray, score: np.ndarray, source: np.ndarray | int = 0
) -> list[bytes]:
    """Pack a batch of candidate lists, one value a row.

    Args:
        item_index: [Q, K] integer, 1..2**32 - 1; -1 where nothing was left, at the end of a row.
        score: [Q, K] float, non-increasing over the real entries of a row.
        source: [Q, K] integer 0..255, or one number for all.

    Raises:
        ValueError: a shape, range, order or finiteness rule is broken; the message names the
            first offending row.
    """
    item_index = np.asarray(item_index)
    score = np.asarray(score)
    source = (
        np.broadcast_to(np.asarray(source), item_index.shape)
        if np.ndim(source) == 0
        else (np.asarray(source))
    )
    real = _check(item_index, score, source)
    counts = real.sum(axis=1)
    largest = np.where(real, item_index, 0).max(axis=1, initial=0)
    layouts = np.where(largest < 2**16, 2, np.where(largest < 2**24, 3, 4))
    halves = np.where(real, source, 0).max(axis=1, initial=0) <= 15
    layouts = layouts | np.where(halves, _HALF_SOURCES, 0)
    values: list[bytes] = [b""] * len(item_index)
    for count, layout in np.unique(np.stack([counts, layouts], axis=1), axis=0).tolist():
        rows = np.flatnonzero((counts == count) & (layouts == layout))
        lists = item_index[rows, :count], score[rows, :count], source[rows, :count]
        for row, line in zip(rows.tolist(), _pack(*lists, layout), strict=True):
            body = line.tobytes()
            values[row] = body + _CRC.pack(zlib.crc32(body))
    return values


def decode_candidates(value: bytes) -> CandidateList:
    """Unpack one value.

    Raises:
        CorruptValue: not a candidate list, another version, truncated, or damaged.
    """
    if len(value) < _HEADER.size + _CRC.size:
        raise CorruptValue(f"candidate list is truncated: {len(value)} bytes, header needs 12")
    magic, version, layout, count = _HEADER.unpack_from(value)
    if magic != MAGIC:
        raise CorruptValue(f"not a candidate list: starts with {magic!r}, expected {MAGIC!r}")
    if version == 1:
        layout = _WIDE
    elif version != VERSION or layout & ~_HALF_SOURCES not in (2, 3, 4):
        raise CorruptValue(
            f"candidate list has version {version} and layout {layout}, this code reads up to "
            f"version {VERSION}; publish the generation again with this release"
        )
    expected = _size(count, layout)
    if len(value) != expected:
        raise CorruptValue(
            f"candidate list of {count} entries must have {expected} bytes, got {len(value)}"
        )
    (stored,) = _CRC.unpack_from(value, expected - _CRC.size)
    if zlib.crc32(memoryview(value)[: -_CRC.size]) != stored:
        raise CorruptValue("candidate list is damaged: its checksum does not match")
    width, offset = layout & _INDEX_BYTES, _HEADER.size
    item_index = _wider(value, width, count, offset)
    offset += width * count
    score = np.frombuffer(value, "<f2", count, offset).astype(np.float32)
    offset += _SCORE_BYTES * count
    if layout & _HALF_SOURCES:
        pairs = np.frombuffer(value, np.uint8, (count + 1) // 2, offset)
        source = _HALVES[pairs].view(np.uint8)[:count]
    else:
        source = np.frombuffer(value, np.uint8, count, offset)
    return CandidateList(item_index, score, source)


def _index_bytes(largest: int) -> int:
    return 2 if largest < 2**16 else 3 if largest < 2**24 else 4


def _size(count: int, layout: int) -> int:
    sources = (count + 1) // 2 if layout & _HALF_SOURCES else count
    entries = ((layout & _INDEX_BYTES) + _SCORE_BYTES) * count
    return _HEADER.size + entries + sources + _CRC.size


def _wider(value: bytes, width: int, count: int, offset: int) -> np.ndarray:
    """[n] int64 of little-endian numbers of ``width`` bytes."""
    if width == 3:
        three = np.frombuffer(value, np.uint8, 3 * count, offset).reshape(count, 3)
        return np.asarray(three @ np.array([1, 2**8, 2**16], dtype=np.int64))
    return np.frombuffer(value, f"<u{width}", count, offset).astype(np.int64)


def _pack(item_index: np.ndarray, score: np.ndarray, source: np.ndarray, layout: int) -> np.ndarray:
    """[R, B] uint8: header and columns of R lists of the same length, without the crc."""
    num_rows, count = item_index.shape
    width = layout & _INDEX_BYTES
    header = np.frombuffer(_HEADER.pack(MAGIC, VERSION, layout, count), np.uint8)
    index = np.ascontiguousarray(item_index, dtype="<u4").view(np.uint8)
    sources = np.ascontiguousarray(source, dtype=np.uint8)
    if layout & _HALF_SOURCES:
        even = np.pad(sources, ((0, 0), (0, count % 2)))
        sources = (even[:, ::2] | even[:, 1::2] << 4).astype(np.uint8)
    parts: Sequence[np.ndarray] = (
        np.broadcast_to(header, (num_rows, header.size)),
        index.reshape(num_rows, count, 4)[:, :, :width].reshape(num_rows, width * count),
        np.ascontiguousarray(score, dtype="<f2").view(np.uint8).reshape(num_rows, 2 * count),
        sources,
    )
    return np.concatenate(parts, axis=1)


def _check(item_index: np.ndarray, score: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Refuse what cannot be stored faithfully; returns the [Q, K] mask of real entries."""
    shape = item_index.shape
    if item_index.ndim != 2 or score.shape != shape or source.shape != shape:
        raise ValueError(
            "item_index, score and source must share one [Q, K] shape: got "
            f"{shape}, {score.shape} and {source.shape}"
        )
    if shape[1] > _MAX_ENTRIES:
        raise ValueError(f"a list holds at most {_MAX_ENTRIES} candidates, got {shape[1]}")
    real = item_index != -1
    _refuse(~real[:, :-1] & real[:, 1:], "padding (-1) must come after all real entries")
    _refuse(
        real & ((item_index < 1) | (item_index >= 2**32)),
        "item_index must be in 1..2**32 - 1 (0 is the padding row of tables)",
    )
    _refuse(real & ~np.isfinite(score), "score must be finite")
    _refuse(
        real & (np.abs(np.where(real, score, 0)) > _MAX_SCORE),
        f"score must lie within +-{_MAX_SCORE:.0f} (half precision); scale it before publishing",
    )
    ordered = np.where(real, score, 0)
    both = real[:, :-1] & real[:, 1:]
    _refuse(both & (ordered[:, :-1] < ordered[:, 1:]), "score must be non-increasing")
    _refuse(real & ((source < 0) | (source > 255)), "source must be in 0..255")
    by_item = np.sort(item_index, axis=1)
    _refuse(
        (by_item[:, :-1] == by_item[:, 1:]) & (by_item[:, 1:] != -1),
        "item_index must not repeat within a row",
    )
    return np.asarray(real)


def _refuse(broken: np.ndarray, rule: str) -> None:
    if broken.any():
        row = int(np.flatnonzero(broken.any(axis=1))[0])
        total = int(broken.any(axis=1).sum())
        raise ValueError(f"{rule}: broken in {total} of {len(broken)} rows, first in row {row}")
