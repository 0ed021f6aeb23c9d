"""What goes into and comes out of the recommendation service."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "Event",
    "EventReport",
    "ExplainRequest",
    "Explanation",
    "Filtered",
    "ItemExplanation",
    "ItemsReport",
    "RankRequest",
    "RecommendRequest",
    "Recommendations",
    "RecommendedItem",
    "SimilarRequest",
    "StageOutcome",
]

MAX_K = 500
MAX_RANKED = 1000
MAX_EXPLAINED = 20


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
        segment: whose popular items to show when nothing is known of the user, such as a country;
            an unknown one gets everybody's.
        cursor: of the answer whose next page is asked for, with everything else unchanged.
        debug: the answer says which stages were tried and how long each took.

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
    segment: str | None = None
    cursor: str | None = None
    debug: bool = False

    def __post_init__(self) -> None:
        _check_k(self.k)
        _check_diversity(self.diversity)


@dataclass(frozen=True, slots=True)
class RankRequest:
    """One question for the order of a list the caller brings.

    Attributes:
        user_id: for whom; None or an unknown id is ranked by ``recent_items`` and the items alone.
        item_ids: 1..1000 different items. Those the model does not know keep their order at the
            end.
        recent_items: what the user did just now, newest last.
        diversity: 0 (by score alone) to 1. None: 0.
        request_id: comes back in the answer.
        debug: the answer says which stages took how long.

    Raises:
        ValueError: an argument is out of range.
    """

    user_id: str | None
    item_ids: Sequence[str]
    recent_items: Sequence[str] = ()
    diversity: float | None = None
    request_id: str | None = None
    debug: bool = False

    def __post_init__(self) -> None:
        _check_diversity(self.diversity)
        _check_items(self.item_ids, MAX_RANKED)


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """One question for why items stand where they stand, or why they do not appear.

    Attributes:
        user_id: for whom; None or unknown: as for ``recommend``.
        item_ids: 1..20 different items.
        recent_items: what the user did just now, newest last.
        request_id: comes back in the answer.

    Raises:
        ValueError: an argument is out of range.
    """

    user_id: str | None
    item_ids: Sequence[str]
    recent_items: Sequence[str] = ()
    request_id: str | None = None

    def __post_init__(self) -> None:
        _check_items(self.item_ids, MAX_EXPLAINED)


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


@dataclass(frozen=True, slots=True)
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
        cursor: asks for the next page; None when there is none.
        arms: arm of the user by experiment, for those this answer took part in.
        policy: what drew the slate, as the impression log names it: ``ranker`` or an arm's.
        stages: what was tried, in order; None unless asked for.
    """

    items: tuple[RecommendedItem, ...]
    source: str
    generation: str | None
    request_id: str
    degraded: bool = False
    reason: str | None = None
    filtered: Filtered = field(default_factory=Filtered)
    cursor: str | None = None
    arms: Mapping[str, str] = field(default_factory=dict)
    policy: str = "ranker"
    stages: tuple[StageOutcome, ...] | None = None


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """One stage of one answer.

    Attributes:
        stage: its name.
        ms: milliseconds it took.
        outcome: ``answered``, ``empty``, ``failed``, ``skipped``, or ``done`` for a part of the
            work that is no source of items.
        detail: the reason, where there is one.
    """

    stage: str
    ms: float
    outcome: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class ItemExplanation:
    """Why one item stands where it stands.

    Attributes:
        item_id: which.
        place: of the item in the slate that would be shown, from 1; None: not in it.
        score: of the ranker; None for an item the model does not know.
        held_back: why it would not be shown: ``excluded``, ``hidden``, ``seen``, ``unknown`` or
            ``not_a_candidate``; None when nothing holds it back.
        retrieval: retriever -> (score, rank among the candidates from 1; None: it is none).
        features: value by feature; None where it is missing.
        contributions: what each feature adds to the score of the trees, largest first in size.
        base: score of the trees that no feature moves.
    """

    item_id: str
    place: int | None
    score: float | None
    held_back: str | None
    retrieval: Mapping[str, tuple[float, int | None]]
    features: Mapping[str, float | None]
    contributions: Mapping[str, float]
    base: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """One answer to an `ExplainRequest`.

    Attributes:
        items: in the order asked.
        generation: whose model explained.
        request_id: of the request.
        source: stage that would answer this user.
        reason: why it would not be the first stage; None when it is.
    """

    items: tuple[ItemExplanation, ...]
    generation: str
    request_id: str
    source: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class ItemsReport:
    """What became of a change of items.

    Attributes:
        changed: items of the served catalogue that are now as asked.
        unknown: ids that it does not have.
    """

    changed: int
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something a user did.

    Attributes:
        user_id: who.
        item_id: with what.
        timestamp: when it happened, seconds since the epoch.
        event: kind, as in the training log.
        weight: as in the training log; None: the log's mean.
        event_id: an event sent again under the same id counts once. None: known by user, item,
            moment and kind.
        request_id: of the answer that showed the item, if one did.
    """

    user_id: str
    item_id: str
    timestamp: float
    event: str = "click"
    weight: float | None = None
    event_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class EventReport:
    """What became of a batch of events; everything counted here is in the store.

    Attributes:
        accepted: new events.
        duplicates: events that were known already.
        unknown_items: accepted events whose item the served catalogue does not have.
    """

    accepted: int
    duplicates: int
    unknown_items: int


def _check_diversity(diversity: float | None) -> None:
    if diversity is not None and not 0.0 <= diversity <= 1.0:
        raise ValueError(f"diversity must be in 0..1, got {diversity}")


def _check_items(item_ids: Sequence[str], most: int) -> None:
    if not 1 <= len(item_ids) <= most:
        raise ValueError(f"item_ids must hold 1..{most} items, got {len(item_ids)}")
    if len(set(item_ids)) != len(item_ids):
        raise ValueError("item_ids must be different: one is there twice")


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k must be in 1..{MAX_K}, got {k}")
