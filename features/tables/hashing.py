"""Hashes of columns, independent of chunking, platform and library version."""

from __future__ import annotations

import hashlib
import zlib

import numpy as np
import polars as pl

__all__ = ["drawn_order", "drawn_place", "stable_hash", "stable_mix", "update_with_series"]

_ROWS_AT_ONCE = 1_000_000
_MASK = 2**64 - 1
_STEP, _BEGIN = 0x9E3779B97F4A7C15, 0x632BE59BD9B4E019
_SPREAD = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_CRC = np.array([zlib.crc32(bytes([byte])) for byte in range(256)], dtype=np.uint32)
_CRC ^= _CRC[0]  # the bare table: crc32 is linear but for the constant that it begins and ends with


def update_with_series(digest: hashlib._Hash, series: pl.Series) -> None:
    """Feed a string or numeric column without nulls to ``digest``.

    Strings go in as their lengths and then their bytes, so ``["ab", "c"]`` and ``["a", "bc"]``
    differ; numbers as their little-endian bytes.
    """
    digest.update(f"{series.name}:{len(series)};".encode())
    for start in range(0, len(series), _ROWS_AT_ONCE):
        part = series.slice(start, _ROWS_AT_ONCE)
        if part.dtype == pl.String:
            lengths = part.str.len_bytes().to_numpy().astype("<u4")
            digest.update(lengths.tobytes())
            digest.update(str(part.str.join("").item()).encode())
        else:
            values = part.to_physical().to_numpy()
            little = values.dtype.newbyteorder("<")
            digest.update(np.ascontiguousarray(values, dtype=little).tobytes())


def stable_hash(texts: pl.Series) -> np.ndarray:
    """[n] uint64: CRC-32 of each text, without nulls; the same as ``zlib.crc32`` gives of one."""
    array = texts.rechunk().to_arrow().cast("large_string")
    _, offsets, content = array.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64, count=array.offset + len(array) + 1)
    ends = ends[array.offset :]
    letters = np.frombuffer(content, dtype=np.uint8) if content is not None else np.zeros(0, "u1")
    lengths = np.diff(ends)
    longest_first = np.argsort(-lengths, kind="stable")
    longer_than = np.searchsorted(-lengths[longest_first], -np.arange(lengths.max(initial=0)))
    found = np.full(len(array), 0xFFFFFFFF, dtype=np.uint32)
    for place, many in enumerate(longer_than):
        rows = longest_first[:many]
        now = found[rows]
        found[rows] = _CRC[(now ^ letters[ends[rows] + place]) & 0xFF] ^ (now >> 8)
    return (found ^ np.uint32(0xFFFFFFFF)).astype(np.uint64)


def stable_mix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[n] uint64 of two uint64 a row, evenly spread.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number
    Generators, OOPSLA 2014).
    """
    mixed = first * np.uint64(_STEP) + second + np.uint64(_BEGIN)
    for shift, factor in _SPREAD:
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    spread: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return spread


def drawn_order(users: pl.Series, items: pl.Series, times: np.ndarray) -> np.ndarray:
    """[n] uint64 by which what a user did at one time is ordered: drawn, and not by ids.

    Args:
        users: [n] ids.
        items: [n] ids.
        times: [n] int64 microseconds.
    """
    pair = stable_mix(stable_hash(users), stable_hash(items))
    return stable_mix(pair, times.astype(np.uint64))


def drawn_place(user: str, item: str, time_us: int) -> int:
    """The number of `drawn_order` for one event."""
    pair = _mixed(zlib.crc32(user.encode()), zlib.crc32(item.encode()))
    return _mixed(pair, time_us & _MASK)


def _mixed(first: int, second: int) -> int:
    mixed = (first * _STEP + second + _BEGIN) & _MASK
    for shift, factor in _SPREAD:
        mixed = ((mixed ^ (mixed >> shift)) * factor) & _MASK
    return mixed ^ (mixed >> 31)
