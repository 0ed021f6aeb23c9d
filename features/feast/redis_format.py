"""Keys, hash fields and timestamps of Feast 0.67's Redis online store, byte for byte.

One hash holds all views of one entity. Integers are little-endian::

    key      u32 n | n times: u32 2, u32 length, join key | n times: u32 type, u32 length, value
             | project, in UTF-8; join keys in alphabetical order
    field    u32 murmur3_32("view:feature")        -> the value as a ``feast.types.Value`` message
    field    "_ts:view"                            -> the row's time as a ``Timestamp`` message

Source: feast 0.67.0, infra/key_encoding_utils.py (version 3) and infra/online_stores/redis.py. The
published description of the format is of an older one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from operator import index
from typing import NamedTuple

import numpy as np

from features.errors import DataError

__all__ = ["EntityKeys", "KeyType", "hash_field", "murmur3_32", "timestamp_field", "timestamps_us"]

_MASK = 0xFFFFFFFF


class KeyType(IntEnum):
    """Types of a join key that can be written without Feast, with Feast's numbers."""

    STRING = 2
    INT32 = 3
    INT64 = 4


_NUMPY: Mapping[KeyType, np.dtype[np.signedinteger]] = {
    KeyType.INT32: np.dtype("<i4"),
    KeyType.INT64: np.dtype("<i8"),
}


class EntityKeys(NamedTuple):
    """How the Redis keys of one kind of entity are written.

    Attributes:
        join_keys: name and type of each join key, at least one, in any order.
        project: the Feast project.
    """

    join_keys: Mapping[str, KeyType]
    project: str

    @property
    def prefix(self) -> bytes:
        """What all keys of this kind begin with."""
        names = [name.encode() for name in sorted(self.join_keys)]
        parts = [struct.pack("<I", len(names))]
        parts += [struct.pack("<II", KeyType.STRING, len(name)) + name for name in names]
        return b"".join(parts)

    def encode(self, ids: Mapping[str, Sequence[object] | np.ndarray]) -> list[bytes]:
        """The key of every row.

        Args:
            ids: by join key, [N] values; a whole-number key also takes its digits as strings.

        Returns:
            N keys.

        Raises:
            DataError: a join key is missing or unknown, the columns differ in length, or a value
                does not fit its type.
        """
        if set(ids) != set(self.join_keys):
            raise DataError(
                f"ids must have the join keys {', '.join(sorted(self.join_keys))}, got "
                f"{', '.join(sorted(ids)) or 'none'}; name each one"
            )
        lengths = {len(column) for column in ids.values()}
        if len(lengths) != 1:
            raise DataError(f"ids must have one length, got {sorted(lengths)}")
        names = sorted(self.join_keys)
        columns = [_encoded(name, self.join_keys[name], ids[name]) for name in names]
        before, after = self.prefix, self.project.encode()
        if len(columns) == 1:
            return [before + value + after for value in columns[0]]
        return [before + b"".join(values) + after for values in zip(*columns, strict=True)]

    def decode(self, keys: Iterable[bytes]) -> dict[str, list[int | str]]:
        """Join key values of the keys that are of this kind and project; others are left out."""
        names, prefix, project = sorted(self.join_keys), self.prefix, self.project.encode()
        found: dict[str, list[int | str]] = {name: [] for name in names}
        for key in keys:
            values = self._values(key, prefix, project)
            if values is not None:
                for name, value in zip(names, values, strict=True):
                    found[name].append(value)
        return found

    def _values(self, key: bytes, prefix: bytes, project: bytes) -> list[int | str] | None:
        if not key.startswith(prefix):
            return None
        place, values = len(prefix), list[int | str]()
        for name in sorted(self.join_keys):
            if len(key) < place + 8:
                return None
            kind, length = struct.unpack_from("<II", key, place)
            place += 8 + length
            if kind != self.join_keys[name] or len(key) < place:
                return None
            value = key[place - length : place]
            values.append(
                value.decode()
                if kind == KeyType.STRING
                else int.from_bytes(value, "little", signed=True)
            )
        return values if key[place:] == project else None


def hash_field(view: str, feature: str) -> bytes:
    """Field of a feature's value.

    Args:
        view: the view's name, with ``_v{N}`` where Feast's online versioning is on.
        feature: the feature's name.

    Returns:
        4 bytes.
    """
    return struct.pack("<I", murmur3_32(f"{view}:{feature}".encode()))


def timestamp_field(view: str) -> bytes:
    """Field of the time of a view's row; a row without it does not exist."""
    return f"_ts:{view}".encode()


