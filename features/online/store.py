"""Where running state lives: a small key-value protocol, and one in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

__all__ = ["MemoryStateStore", "StateStore"]

Field = tuple[str, str]


@runtime_checkable
class StateStore(Protocol):
    """Hashes of small values: a key has fields, a field holds bytes."""

    def read(self, fields: Sequence[Field]) -> list[bytes | None]:
        """The value of each (key, field), None where there is none."""
        ...

    def read_all(self, keys: Sequence[str]) -> list[dict[str, bytes]]:
        """All fields of each key; none for an unknown key."""
        ...

    def write(self, values: Mapping[Field, bytes]) -> None:
        """Set fields; all of them or, if it fails, none."""
        ...


class MemoryStateStore:
    """A `StateStore` in this process."""

    def __init__(self) -> None:
        self._keys: dict[str, dict[str, bytes]] = {}

    def read(self, fields: Sequence[Field]) -> list[bytes | None]:
        """The value of each (key, field), None where there is none."""
        none: dict[str, bytes] = {}
        return [self._keys.get(key, none).get(field) for key, field in fields]

    def read_all(self, keys: Sequence[str]) -> list[dict[str, bytes]]:
        """All fields of each key; none for an unknown key."""
        return [dict(self._keys.get(key, {})) for key in keys]

    def write(self, values: Mapping[Field, bytes]) -> None:
        """Set fields."""
        for (key, field), value in values.items():
            self._keys.setdefault(key, {})[field] = value
