"""Which items may appear in one answer, and what was left out and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from serving.messages import Filtered, RecommendedItem
from serving.request.snapshot import Snapshot

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
        shown: rows of the snapshot that are on earlier pages; left out without being counted.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        exclude: Collection[str],
        silent_exclude: Collection[str] = (),
        only: Collection[str] | None,
        shown: Sequence[int] = (),
    ) -> None:
        self._snapshot = snapshot
        asked = frozenset(exclude)
        self.only: frozenset[str] | None = None if only is None else frozenset(only)
        self.filtered = Filtered(
            unknown_exclude=sum(1 for one in asked if one not in snapshot.rows),
            unknown_only=sum(1 for one in self.only or () if one not in snapshot.rows),
        )
        count = len(snapshot.item_ids)
        self._shown = frozenset(snapshot.item_ids[row - 1] for row in shown if 1 <= row <= count)
        self.exclude = asked | frozenset(silent_exclude)
        self.items: list[RecommendedItem] = []
        self._judged: set[str] = set()
        self._taken: set[str] = set(self._shown)

    def exclude_silently(self, item_ids: Collection[str]) -> None:
        """Further ids that must not be shown, not checked against the catalogue."""
        self.exclude |= frozenset(item_ids)

    @property
    def unwanted(self) -> frozenset[str]:
        """Ids that no stage need bring."""
        return self.exclude | self._taken

    def allowed(self, offered: Iterable[Named]) -> list[Named]:
        """Those of ``offered`` that may be shown and are not taken yet, in their order."""
        kept: list[Named] = []
        seen: set[str] = set()
        for entry in offered:
            item_id = entry[0]
            if item_id in self._taken or item_id in seen:
                continue
            seen.add(item_id)
            why = self._why_not(item_id)
            if why is None:
                kept.append(entry)
            else:
                self._count(item_id, why)
        return kept

    def allowed_rows(self, rows: np.ndarray) -> np.ndarray:
        """[C] bool of different rows of the snapshot: may be shown and are not taken yet.

        The same as `allowed`, for hundreds of candidates.
        """
        snapshot = self._snapshot
        inside = (rows >= 1) & (rows <= len(snapshot.item_ids))
        kept: np.ndarray = inside & snapshot.alive[np.where(inside, rows, 0)]
        named = [snapshot.rows[one] for one in self.unwanted if one in snapshot.rows]
        if named:
            kept &= ~np.isin(rows, named)
        if self.only is not None:
            wanted = [snapshot.rows[one] for one in self.only if one in snapshot.rows]
            kept &= np.isin(rows, np.array(wanted, dtype=np.int64))
        for row in rows[inside & ~kept].tolist():
            item_id = snapshot.item_ids[row - 1]
            why = None if item_id in self._taken else self._why_not(item_id)
            if why is not None:
                self._count(item_id, why)
        return kept

    def left_of(self, offered: Iterable[Named]) -> list[Named]:
        """Those of ``offered`` that are not taken yet, whatever the filters say."""
        return [entry for entry in offered if entry[0] not in self._taken]

    def take(self, entries: Iterable[Named], propensity: Sequence[float] | None = None) -> None:
        """Append allowed entries to the slate.

        Args:
            entries: in the order of their places.
            propensity: of each. None: they were bound to come.
        """
        for place, (item_id, score, source) in enumerate(entries):
            self._taken.add(item_id)
            chance = 1.0 if propensity is None else propensity[place]
            self.items.append(RecommendedItem(item_id, score, source, chance))

    def _why_not(self, item_id: str) -> str | None:
        if item_id in self.exclude:
            return "excluded"
        if self.only is not None and item_id not in self.only:
            return "not_in_only"
        return None if self._snapshot.is_alive(item_id) else "hidden"

    def _count(self, item_id: str, why: str) -> None:
        if item_id not in self._judged:
            self._judged.add(item_id)
            setattr(self.filtered, why, getattr(self.filtered, why) + 1)
