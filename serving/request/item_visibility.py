"""Hides items in every generation there is, and in those to come."""

from __future__ import annotations

from collections.abc import Sequence

from serving.errors import NoGeneration
from serving.messages import ItemsReport
from serving.request.reader import GenerationReader
from serving.store import GenerationStore

__all__ = ["set_alive"]


def set_alive(
    store: GenerationStore, reader: GenerationReader, item_ids: Sequence[str], alive: bool
) -> ItemsReport:
    """Hide or show items.

    Args:
        store: where the generations are.
        reader: of this process, which sees the change at once.
        item_ids: any.
        alive: False hides.

    Raises:
        NoGeneration: nothing is published.
        StageUnavailable: the store does not answer.
    """
    listed = [info.manifest.generation for info in store.generations()]
    if not listed:
        raise NoGeneration("nothing is published; run `recsys publish`")
    # First for generations to come: one that is switched to meanwhile looks there.
    store.remember_hidden(item_ids, not alive)
    known: set[str] = set()
    for generation in listed:
        try:
            snapshot = reader.snapshot(generation)
        except NoGeneration:
            continue
        found = [one for one in item_ids if one in snapshot.rows]
        store.set_alive(generation, [snapshot.rows[one] for one in found], alive)
        known.update(found)
    reader.refresh()
    unknown = tuple(one for one in item_ids if one not in known)
    return ItemsReport(len(known), unknown)
