"""Which items may appear in one answer, and what was left out and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from serving.messages import Filtered, RecommendedItem
from serving.snapshot import Snapshot

__all__ = ["Named", "Selection"]

Named = tuple[str, float, str]


class Selection:
    """Applies one request's filters and collects its slate.

    An item is counted once however often it is offered, and taken at most once.

    Args:
        snapshot: catalogue and eligibility.
        exclude: ids that must not be shown; those the catalogue lacks are counted and ignored.
        silent_exclude: further ids that must not be shown, not checked against the catalogue.
        only: show nothing outside these; those the catalogue lacks are counted and ignored.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        exclude: Collection[str],
        silent_exclude: Collection[str] = (),
        only: Collection[str] | None,
    ) -> None:
        self._snapshot = snapshot
        asked = frozenset(exclude)
        self.exclude = asked | frozenset(silent_exclude)
        self.only = None if only is None else frozenset(only)
        self.filtered = Filtered(
            unknown_exclude=sum(1 for one in asked if one not in snapshot.rows),
            unknown_only=sum(1 for one in self.only or () if one not in snapshot.rows),
        )
        self._judged: set[str] = set()
        self.items: list[RecommendedItem] = []
        self._taken: set[str] = set()

    def allowed(self, offered: Iterable[Named]) -> list[Named]:
        """Those of ``offered`` that may be shown and are not taken yet, in their order."""
        kept: list[Named] = []
        seen: set[str] = set()
        for entry in offered:
            item_id = entry[0]
            if item_id in self._taken or item_id in seen:
                continue
            seen.add(item_id)
            if item_id in self.exclude:
                self._count(item_id, "excluded")
            elif self.only is not None and item_id not in self.only:
                self._count(item_id, "not_in_only")
            elif not self._snapshot.is_alive(item_id):
                self._count(item_id, "hidden")
            else:
                kept.append(entry)
        return kept

    def take(self, entries: Iterable[Named]) -> None:
        """Append allowed entries to the slate."""
        for item_id, score, source in entries:
            self._taken.add(item_id)
            self.items.append(RecommendedItem(item_id, score, source))

    def _count(self, item_id: str, why: str) -> None:
        if item_id not in self._judged:
            self._judged.add(item_id)
            setattr(self.filtered, why, getattr(self.filtered, why) + 1)
