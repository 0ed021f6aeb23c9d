"""What goes into and comes out of the recommendation service."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = [
    "Filtered",
    "LiveRecommender",
    "RecommendRequest",
    "Recommendations",
    "RecommendedItem",
    "SimilarRequest",
]

MAX_K = 500


class LiveRecommender(Protocol):
    """Recommends in process, from what the user did a moment ago."""

    def recommend(
        self,
        recent_item_ids: Sequence[str],
        k: int,
        *,
        user_id: str | None,
        exclude: Collection[str],
        only: Collection[str] | None,
        threshold: bool = False,
    ) -> list[tuple[str, float, str]]:
        """Best ``k`` as (item id, score, source), best first.

        Args:
            recent_item_ids: newest last; ids that the model does not know are ignored.
            k: how many.
            user_id: whose, None when nobody said.
            exclude: ids that must not be returned.
            only: return nothing outside these. None: no limit.
            threshold: return nothing that is not likely enough to be shown.
        """
        ...


@dataclass(frozen=True, slots=True)
class RecommendRequest:
    """One question for a slate.

    Attributes:
        user_id: whose; None or an unknown id gets a named fallback.
        k: items wanted, 1..500.
        exclude: item ids that must not be shown.
        only: show nothing outside these ids. None: no limit.
        recent_items: what the user did just now, newest last; also never shown again.
        diversity: 0 (by score alone) to 1. None: the service's default.
        request_id: comes back in the answer.
        threshold: a live answer holds only what is likely enough to be shown, and may be short or
            empty: nothing fills it up. Answers of other stages know no threshold; their ``source``
            tells.

    Raises:
        ValueError: ``k`` or ``diversity`` is out of range.
    """

    user_id: str | None
    k: int = 10
    exclude: Collection[str] = ()
    only: Collection[str] | None = None
    recent_items: Sequence[str] = ()
    diversity: float | None = None
    request_id: str | None = None
    threshold: bool = False

    def __post_init__(self) -> None:
        _check_k(self.k)
        if self.diversity is not None and not 0.0 <= self.diversity <= 1.0:
            raise ValueError(f"diversity must be in 0..1, got {self.diversity}")


@dataclass(frozen=True, slots=True)
class SimilarRequest:
    """One question for items like another.

    Attributes:
        item_id: like what; never part of the answer.
        k: items wanted, 1..500.
        exclude: item ids that must not be shown.
        only: show nothing outside these ids. None: no limit.
        request_id: comes back in the answer.

    Raises:
        ValueError: ``k`` is out of range.
    """

    item_id: str
    k: int = 10
    exclude: Collection[str] = ()
    only: Collection[str] | None = None
    request_id: str | None = None

    def __post_init__(self) -> None:
        _check_k(self.k)


@dataclass(frozen=True, slots=True)
class RecommendedItem:
    """One place of a slate.

    Attributes:
        item_id: what to show.
        score: higher is better, comparable within one ``source`` only.
        source: which retriever or fallback found it.
        propensity: probability that this policy shows this item in answer to this request. The
            slate is deterministic, so it is 1.0 for every item shown; a policy that explores
            writes what it drew with.
    """

    item_id: str
    score: float
    source: str
    propensity: float = 1.0


@dataclass(slots=True)
class Filtered:
    """Why candidates were left out of one answer, as counts.

    Attributes:
        excluded: named in ``exclude`` or ``recent_items``, or the item itself.
        not_in_only: outside ``only``.
        hidden: not recommendable now (the alive bitmap).
        unknown_exclude: ids in ``exclude`` that the catalogue does not have; ignored.
        unknown_only: ids in ``only`` that the catalogue does not have; ignored.
    """

    excluded: int = 0
    not_in_only: int = 0
    hidden: int = 0
    unknown_exclude: int = 0
    unknown_only: int = 0


@dataclass(frozen=True, slots=True)
class Recommendations:
    """One answer.

    Attributes:
        items: the slate, first place first; no item twice.
        source: stage that gave the first place: ``cache``, ``previous_generation``, ``live``,
            ``similar_to_last_item``, ``similar``, ``popular``, ``catalogue``, or ``none`` when
            every item of the catalogue was filtered out. Of ``live`` with a threshold there may
            be no first place.
        generation: whose lists were used; None when only the bundled list was there and it has
            no name.
        request_id: of the request.
        degraded: something was broken or too slow; a cold user alone is not.
        reason: why this is not the first stage's answer, e.g. ``unknown_user`` or
            ``store_unavailable``; None when it is.
        filtered: what was left out and why.
    """

    items: tuple[RecommendedItem, ...]
    source: str
    generation: str | None
    request_id: str
    degraded: bool = False
    reason: str | None = None
    filtered: Filtered = field(default_factory=Filtered)


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k must be in 1..{MAX_K}, got {k}")
