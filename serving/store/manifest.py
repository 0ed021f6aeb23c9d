"""What the store says about itself: the head and the manifest of a generation, both JSON.

Manifests of format 1, written before there were delta publishes and popular lists of segments, are
still read: their revision is 0 and they have no segments.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from serving.errors import CorruptValue
from serving.store.keys import checked_generation

__all__ = ["Head", "Manifest"]

FORMAT = 2
_SINCE_FORMAT_2 = {"revision": 0, "segments": (), "content_sum": None}


@dataclass(frozen=True, slots=True)
class Head:
    """Which generation readers use.

    Attributes:
        generation: served now.
        previous: served before it; what a rollback returns to.
        epoch: counts flips; a publisher may only flip the epoch it started from.
        flipped_at: seconds since the epoch.
    """

    generation: str
    previous: str | None
    epoch: int
    flipped_at: float

    def to_json(self) -> bytes:
        """The value of the head key; equal heads give equal bytes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """Read the value of the head key.

        Raises:
            CorruptValue: not JSON, or other fields than these, or of other kinds.
        """
        return cls(**_fields(cls, _object(value, "head"), "head"))


@dataclass(frozen=True, slots=True)
class Manifest:
    """Facts of a finished generation.

    Attributes:
        generation: its id, the id of the bundle it came from.
        published_at: seconds since the epoch.
        expires_at: seconds since the epoch at which every key of it goes.
        num_users: users with a list.
        num_items: items of the vocabulary, N.
        num_neighbours: items with a neighbour list.
        k: longest list; after a delta no list is longer.
        num_empty: users whose list is empty.
        min_score: lowest score of any list; None when all are empty. After a delta none is lower.
        max_score: highest score of any list; after a delta none is higher.
        source_names: name of each source number.
        vocabulary_sha256: of the vocabulary that the item indices refer to.
        item_schema: JSON text that says how to read item rows; None: no rows published.
        content_sha256: hash over all keys and values, whatever the order they were written in.
        revision: delta publishes since the generation was published.
        segments: names of the segments that have a fallback list of their own.
        content_sum: what ``content_sha256`` is the hash of, for a delta to go on from; None where
            an older release wrote the manifest.
    """

    generation: str
    published_at: float
    expires_at: int
    num_users: int
    num_items: int
    num_neighbours: int
    k: int
    num_empty: int
    min_score: float | None
    max_score: float | None
    source_names: tuple[str, ...]
    vocabulary_sha256: str
    item_schema: str | None
    content_sha256: str
    revision: int = 0
    segments: tuple[str, ...] = ()
    content_sum: str | None = None

    def to_json(self) -> bytes:
        """The value of the manifest key."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, sort_keys=True).encode()

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """Read the value of a manifest key.

        Raises:
            CorruptValue: not JSON, another format, or other fields than these, or of other kinds.
        """
        found = _object(value, "manifest")
        written = found.pop("format", None)
        if written == 1:
            found = {**_SINCE_FORMAT_2, **found}
        elif written != FORMAT:
            raise CorruptValue(
                f"manifest has format {written}, this code reads 1 to {FORMAT}; use the release "
                "that published it, or publish again with this one"
            )
        fields = _fields(cls, found, "manifest")
        for name in ("source_names", "segments"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def _object(value: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise CorruptValue(f"{what} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise CorruptValue(f"{what} must be a JSON object, got {type(found).__name__}")
    return found


def _fields(kind: type[Head] | type[Manifest], found: dict[str, Any], what: str) -> dict[str, Any]:
    wanted = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    if set(found) != set(wanted):
        raise CorruptValue(f"{what} must have the fields {sorted(wanted)}, got {sorted(found)}")
    for name, annotation in wanted.items():
        if not _KINDS[annotation](found[name]):
            raise CorruptValue(f"{what} must have {annotation} as its {name}")
    try:
        for name in ("generation", "previous"):
            if found.get(name) is not None:
                checked_generation(found[name])
    except ValueError as error:
        raise CorruptValue(f"{what} names no generation: {error}") from error
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return type(value) is int


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "str": _is_text,
    "str | None": lambda value: value is None or _is_text(value),
    "int": _is_whole,
    "float": _is_number,
    "float | None": lambda value: value is None or _is_number(value),
    "tuple[str, ...]": lambda value: isinstance(value, list | tuple) and all(map(_is_text, value)),
}
