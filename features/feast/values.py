"""Columns of serialised ``feast.types.Value`` messages as arrays.

Numbers are read side by side with numpy where a column holds nothing but its declared type, which
is what Feast writes. Everything else goes through Feast's own message class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from features.errors import DataError
from features.feast.redis_format import joined, varint, varints

__all__ = ["ValueColumn"]

_EXACT_FLOAT = 2**53
_NULL = b"\x98\x01\x00"  # null_val is set

# Feast type -> tag byte of its field in Value, NumPy type of the bytes behind it.
_FIXED: Mapping[str, tuple[int, np.dtype[Any]]] = {
    "FLOAT": (0x35, np.dtype("<f4")),
    "DOUBLE": (0x29, np.dtype("<f8")),
}
_WHOLE: Mapping[str, int] = {"INT32": 0x18, "INT64": 0x20, "BOOL": 0x38, "UNIX_TIMESTAMP": 0x40}
_LISTS: Mapping[str, tuple[bytes, np.dtype[Any]]] = {
    "FLOAT_LIST": (b"\x82\x01", np.dtype("<f4")),
    "DOUBLE_LIST": (b"\x7a", np.dtype("<f8")),
}
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "DOUBLE": np.dtype(np.float64),
    "INT32": np.dtype(np.float64),
    "INT64": np.dtype(np.float64),
    "BOOL": np.dtype(np.float32),
    "UNIX_TIMESTAMP": np.dtype("datetime64[s]"),
}
_WHOLE_KINDS = frozenset(f"{name.lower()}_val" for name in _WHOLE)
_NUMBER_KINDS = _WHOLE_KINDS | {"float_val", "double_val"}


class ValueColumn(NamedTuple):
    """How one feature's messages become an array.

    =====================  ===================================================================
    Feast type             array
    =====================  ===================================================================
    Float32, Bool          float32; NaN for null
    Float64, Int32, Int64  float64; NaN for null. A whole number beyond 2^53 is refused
    Int32, Int64, exact    object: ``int`` or None
    UnixTimestamp          datetime64[s] in UTC; NaT for null
    Array(Float32 or 64)   with a width: [N, width] of that type, NaN for null; without: object,
                           a 1-D array or None
    all others             object: what Feast's ``to_dict`` gives, None for null
    =====================  ===================================================================

    Attributes:
        name: the feature, for messages.
        type_name: its type in ``feast.ValueType``, such as "FLOAT".
        width: length of a list of floats. None: not known.
        exact: give whole numbers as Python ints.
    """

    name: str
    type_name: str
    width: int | None = None
    exact: bool = False

    def empty(self, count: int) -> np.ndarray:
        """``count`` nulls."""
        if self._as_object:
            return np.full(count, None, dtype=object)
        if self.type_name in _LISTS:
            return np.full((count, self.width or 0), np.nan, dtype=_LISTS[self.type_name][1])
        dtype = _DTYPES[self.type_name]
        return np.full(count, "NaT" if dtype.kind == "M" else np.nan, dtype=dtype)

    def decode(self, messages: Sequence[bytes | None]) -> np.ndarray:
        """The values of N rows.

        Args:
            messages: [N]; None or empty is null.

        Returns:
            [N] or [N, width], see the table above.

        Raises:
            DataError: a row holds another type, a list of another length, or a whole number that
                a float cannot hold.
        """
        known = [message for message in messages if message]
        if len(known) == len(messages):
            return self._decode(known) if known else self.empty(0)
        found = self.empty(len(messages))
        if known:
            mask = np.fromiter(map(bool, messages), dtype=bool, count=len(messages))
            found[mask] = self._decode(known)
        return found

    @property
    def _kind(self) -> str:
        """The field of Value that holds this type."""
        return f"{self.type_name.lower()}_val"

    @property
    def _raw(self) -> np.dtype[Any]:
        """Type of the numbers as they are stored."""
        return _FIXED[self.type_name][1] if self.type_name in _FIXED else np.dtype(np.int64)

    @property
    def _as_object(self) -> bool:
        if self.type_name in _LISTS:
            return self.width is None
        return self.type_name not in _DTYPES or self._exact_whole

    @property
    def _exact_whole(self) -> bool:
        return self.exact and self.type_name in ("INT32", "INT64")

    def _decode(self, messages: list[bytes]) -> np.ndarray:
        if self.type_name in _FIXED:
            numbers = _fixed(messages, *_FIXED[self.type_name])
        elif self.type_name in _WHOLE:
            numbers = _whole(messages, _WHOLE[self.type_name])
        elif self.type_name in _LISTS and self.width is not None:
            numbers = _rows(messages, *_LISTS[self.type_name], self.width)
        elif self.type_name in _LISTS:
            return self._lists(messages)
        elif self.type_name in ("STRING", "BYTES"):
            return self._texts(messages)
        else:
            return _objects([self._by_feast(message) for message in messages])
        if numbers is None:
            return self._converted(messages)
        return self._finished(numbers)

    def _finished(self, numbers: np.ndarray) -> np.ndarray:
        if self._exact_whole:
            return _objects(numbers.tolist())
        if self.type_name == "UNIX_TIMESTAMP":
            return numbers.view("datetime64[s]")
        if self.type_name == "INT64":
            large = np.abs(numbers) > _EXACT_FLOAT
            large |= numbers == np.iinfo(np.int64).min
            if bool(large.any()):
                raise DataError(
                    f"feature {self.name!r} must be at most 2^53 to be a float, got "
                    f"{numbers[large][0]}; name it in exact to get Python ints"
                )
        return numbers if self.type_name in _LISTS else numbers.astype(_DTYPES[self.type_name])

    def _lists(self, messages: list[bytes]) -> np.ndarray:
        """Lists of any length; equally long messages are read together."""
        found = np.full(len(messages), None, dtype=object)
        places: dict[int, list[int]] = {}
        for place, message in enumerate(messages):
            if message != _NULL:
                places.setdefault(len(message), []).append(place)
        for group in places.values():
            first = self._by_feast(messages[group[0]])
            one = self._replace(width=len(first) if isinstance(first, list) else 0)
            rows = one.decode([messages[place] for place in group])
            for place, row in zip(group, rows, strict=True):
                found[place] = row
        return found

    def _texts(self, messages: list[bytes]) -> np.ndarray:
        kind, parse = self._kind, _feast()[0].FromString
        values = [parse(message) for message in messages]
        kinds = {value.WhichOneof("val") for value in values}
        if other := sorted(kinds - {kind, None, "null_val"}):
            raise self._other_type(other[0])
        if kinds == {kind}:
            return _objects([getattr(value, kind) for value in values])
        return _objects(
            [getattr(value, kind) if value.HasField(kind) else None for value in values]
        )

    def _by_feast(self, message: bytes) -> object:
        value, kind = _parsed(message)
        return None if kind is None else _feast()[1](value)

    def _converted(self, messages: list[bytes]) -> np.ndarray:
        """Numbers one by one: rows that were written when the feature had another type."""
        found = self.empty(len(messages))
        for place, message in enumerate(messages):
            value, kind = _parsed(message)
            if kind is None:
                continue
            if self.type_name in _LISTS:
                if kind != self._kind:
                    raise self._other_type(kind)
                numbers = getattr(value, kind).val
                if len(numbers) != self.width:
                    raise DataError(
                        f"feature {self.name!r} must have {self.width} numbers, got "
                        f"{len(numbers)}; leave its width out to get lists of any length"
                    )
                found[place] = numbers
                continue
            if kind not in (_WHOLE_KINDS if self.type_name in _WHOLE else _NUMBER_KINDS):
                raise self._other_type(kind)
            found[place] = self._finished(np.array([getattr(value, kind)]).astype(self._raw))[0]
        return found

    def _other_type(self, kind: str) -> DataError:
        return DataError(
            f"feature {self.name!r} must hold {self.type_name}, got a row with {kind}; "
            "materialize it again since its type changed"
        )


def _parsed(message: bytes) -> tuple[Any, str | None]:
    """The message and the name of its set field; None for null."""
    value = _feast()[0].FromString(message)
    kind = value.WhichOneof("val")
    return value, None if kind == "null_val" else kind


@cache
def _feast() -> tuple[Any, Callable[[Any], object]]:
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import feast_value_type_to_python_type

    return Value, feast_value_type_to_python_type


def _fixed(messages: list[bytes], tag: int, dtype: np.dtype[Any]) -> np.ndarray | None:
    """Numbers of one size; None where one is not.

    Each message begins where the one before ends, so right tags at every step mean right lengths.
    """
    data = b"".join(messages)
    if len(data) != len(messages) * (1 + dtype.itemsize):
        return None
    rows = np.frombuffer(data, dtype=[("tag", "u1"), ("value", dtype)])
    return rows["value"] if bool((rows["tag"] == tag).all()) else None


def _whole(messages: list[bytes], tag: int) -> np.ndarray | None:
    data, starts, lengths = joined(messages)
    values, sizes = varints(data, starts + 1)
    if bool((data[starts] == tag).all()) and bool((sizes + 1 == lengths).all()):
        return values.view(np.int64)
    return None


def _rows(messages: list[bytes], tag: bytes, dtype: np.dtype[Any], width: int) -> np.ndarray | None:
    """Lists of one length as [N, width]; None where one is of another."""
    head = _list_head(tag, width * dtype.itemsize)
    size = len(head) + width * dtype.itemsize
    if set(map(len, messages)) != {size}:
        return None
    data = np.frombuffer(b"".join(messages), dtype=np.uint8).reshape(len(messages), size)
    if not bool((data[:, : len(head)] == np.frombuffer(head, dtype=np.uint8)).all()):
        return None
    return np.ascontiguousarray(data[:, len(head) :]).view(dtype)


@cache
def _list_head(tag: bytes, size: int) -> bytes:
    """What stands before the numbers of a list that take ``size`` bytes."""
    inner = b"\x0a" + varint(size) if size else b""
    return tag + varint(len(inner) + size) + inner


def _objects(values: Sequence[object]) -> np.ndarray:
    """An object array that does not look into lists."""
    found = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        found[place] = value
    return found