def murmur3_32(data: bytes) -> int:
    """MurmurHash3 x86_32 with seed 0, unsigned.

    >>> murmur3_32(b"hello")
    613153351

    Source: Appleby, MurmurHash3 (smhasher).
    """
    value = 0
    whole = len(data) - len(data) % 4
    for (block,) in struct.iter_unpack("<I", data[:whole]):
        value ^= _scrambled(block)
        value = (_rotated(value, 13) * 5 + 0xE6546B64) & _MASK
    if whole < len(data):
        value ^= _scrambled(int.from_bytes(data[whole:], "little"))
    value ^= len(data)
    value = ((value ^ value >> 16) * 0x85EBCA6B) & _MASK
    value = ((value ^ value >> 13) * 0xC2B2AE35) & _MASK
    return value ^ value >> 16


def timestamps_us(messages: Sequence[bytes]) -> np.ndarray:
    """Times of serialised ``google.protobuf.Timestamp`` messages.

    Args:
        messages: [N]; an empty one is the epoch.

    Returns:
        [N] int64, microseconds since the epoch (UTC); what is below one is cut off.

    Raises:
        DataError: a message has other fields than seconds and nanos.
    """
    if not messages:
        return np.empty(0, dtype=np.int64)
    data, starts, lengths = joined(messages)
    ends = starts + lengths
    total = np.zeros(len(messages), dtype=np.int64)
    place = starts
    for tag, times, over in ((0x08, 1_000_000, 1), (0x10, 1, 1_000)):
        here = place < ends
        here[here] = data[place[here]] == tag
        values, sizes = varints(data, place[here] + 1)
        total[here] += values.view(np.int64) * times // over
        place = place.copy()
        place[here] += 1 + sizes
    if bool((place != ends).any()):
        wrong = bytes(messages[int(np.argmax(place != ends))])
        raise DataError(
            f"messages must be Timestamps of seconds and nanos, got {wrong!r}; another program "
            "wrote this row"
        )
    return total


def joined(messages: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All bytes with ten zeros behind them, and the start and the length of every message."""
    lengths = np.fromiter(map(len, messages), dtype=np.int64, count=len(messages))
    data = np.frombuffer(b"".join(messages) + bytes(10), dtype=np.uint8)
    return data, np.cumsum(lengths) - lengths, lengths


def varint(value: int) -> bytes:
    """A base-128 number, as protobuf writes lengths.

    Args:
        value: >= 0.
    """
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def varints(data: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Base-128 numbers of at most ten bytes, read side by side.

    Args:
        data: uint8, at least ten bytes longer than any number.
        starts: [N] where the numbers begin.

    Returns:
        [N] uint64 numbers (view as int64 for signed ones) and [N] int64 sizes in bytes.
    """
    values = np.zeros(starts.size, dtype=np.uint64)
    sizes = np.ones(starts.size, dtype=np.int64)
    going = np.ones(starts.size, dtype=bool)
    for place in range(10):
        byte = data[starts + place]
        part = (byte & 0x7F).astype(np.uint64) << np.uint64(7 * place)
        values = np.where(going, values | part, values)
        going &= byte >= 0x80
        if not bool(going.any()):
            break
        sizes += going
    return values, sizes


def _encoded(name: str, kind: KeyType, column: Sequence[object] | np.ndarray) -> list[bytes]:
    """Type, length and bytes of every value."""
    if kind == KeyType.STRING:
        texts = column.tolist() if isinstance(column, np.ndarray) else column
        encoded = []
        for text in texts:
            if not isinstance(text, str):
                raise DataError(
                    f"ids of {name!r} must be strings, got {text!r}; convert them with str"
                )
            value = text.encode()
            encoded.append(struct.pack("<II", kind, len(value)) + value)
        return encoded
    dtype = _NUMPY[kind]
    data = _whole_numbers(name, column, dtype).tobytes()
    head, size = struct.pack("<II", kind, dtype.itemsize), dtype.itemsize
    return [head + data[place : place + size] for place in range(0, len(data), size)]


def _whole_numbers(
    name: str, column: Sequence[object] | np.ndarray, dtype: np.dtype[np.signedinteger]
) -> np.ndarray:
    numbers = np.asarray(column)
    if numbers.size == 0:
        return np.empty(0, dtype=dtype)
    try:
        if numbers.dtype.kind in "OUT":
            whole = [int(one) if isinstance(one, str) else index(one) for one in numbers.tolist()]
            numbers = np.array(whole, dtype=np.int64)
        if numbers.dtype.kind not in "iu":
            raise ValueError(f"{numbers.dtype} values")
        limits = np.iinfo(dtype)
        if int(numbers.min()) < limits.min or int(numbers.max()) > limits.max:
            raise ValueError(f"{numbers.min()} to {numbers.max()}")
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"ids of {name!r} must be whole numbers of {8 * dtype.itemsize} bits: {error}; check "
            "the entity's value_type"
        ) from None
    return numbers.astype(dtype)


def _scrambled(block: int) -> int:
    return (_rotated((block * 0xCC9E2D51) & _MASK, 15) * 0x1B873593) & _MASK


def _rotated(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _MASK
