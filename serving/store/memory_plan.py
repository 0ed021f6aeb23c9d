"""What a generation will take in the store, before it is published."""

from __future__ import annotations

from typing import NamedTuple

from recsys.config.store import ConnectionOptions
from serving.store.candidate_codec import encoded_size
from serving.store.keys import Keys
from serving.store.publication import NUM_NEIGHBOURS

__all__ = ["MemoryLine", "plan_memory"]

KEY_OVERHEAD = 80
"""Bytes that a server adds to a key with an expiry and its value: Valkey 9 with glibc's allocator,
100,000 users of 100 candidates; other servers and allocators differ by some percent."""
EVENT_BYTES = 30
"""Bytes of an event of a session beside the item's id, its place in the sorted set included."""
GENERATION = "20260101T000000Z-abcdef"


class MemoryLine(NamedTuple):
    """Keys of one kind.

    Attributes:
        what: what they hold.
        keys: how many, of one generation.
        bytes_each: of key, value and what the server adds.
        total_bytes: of all of them, in all generations that are kept; sessions are in none.
    """

    what: str
    keys: int
    bytes_each: int
    total_bytes: int


def plan_memory(
    *,
    num_users: int,
    num_items: int,
    k: int = 100,
    dim: int = 64,
    num_features: int = 30,
    num_neighbours: int = NUM_NEIGHBOURS,
    id_bytes: int = 8,
    generations: int = 2,
    num_sessions: int = 0,
    session_events: int = 50,
    namespace: str = ConnectionOptions.default("namespace"),
) -> list[MemoryLine]:
    """The bill of lists, similar items, packed item rows and sessions, largest sizes taken.

    Args:
        num_users: users with a list.
        num_items: items of the catalogue.
        k: candidates of a list.
        dim: numbers of the content vector in an item's packed row, two bytes each.
        num_features: other numbers in it, four bytes each.
        num_neighbours: similar items of an item.
        id_bytes: bytes of a user's or item's id, on average.
        generations: how many are there at once: two while one is served and one can be rolled back
            to, three during a publish.
        num_sessions: users who did something lately (`serving.session_days`).
        session_events: of one session.
        namespace: first part of the keys.

    Returns:
        A line for each kind of key, and one for the vocabulary; one for sessions if there are any.

    Raises:
        ValueError: a number is out of range; the message names it.
    """
    least = {
        "num_users": (num_users, 0),
        "num_items": (num_items, 1),
        "k": (k, 1),
        "dim": (dim, 0),
        "num_features": (num_features, 0),
        "num_neighbours": (num_neighbours, 0),
        "id_bytes": (id_bytes, 1),
        "generations": (generations, 1),
        "num_sessions": (num_sessions, 0),
        "session_events": (session_events, 1),
    }
    for name, (value, bound) in least.items():
        if value < bound:
            raise ValueError(f"{name} must be >= {bound}, got {value}")
    keys = Keys(namespace)
    identifier = "x" * id_bytes
    row_bytes = 4 + 4 * num_features + 2 * dim
    kinds = [
        (
            "lists",
            num_users,
            keys.user(GENERATION, identifier),
            encoded_size(k, num_items=num_items),
        ),
        (
            "similar items",
            num_items,
            keys.neighbours(GENERATION, identifier),
            encoded_size(num_neighbours, num_items=num_items),
        ),
        ("item rows", num_items, keys.item(GENERATION, identifier), row_bytes),
        ("vocabulary", 1, keys.items(GENERATION), num_items * (id_bytes + 4)),
    ]
    lines = []
    for what, count, key, value_bytes in kinds:
        each = len(key) + value_bytes + KEY_OVERHEAD
        lines.append(MemoryLine(what, count, each, count * each * generations))
    if num_sessions:
        value_bytes = session_events * (id_bytes + EVENT_BYTES)
        each = len(keys.session(identifier)) + value_bytes + KEY_OVERHEAD
        lines.append(MemoryLine("sessions", num_sessions, each, num_sessions * each))
    return lines
