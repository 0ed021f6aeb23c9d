"""Which items may appear in one answer, and why the others may not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from serving.messages import Filtered
from serving.request.snapshot import Snapshot
from serving.store.candidate_codec import CandidateList

__all__ = ["Filters", "Named", "filters_of"]

_NOTHING: frozenset[str] = frozenset()
Named = tuple[str, float, str]
"""Item id, score, and which retriever or fallback found it."""


class Filters(NamedTuple):
    """The filters of one question.

    Attributes:
        snapshot: catalogue and eligibility.
        exclude: ids that must not be shown.
        only: show nothing outside these. None: no limit.
        shown: ids on earlier pages; left out without being counted.
        unwanted: ids that no stage need bring: ``exclude`` and ``shown``.
        unknown_exclude: ids of the request's ``exclude`` that the catalogue lacks.
        unknown_only: ids of ``only`` that the catalogue lacks.
    """

    snapshot: Snapshot
    exclude: frozenset[str]
    only: frozenset[str] | None
    shown: frozenset[str]
    unwanted: frozenset[str]
    unknown_exclude: int
    unknown_only: int

    def allowed(
        self, offered: Iterable[Named], taken: Collection[str] = ()
    ) -> tuple[list[Named], dict[str, str]]:
        """Those of ``offered`` that may be shown, in their order, and why others may not.

        Args:
            offered: entries; of one item the first counts.
            taken: ids that have a place already; neither offered again nor counted.
        """
        rows, alive = self.snapshot.rows, self.snapshot.alive
        exclude, only = self.exclude, self.only
        seen = {*self.shown, *taken}
        kept: list[Named] = []
        left_out: dict[str, str] = {}
        for entry in offered:
            item_id = entry[0]
            if item_id in seen:
                continue
            seen.add(item_id)
            if item_id in exclude:
                left_out[item_id] = "excluded"
            elif only is not None and item_id not in only:
                left_out[item_id] = "not_in_only"
            elif (row := rows.get(item_id)) is not None and not alive[row]:
                left_out[item_id] = "hidden"
            else:
                kept.append(entry)
        return kept, left_out

    def allowed_list(self, found: CandidateList) -> tuple[CandidateList, dict[str, str]]:
        """Those of a list of the snapshot's rows that may be shown, and why others may not.

        The same as `allowed`, for hundreds of candidates; rows beyond the snapshot are left out.

        Args:
            found: of different rows.
        """
        snapshot, rows = self.snapshot, found.item_index
        inside = (rows >= 1) & (rows <= len(snapshot.item_ids))
        kept: np.ndarray = inside & snapshot.alive[np.where(inside, rows, 0)]
        named = [snapshot.rows[one] for one in self.unwanted if one in snapshot.rows]
        if named:
            kept &= ~np.isin(rows, named)
        if self.only is not None:
            wanted = [snapshot.rows[one] for one in self.only if one in snapshot.rows]
            kept &= np.isin(rows, np.array(wanted, dtype=np.int64))
        if kept.all():
            return found, {}
        rejected = rows[inside & ~kept].tolist()
        _, left_out = self.allowed((snapshot.item_ids[row - 1], 0.0, "") for row in rejected)
        return CandidateList(rows[kept], found.score[kept], found.source[kept]), left_out

    def counts(self, left_out: Mapping[str, str]) -> Filtered:
        """How many items were left out, by why.

        Args:
            left_out: why by id, of all that was offered.
        """
        reasons = list(left_out.values())
        return Filtered(
            excluded=reasons.count("excluded"),
            not_in_only=reasons.count("not_in_only"),
            hidden=reasons.count("hidden"),
            unknown_exclude=self.unknown_exclude,
            unknown_only=self.unknown_only,
        )


def filters_of(
    snapshot: Snapshot,
    *,
    exclude: Collection[str],
    silent_exclude: Iterable[str] = (),
    only: Collection[str] | None,
    shown: Sequence[int] = (),
) -> Filters:
    """The filters of a question.

    Args:
        snapshot: catalogue and eligibility.
        exclude: ids that must not be shown; those the catalogue lacks are counted and ignored.
        silent_exclude: further ids that must not be shown, not checked against the catalogue.
        only: show nothing outside these ids; those the catalogue lacks are counted and ignored.
        shown: rows of the snapshot that are on earlier pages.
    """
    rows, count = snapshot.rows, len(snapshot.item_ids)
    asked = frozenset(exclude)
    wanted = None if only is None else frozenset(only)
    before = (
        frozenset(snapshot.item_ids[row - 1] for row in shown if 1 <= row <= count)
        if shown
        else _NOTHING
    )
    excluded = asked.union(silent_exclude)
    return Filters(
        snapshot=snapshot,
        exclude=excluded,
        only=wanted,
        shown=before,
        unwanted=excluded | before if before else excluded,
        unknown_exclude=sum(1 for one in asked if one not in rows),
        unknown_only=sum(1 for one in wanted or () if one not in rows),
    )
