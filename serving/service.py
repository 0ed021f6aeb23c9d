"""One request from question to answer: candidates, filters, slate, and a fallback for each."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from serving.errors import CorruptValue, DeadlineExceeded, NoGeneration, ServingError
from serving.live import BoundedLive
from serving.messages import (
    LiveRecommender,
    Recommendations,
    RecommendRequest,
    SimilarRequest,
)
from serving.reader import GenerationReader, View
from serving.selection import Named, Selection
from serving.settings import ServiceSettings
from serving.slates import RowVectors, SlateBuilder, SlateMaker
from serving.snapshot import BundledPopular
from serving.store import GenerationStore
from serving.telemetry import Telemetry

__all__ = ["RecommendationService"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Work:
    """State of one request."""

    view: View
    selection: Selection
    k: int
    diversity: float
    deadline: float
    local_only: bool
    user_id: str | None = None
    recent: Sequence[str] = ()
    threshold: bool = False
    whole: bool = False  # the stage's answer stands as it is, however short
    generation: str | None = None
    source: str = "none"
    broken: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


class RecommendationService:
    """Answers from the store, and from less and less as things are missing.

    Stages, in order: ``live`` when the request says what the user just did, ``cache`` (the
    user's list of the served generation), ``previous_generation``, ``similar_to_last_item``,
    ``popular``, ``catalogue``. The first that has something allowed gives the answer; ``popular``
    fills it up to ``k``. An unknown user is an ordinary case, not an error, and the list is
    empty only when every item of the catalogue is filtered out, or when the request sets a
    threshold and the live stage finds nothing above it.

    Args:
        store: where generations are.
        live: recommends from what the user did just now. None: no such stage.
        settings: times and sizes.
        bundled: list to answer with when the process starts without the store.
        row_vectors: reads item vectors out of packed rows, for diversity.
        build_slate: the slate rule. None: `recsys.ranking.slate.build_slate`.
        telemetry: where counts go. None: its own.
        clock: seconds, only differences count.
    """

    def __init__(
        self,
        store: GenerationStore,
        *,
        live: LiveRecommender | None = None,
        settings: ServiceSettings | None = None,
        bundled: BundledPopular | None = None,
        row_vectors: RowVectors | None = None,
        build_slate: SlateBuilder | None = None,
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or ServiceSettings()
        self.telemetry = telemetry or Telemetry()
        self.store = store
        self._clock = clock
        self._reader = GenerationReader(
            store,
            bundled=bundled,
            settings=self.settings,
            clock=clock,
            on_error=lambda problem: self.telemetry.stage_error("store", problem),
        )
        if self._reader.near_cache is not None:
            self.telemetry.watch_near_cache(self._reader.near_cache.stats)
        self._live = BoundedLive(live, workers=self.settings.live_workers) if live else None
        self._slates = SlateMaker(
            self._reader, row_vectors=row_vectors, build=build_slate, pool=self.settings.slate_pool
        )

    def recommend(self, request: RecommendRequest, *, local_only: bool = False) -> Recommendations:
        """A slate for a user.

        Args:
            request: what is asked.
            local_only: ask neither the store nor the live recommender (load shedding).

        Raises:
            NoGeneration: there was never anything to serve from.
        """
        view = self._reader.last_view() if local_only else self._reader.view()
        selection = Selection(
            view.snapshot,
            exclude=request.exclude,
            silent_exclude=request.recent_items,
            only=request.only,
        )
        diversity = self.settings.diversity if request.diversity is None else request.diversity
        work = _Work(
            view=view,
            selection=selection,
            k=request.k,
            diversity=diversity,
            deadline=self._clock() + self.settings.deadline_s,
            local_only=local_only,
            user_id=request.user_id,
            recent=request.recent_items,
            threshold=request.threshold,
        )
        self._run(
            work,
            [
                ("live", self._from_live),
                ("cache", self._from_cache),
                ("previous_generation", self._from_previous),
                ("similar_to_last_item", self._from_last_item),
            ],
        )
        return self._answer(work, request.request_id)

    def similar(self, request: SimilarRequest, *, local_only: bool = False) -> Recommendations:
        """Items like another; an unknown item gets the popular ones, and ``reason`` says so.

        Args:
            request: what is asked.
            local_only: do not ask the store (load shedding).

        Raises:
            NoGeneration: there was never anything to serve from.
        """
        view = self._reader.last_view() if local_only else self._reader.view()
        selection = Selection(
            view.snapshot,
            exclude=request.exclude,
            silent_exclude=(request.item_id,),
            only=request.only,
        )
        work = _Work(
            view=view,
            selection=selection,
            k=request.k,
            diversity=0.0,
            deadline=self._clock() + self.settings.deadline_s,
            local_only=local_only,
            recent=(request.item_id,),
        )
        self._run(work, [("similar", lambda one: self._neighbours(one, "similar"))])
        return self._answer(work, request.request_id)

    def warm_up(self) -> None:
        """Read the served generation now rather than in the first request; never raises."""
        try:
            self._reader.view()
        except ServingError as error:
            log.warning("started without a generation: %s", error)

    def not_ready(self) -> str | None:
        """Why this process should get no traffic yet; None when it may.

        A process that has read a generation stays ready while the store is away: it answers,
        flagged as degraded, which is better than nobody answering.
        """
        try:
            view = self._reader.view()
        except NoGeneration:
            return "no_generation"
        return None if view.from_store else view.problem or "no_generation"

    def served_generation(self) -> str | None:
        """The generation answers come from now, None before there is one."""
        try:
            return self._reader.last_view().snapshot.generation
        except NoGeneration:
            return None

    def close(self) -> None:
        """End the threads of the live stage."""
        if self._live is not None:
            self._live.close()

    # -- stages: allowed and ordered entries, or nothing ----------------------------------------

    def _from_live(self, work: _Work) -> list[Named]:
        if self._live is None or not work.recent or work.local_only:
            return []
        found = self._live.recommend(
            work.recent,
            max(work.k, self.settings.slate_pool) if work.diversity > 0 else work.k,
            user_id=work.user_id,
            exclude=work.selection.exclude,
            only=work.selection.only,
            threshold=work.threshold,
            timeout_s=min(self.settings.live_timeout_s, self._left(work)),
        )
        work.whole = work.threshold
        if not found:
            work.missed.append("nothing_likely" if work.whole else "unknown_recent_items")
        return found

    def _from_cache(self, work: _Work) -> list[Named]:
        if work.user_id is None:
            work.missed.append("no_user")
            return []
        snapshot = work.view.snapshot
        found = None
        if not work.local_only:
            try:
                found = self._reader.user(snapshot, work.user_id)
            except ServingError as error:
                work.broken.append(_reason(error))
        if found is None and (work.broken or work.view.problem or work.local_only):
            found = self._reader.remembered_user(snapshot, work.user_id)
        if found is None:
            if not work.broken:
                work.missed.append("unknown_user")
            return []
        return snapshot.named(found)

    def _from_previous(self, work: _Work) -> list[Named]:
        previous = work.view.previous
        if previous is None or work.user_id is None or work.local_only or work.broken:
            return []
        try:
            snapshot = self._reader.snapshot(previous)
        except NoGeneration:
            return []
        found = self._reader.user(snapshot, work.user_id)
        if found is None:
            return []
        work.generation = previous
        return snapshot.named(found)

    def _from_last_item(self, work: _Work) -> list[Named]:
        return self._neighbours(work, "similar_to_last_item")

    def _neighbours(self, work: _Work, label: str) -> list[Named]:
        snapshot = work.view.snapshot
        known = [one for one in work.recent if one in snapshot.rows]
        if not known:
            if work.recent:
                work.missed.append("unknown_item")
            return []
        if work.local_only or work.broken:
            return []
        found = self._reader.neighbours(snapshot, known[-1])
        if found is None:
            work.missed.append("no_neighbours")
            return []
        return snapshot.named(found, label)

    def _run(
        self, work: _Work, stages: list[tuple[str, Callable[[_Work], Iterable[Named]]]]
    ) -> None:
        """First stage with something allowed; then popular items up to ``k``."""
        snapshot, selection = work.view.snapshot, work.selection
        for name, stage in stages:
            if self._left(work) <= 0:
                work.broken.append("deadline")
                break
            work.generation = snapshot.generation
            try:
                offered = list(stage(work))
                allowed = selection.allowed(offered)
                if offered and not allowed:
                    work.missed.append("all_filtered")
                chosen = self._choose(work, allowed)
            except ServingError as error:
                work.broken.append(_reason(error))
                if error.stage == "live":
                    self.telemetry.stage_error("live", _reason(error))
                continue
            if chosen or work.whole:
                selection.take(chosen)
                work.source = name
                break
        else:
            work.generation = snapshot.generation
        if work.whole:
            return
        if not selection.items:
            work.generation = snapshot.generation
        self._fill(work, "popular", snapshot.named(snapshot.popular, "popular"))
        if not selection.items or selection.only is not None:
            alone = selection.only
            rest = (
                snapshot.item_ids
                if alone is None
                else sorted(alone & snapshot.rows.keys(), key=snapshot.rows.__getitem__)
            )
            self._fill(work, "catalogue", ((item_id, 0.0, "catalogue") for item_id in rest))

    def _choose(self, work: _Work, allowed: list[Named]) -> list[Named]:
        if work.local_only or self._left(work) <= 0:
            return allowed[: work.k]
        try:
            return self._slates.choose(work.view.snapshot, allowed, work.k, work.diversity)
        except ServingError as error:  # a plain slate is better than another stage's
            work.broken.append(_reason(error))
            return allowed[: work.k]

    def _fill(self, work: _Work, name: str, offered: Iterable[Named]) -> None:
        room = work.k - len(work.selection.items)
        if room <= 0:
            return
        chosen = work.selection.allowed(offered)[:room]
        if chosen and not work.selection.items:
            work.source = name
        work.selection.take(chosen)

    def _left(self, work: _Work) -> float:
        return work.deadline - self._clock()

    def _answer(self, work: _Work, request_id: str | None) -> Recommendations:
        broken = [*work.broken]
        if work.view.problem is not None:
            broken.insert(0, work.view.problem)
        if work.local_only:
            broken.insert(0, "overloaded")
        full = work.selection.items and work.source in ("cache", "live", "similar")
        missed = [] if full else work.missed
        reason = next(iter([*broken, *missed]), None)
        if reason is not None:
            self.telemetry.fallback(work.source, reason)
        return Recommendations(
            items=tuple(work.selection.items),
            source=work.source,
            generation=work.generation,
            request_id=request_id or uuid.uuid4().hex,
            degraded=bool(broken),
            reason=reason,
            filtered=work.selection.filtered,
        )


def _reason(error: ServingError) -> str:
    if isinstance(error, CorruptValue):
        return "corrupt_value"
    if isinstance(error, DeadlineExceeded):
        return f"{error.stage}_deadline"
    if isinstance(error, NoGeneration):
        return "generation_expired"
    return f"{error.stage}_unavailable"
