"""The pointer to the served generation: which there are, and which one readers use."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from serving.connection.calls import OTHER_TYPE, compare_and_set, count_existing
from serving.connection.clients import store_errors
from serving.errors import CorruptValue, HeadConflict, NoGeneration
from serving.store.manifest import Head, Manifest
from serving.store.reads import StoreReads, alive_bitmap, bitmap_bytes

__all__ = ["GenerationInfo", "StoreHeads"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GenerationInfo:
    """One line of `generations`: its manifest and whether the head names it."""

    manifest: Manifest
    is_current: bool
    is_previous: bool


class StoreHeads(StoreReads):
    """Lists generations and switches between them by compare-and-set; see `StoreReads`."""

    def generations(self) -> list[GenerationInfo]:
        """Finished generations that are still there and whole, newest first."""
        head, _ = self._standing_head()
        with store_errors("list generations"):
            listed = cast("list[bytes]", self._client.zrevrange(self.keys.generations, 0, -1))
        found = []
        for name in (value.decode() for value in listed):
            try:
                manifest = self.manifest(name)
            except CorruptValue as error:
                log.warning("generation %s is left out: %s", name, error)
                continue
            if manifest is None:
                with store_errors("list generations"):
                    self._client.zrem(self.keys.generations, name)
                continue
            found.append(
                GenerationInfo(
                    manifest,
                    is_current=head is not None and head.generation == name,
                    is_previous=head is not None and head.previous == name,
                )
            )
        return found

    def flip(self, generation: str, *, expected_epoch: int | None = None) -> Head:
        """Serve ``generation``, which must be finished and still there.

        Raises:
            NoGeneration: it is unknown, unfinished or expired, or its vocabulary or fallback list
                is gone.
            HeadConflict: the head moved meanwhile.
        """
        before, standing = self._standing_head()
        self._check_epoch(before, expected_epoch)
        if self.manifest(generation) is None:
            raise NoGeneration(self._unknown(generation))
        with store_errors("look at a generation"):
            needed = [self.keys.items(generation), self.keys.popular(generation)]
            if count_existing(self._client, needed) < len(needed):
                raise NoGeneration(
                    f"generation {generation!r} has lost its vocabulary or its fallback list (does "
                    "the store evict keys?); publish it again"
                )
        item_ids = self.item_ids(generation)
        self._hide_again(generation, item_ids)
        head = self._move_head(before, standing, generation)
        self._hide_again(generation, item_ids)
        return head

    def rollback(self) -> Head:
        """Serve the previous generation again; a second call undoes the first.

        Raises:
            NoGeneration: nothing is published, there is no previous generation, or it expired.
            HeadConflict: the head moved meanwhile.
        """
        head = self.head()
        if head is None or head.previous is None:
            raise NoGeneration("there is no previous generation to roll back to")
        return self.flip(head.previous, expected_epoch=head.epoch)

    def hidden_items(self) -> set[str]:
        """Ids that are hidden in every generation, whether it has such an item or not."""
        with store_errors("read the hidden items"):
            found = cast("set[bytes]", self._client.smembers(self.keys.hidden))
        return {item_id.decode(errors="replace") for item_id in found}

    def remember_hidden(self, item_ids: Sequence[str], hidden: bool) -> None:
        """Hide items in generations to come as well, or no longer; see `set_alive`."""
        if not item_ids:
            return
        change = self._client.sadd if hidden else self._client.srem
        with store_errors("remember hidden items"):
            change(self.keys.hidden, *item_ids)

    def set_alive(self, generation: str, item_index: Sequence[int], alive: bool) -> None:
        """Hide or show items of a published generation, without a republish.

        Args:
            generation: which one.
            item_index: rows of the vocabulary, 1..N.
            alive: False hides.

        Raises:
            ValueError: an index is out of range.
            NoGeneration: the generation is unknown or expired.
        """
        manifest = self.manifest(generation)
        if manifest is None:
            raise NoGeneration(self._unknown(generation))
        outside = [index for index in item_index if not 1 <= index <= manifest.num_items]
        if outside:
            raise ValueError(f"item_index must be in 1..{manifest.num_items}, got {outside[0]}")
        if item_index:
            self._mend_alive(manifest)
        with store_errors("write the alive bitmap"), self._client.pipeline(False) as pipeline:
            for index in item_index:
                pipeline.setbit(self.keys.alive(generation), int(index), int(alive))
            pipeline.expireat(self.keys.alive(generation), manifest.expires_at)
            pipeline.execute()

    # -- inside -------------------------------------------------------------------------------

    def _mend_alive(self, manifest: Manifest) -> None:
        """Begin the bitmap anew where it is gone: bits set in none would hide everything else."""
        generation, key = manifest.generation, self.keys.alive(manifest.generation)
        with contextlib.suppress(CorruptValue):
            found = self._value("read the alive bitmap", key)
            if found is not None and len(found) == bitmap_bytes(manifest.num_items):
                return
        log.warning(
            "the bitmap of recommendable items of generation %s is gone or damaged and begins "
            "anew, with what is hidden in every generation (does the store evict keys?)",
            generation,
        )
        hidden = self.hidden_items()
        shown = [one not in hidden for one in self.item_ids(generation)]
        with store_errors("write the alive bitmap"):
            self._client.set(key, alive_bitmap([False, *shown]), exat=manifest.expires_at)

    def _hide_again(self, generation: str, item_ids: Sequence[str]) -> None:
        """Hide in a generation what is hidden in every one.

        Done before and after a switch: what is hidden while it happens is hidden all the same.
        """
        hidden = self.hidden_items()
        if hidden:
            rows = [row for row, one in enumerate(item_ids, start=1) if one in hidden]
            self.set_alive(generation, rows, False)

    def _unknown(self, generation: str) -> str:
        known = ", ".join(info.manifest.generation for info in self.generations()) or "none"
        return (
            f"generation {generation!r} is not in the store (unknown, unfinished or expired); "
            f"there: {known}"
        )

    def _standing_head(self) -> tuple[Head | None, bytes]:
        """The head and the bytes that stand there, for a compare-and-set.

        A damaged head counts as none, so that it can be replaced.
        """
        value: bytes | None = OTHER_TYPE
        with contextlib.suppress(CorruptValue):
            value = self._value("read the head", self.keys.head)
        if value is None:
            return None, b""
        try:
            return Head.from_json(value), value
        except CorruptValue as error:
            log.warning("the head is damaged and counts as none: %s", error)
            return None, value

    def _sound_manifest(self, generation: str) -> Manifest | None:
        """A manifest to compare with; None where it is damaged as well."""
        try:
            return self.manifest(generation)
        except CorruptValue as error:
            log.warning("nothing is compared with generation %s: %s", generation, error)
            return None

    def _move_head(self, before: Head | None, standing: bytes, generation: str) -> Head:
        if before is not None and before.generation == generation:
            after = Head(generation, before.previous, before.epoch + 1, time.time())
        else:
            previous, epoch = (before.generation, before.epoch) if before else (None, 0)
            after = Head(generation, previous, epoch + 1, time.time())
        with store_errors("move the head"):
            moved = compare_and_set(self._client, self.keys.head, standing, after.to_json())
        if not moved:
            now = self.head()
            if now == after:  # our own flip went through and the reply was lost
                return after
            raise HeadConflict(_conflict(before.epoch if before else 0, now))
        return after

    def _check_epoch(self, head: Head | None, expected: int | None) -> None:
        if expected is not None and expected != (head.epoch if head else 0):
            raise HeadConflict(_conflict(expected, head))


def _conflict(expected: int, head: Head | None) -> str:
    found = f"epoch {head.epoch} ({head.generation})" if head else "no generation"
    return (
        f"the head moved while this publish ran: expected epoch {expected}, found {found}; "
        "nothing was flipped, run it again to publish on top"
    )
