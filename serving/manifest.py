"""What the store says about itself: the head and the manifest of a generation, both JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Self

from serving.errors import CorruptValue

__all__ = ["Head", "Manifest"]

FORMAT = 1


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
            CorruptValue: not JSON, or other fields than these.
        """
        return cls(**_fields(cls, value, "head"))


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
        k: longest list.
        num_empty: users whose list is empty.
        min_score: lowest score of any list; None when all are empty.
        max_score: highest score of any list.
        source_names: name of each source number.
        vocabulary_sha256: of the vocabulary that the item indices refer to.
        item_schema: JSON text that says how to read item rows; None: no rows published.
        content_sha256: hash over all keys and values, whatever the order they were written in.
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

    def to_json(self) -> bytes:
        """The value of the manifest key."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, sort_keys=True).encode()

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """Read the value of a manifest key.

        Raises:
            CorruptValue: not JSON, another format, or other fields than these.
        """
        fields = _fields(cls, value, "manifest", extra=("format",))
        found = fields.pop("format")
        if found != FORMAT:
            raise CorruptValue(f"manifest has format {found}, this code reads {FORMAT}")
        fields["source_names"] = tuple(fields["source_names"])
        return cls(**fields)


def _fields(
    kind: type[Head] | type[Manifest], value: bytes, what: str, extra: tuple[str, ...] = ()
) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except ValueError as error:
        raise CorruptValue(f"{what} is not JSON: {error}") from error
    wanted = {field.name for field in dataclasses.fields(kind)} | set(extra)
    if not isinstance(found, dict) or set(found) != wanted:
        raise CorruptValue(
            f"{what} must have the fields {sorted(wanted)}, "
            f"got {sorted(found) if isinstance(found, dict) else type(found).__name__}"
        )
    return found
