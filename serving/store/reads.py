"""What readers ask the store for; every list and row is one value, so none is ever torn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import redis

from recsys.config.store import ConnectionOptions
from serving.connection.calls import mget, scan_pages
from serving.connection.clients import is_other_type, store_errors
from serving.errors import CorruptValue, NoGeneration
from serving.store.candidate_codec import CandidateList, decode_candidates
from serving.store.id_list_codec import decode_ids
from serving.store.keys import Keys
from serving.store.manifest import Head, Manifest

__all__ = ["StoreReads", "alive_bitmap", "bitmap_bytes"]


def alive_bitmap(alive: Sequence[bool] | np.ndarray) -> bytes:
    """The bitmap of recommendable items as the store has it.

    Args:
        alive: [N + 1] bool; there is no item 0.
    """
    mask = np.array(alive, dtype=bool)
    mask[0] = False
    return np.packbits(mask).tobytes()


def bitmap_bytes(num_items: int) -> int:
    """Length of `alive_bitmap` for a vocabulary of so many items."""
    return num_items // 8 + 1


class StoreReads:
    """Reads generations within one namespace.

    Args:
        client: from `serving.connection.connect`; its timeouts bound every call. Replies must be
            bytes (``decode_responses=False``).
        namespace: first part of every key, a plain name.

    Every method raises `StageUnavailable` when the server is down, refuses or is too slow, and
    `CorruptValue` when a value cannot be decoded.
    """

    def __init__(
        self, client: redis.Redis, *, namespace: str = ConnectionOptions.default("namespace")
    ) -> None:
        self._client = client
        self.keys = Keys(namespace)

    @property
    def client(self) -> redis.Redis:
        """The client given."""
        return self._client

    def ping(self) -> None:
        """Return when the server answers."""
        with store_errors("ping"):
            self._client.ping()

    def head(self) -> Head | None:
        """The pointer, or None when nothing was ever published."""
        value = self._value("read the head", self.keys.head)
        return None if value is None else Head.from_json(value)

    def manifest(self, generation: str) -> Manifest | None:
        """The manifest; None for a generation that is unknown, unfinished or expired."""
        value = self._manifest_value(generation)
        return None if value is None else Manifest.from_json(value)

    def item_ids(self, generation: str) -> list[str]:
        """Ids of the vocabulary; entry i belongs to item index i + 1.

        Raises:
            NoGeneration: the generation is unknown or expired.
        """
        return decode_ids(self._needed(self.keys.items(generation), generation))

    def popular(self, generation: str) -> CandidateList:
        """The fallback list.

        Raises:
            NoGeneration: the generation is unknown or expired.
        """
        return decode_candidates(self._needed(self.keys.popular(generation), generation))

    def popular_of(self, generation: str, segments: Sequence[str]) -> dict[str, CandidateList]:
        """Fallback lists of several segments in one round trip; unknown segments are left out."""
        lists = self._lists([self.keys.popular_of(generation, one) for one in segments])
        return {one: found for one, found in zip(segments, lists, strict=True) if found is not None}

    def alive(self, generation: str, num_items: int) -> np.ndarray:
        """[N + 1] bool, True where an item may be recommended; row 0 is always False."""
        value = self._value("read the alive bitmap", self.keys.alive(generation))
        if value is None:
            value = alive_bitmap(np.ones(num_items + 1))
        if len(value) != bitmap_bytes(num_items):  # hiding all beyond a cut would be worse
            raise CorruptValue(
                f"the bitmap of recommendable items of generation {generation!r} must have "
                f"{bitmap_bytes(num_items)} bytes for {num_items} items, got {len(value)}"
            )
        mask = np.unpackbits(np.frombuffer(value, np.uint8))[: num_items + 1].astype(bool)
        mask[0] = False
        return mask

    def read_user(self, generation: str, user_id: str) -> CandidateList | None:
        """Candidates of one user, None when there are none."""
        return self.read_users(generation, [user_id])[0]

    def read_users(self, generation: str, user_ids: Sequence[str]) -> list[CandidateList | None]:
        """Candidates of several users in one round trip, in the order asked."""
        return self._lists([self.keys.user(generation, user_id) for user_id in user_ids])

    def user_ids(self, generation: str) -> Iterator[str]:
        """Ids of users with a list, in no order, by a scan of all keys of the store.

        While the store is being written one may come twice.
        """
        prefix = self.keys.user_prefix(generation)
        with store_errors("list users"):
            for page in scan_pages(self._client, f"{prefix}*"):
                yield from (key[len(prefix) :].decode().split(":", 1)[1] for key in page)

    def neighbours(self, generation: str, item_id: str) -> CandidateList | None:
        """Items like ``item_id``, None when there is no list for it."""
        return self._lists([self.keys.neighbours(generation, item_id)])[0]

    def read_items(self, generation: str, item_ids: Sequence[str]) -> list[bytes | None]:
        """Packed feature rows in the order asked, in one round trip."""
        return mget(self._client, [self.keys.item(generation, item_id) for item_id in item_ids])

    def _manifest_value(self, generation: str) -> bytes | None:
        return self._value("read a manifest", self.keys.manifest(generation))

    def _needed(self, key: str, generation: str) -> bytes:
        value = self._value("read a generation", key)
        if value is None:
            raise NoGeneration(f"generation {generation!r} is unknown, unfinished or expired")
        return value

    def _value(self, what: str, key: str) -> bytes | None:
        """The text under a key; None where there is nothing."""
        with store_errors(what):
            try:
                return cast("bytes | None", self._client.get(key))
            except redis.ResponseError as error:
                if not is_other_type(error):
                    raise
                raise CorruptValue(f"{key!r} holds a value of another type: {error}") from error

    def _lists(self, keys: list[str]) -> list[CandidateList | None]:
        values = mget(self._client, keys)
        return [None if value is None else decode_candidates(value) for value in values]
