"""The item ids of a vocabulary as one binary value.

```
magic  version  reserved  n     end of each id in the text   text    crc32
RIDS   u8 = 1   3 x u8    u32   u32 x n                      utf-8   u32
```
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from serving.errors import CorruptValue

__all__ = ["decode_ids", "encode_ids"]

MAGIC = b"RIDS"
VERSION = 1
_HEADER = struct.Struct("<4sB3xI")
_CRC = struct.Struct("<I")


def encode_ids(ids: Sequence[str]) -> bytes:
    """Pack ``ids`` in order."""
    encoded = [one.encode() for one in ids]
    lengths = np.fromiter(map(len, encoded), np.uint64, len(encoded))
    ends = np.cumsum(lengths)
    if len(ends) and ends[-1] >= 2**32:
        raise ValueError(f"ids must take less than 4 GiB together, got {int(ends[-1])} bytes")
    body = b"".join(
        (_HEADER.pack(MAGIC, VERSION, len(encoded)), ends.astype("<u4").tobytes(), *encoded)
    )
    return body + _CRC.pack(zlib.crc32(body))


def decode_ids(value: bytes) -> list[str]:
    """Unpack the ids.

    Raises:
        CorruptValue: not an id list, another version, truncated, or damaged.
    """
    if len(value) < _HEADER.size + _CRC.size:
        raise CorruptValue(f"id list is truncated: {len(value)} bytes, header needs 16")
    magic, version, count = _HEADER.unpack_from(value)
    if magic != MAGIC or version != VERSION:
        raise CorruptValue(
            f"id list starts with {magic!r} version {version}, expected {MAGIC!r} version {VERSION}"
        )
    (stored,) = _CRC.unpack_from(value, len(value) - _CRC.size)
    start = _HEADER.size + 4 * count
    if len(value) < start + _CRC.size or zlib.crc32(value[: -_CRC.size]) != stored:
        raise CorruptValue("id list is damaged: its checksum does not match")
    ends = np.frombuffer(value, "<u4", count, _HEADER.size)
    text = value[start : -_CRC.size]
    if (ends[1:] < ends[:-1]).any() or (int(ends[-1]) if count else 0) != len(text):
        raise CorruptValue("id list is damaged: its ends do not divide its text")
    places = [0, *ends.tolist()]
    try:
        return [text[first:last].decode() for first, last in pairwise(places)]
    except UnicodeDecodeError as error:
        raise CorruptValue(f"id list is damaged: an id is no text ({error})") from error
