"""One user's candidates as one small binary value.

```
offset    0      4        5         6      8           8+4n       8+6n      8+7n
          magic  version  reserved  n      item_index  score      source    crc32
          RCND   u8 = 1   u8 = 0    u16    u32 x n     f16 x n    u8 x n    u32
```

Little-endian, 12 + 7n bytes: 712 for 100 candidates. The crc covers everything before it.

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
VERSION = 1
_HEADER = struct.Struct("<4sBBH")
_CRC = struct.Struct("<I")
_ENTRY_BYTES = 4 + 2 + 1
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


def encoded_size(count: int) -> int:
    """Bytes of a value that holds ``count`` candidates."""
    return _HEADER.size + _ENTRY_BYTES * count + _CRC.size


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
    values: list[bytes] = [b""] * len(item_index)
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        block = _pack(item_index[rows, :count], score[rows, :count], source[rows, :count])
        size = _HEADER.size + _ENTRY_BYTES * int(count)
        for row, line in zip(rows.tolist(), block, strict=True):
            body = line.tobytes()[:size]
            values[row] = body + _CRC.pack(zlib.crc32(body))
    return values


def decode_candidates(value: bytes) -> CandidateList:
    """Unpack one value.

    Raises:
        CorruptValue: not a candidate list, another version, truncated, or damaged.
    """
    if len(value) < _HEADER.size + _CRC.size:
        raise CorruptValue(f"candidate list is truncated: {len(value)} bytes, header needs 12")
    magic, version, _, count = _HEADER.unpack_from(value)
    if magic != MAGIC:
        raise CorruptValue(f"not a candidate list: starts with {magic!r}, expected {MAGIC!r}")
    if version != VERSION:
        raise CorruptValue(
            f"candidate list has version {version}, this code reads {VERSION}; "
            "publish the generation again with this release"
        )
    expected = encoded_size(count)
    if len(value) != expected:
        raise CorruptValue(
            f"candidate list of {count} entries must have {expected} bytes, got {len(value)}"
        )
    (stored,) = _CRC.unpack_from(value, expected - _CRC.size)
    if zlib.crc32(memoryview(value)[: -_CRC.size]) != stored:
        raise CorruptValue("candidate list is damaged: its checksum does not match")
    offset = _HEADER.size
    item_index = np.frombuffer(value, "<u4", count, offset).astype(np.int64)
    score = np.frombuffer(value, "<f2", count, offset + 4 * count).astype(np.float32)
    source = np.frombuffer(value, np.uint8, count, offset + 6 * count)
    return CandidateList(item_index, score, source)


def _pack(item_index: np.ndarray, score: np.ndarray, source: np.ndarray) -> np.ndarray:
    """[R, 8 + 7n] uint8: header and columns of R lists of the same length, without the crc."""
    num_rows, count = item_index.shape
    header = np.frombuffer(_HEADER.pack(MAGIC, VERSION, 0, count), np.uint8)
    parts: Sequence[np.ndarray] = (
        np.broadcast_to(header, (num_rows, header.size)),
        np.ascontiguousarray(item_index, dtype="<u4").view(np.uint8).reshape(num_rows, 4 * count),
        np.ascontiguousarray(score, dtype="<f2").view(np.uint8).reshape(num_rows, 2 * count),
        np.ascontiguousarray(source, dtype=np.uint8),
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
