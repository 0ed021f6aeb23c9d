"""One request from question to answer: candidates, filters, slate, and a fallback for each."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from serving.cursor import Page, decode_cursor, encode_cursor, question_of
from serving.errors import (
    CursorExpired,
    CursorMismatch,
    NoGeneration,
    NotSupported,
    ServingError,
    StageUnavailable,
)
from serving.event_stream import EventStream
from serving.explaining import explained
from serving.live import BoundedCalls, LiveModels
from serving.messages import (
    MAX_K,
    Event,
    EventReport,
    ExplainRequest,
    Explanation,
    ItemsReport,
    RankRequest,
    Recommendations,
    RecommendRequest,
    SimilarRequest,
    StageOutcome,
)
from serving.reader import GenerationReader, View
from serving.selection import Named, Selection
from serving.sessions import SessionEvent, Sessions
from serving.settings import ServiceSettings
from serving.slates import RowVectors, SlateBuilder, SlateMaker
from serving.snapshot import BundledPopular
from serving.stages import Stages
from serving.store import GenerationStore
from serving.telemetry import Telemetry
from serving.work import Work, reason_of

__all__ = ["RecommendationService"]

log = logging.getLogger(__name__)

Stage = tuple[str, Callable[[Work], list[Named]]]
_FIRST_STAGES = ("cache", "live", "similar", "rank")


class RecommendationService:
    """Answers from the store, and from less and less as things are missing.

    Stages, in order: ``live`` when the user did something that the published lists do not know,
    ``cache`` (the user's list of the served generation, ranked again where the settings say so),
    ``previous_generation``, ``similar_to_last_item``, ``popular_in_segment``, ``popular``,
    ``catalogue``. The first that has something allowed gives the answer; popular items fill it up
    to ``k``. An unknown user is an ordinary case, not an error, and the list is empty only when
    every item of the catalogue is filtered out, or when the request sets a threshold and the live
    stage finds nothing above it.

    A request that is answered from a list takes one round trip to the store, one that is ranked
    again at most a second one, for item rows that are not in memory.

    Args:
        store: where generations are.
        models: the models in memory. None: no live stage, nothing is ranked again.
        sessions: what users did just now, in the same store. None: only requests tell.
        stream: takes feedback in. None: `record` is not supported.
        settings: times and sizes.
        bundled: list to answer with when the process starts without the store.
        row_vectors: reads item vectors out of packed rows, for diversity.
        build_slate: the slate rule. None: `recsys.ranking.slate.build_slate`.
        telemetry: where counts go. None: its own.
        clock: seconds, only differences count.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: GenerationStore,
        *,
        models: LiveModels | None = None,
        sessions: Sessions | None = None,
        stream: EventStream | None = None,
        settings: ServiceSettings | None = None,
        bundled: BundledPopular | None = None,
        row_vectors: RowVectors | None = None,
        build_slate: SlateBuilder | None = None,
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings or ServiceSettings()
        self.telemetry = telemetry or Telemetry()
        self.store = store
        self._stream = stream
        self._clock = clock
        self._wall_clock = wall_clock
        self._reader = GenerationReader(
            store,
            bundled=bundled,
            settings=self.settings,
            clock=clock,
            on_error=lambda problem: self.telemetry.stage_error("store", problem),
            sessions=sessions,
        )
        if self._reader.near_cache is not None:
            self.telemetry.watch_near_cache(self._reader.near_cache.stats)
        self._calls = BoundedCalls(self.settings.live_workers) if models is not None else None
        self._stages = Stages(
            self._reader, models=models, calls=self._calls, settings=self.settings
        )
        self._slates = SlateMaker(
            self._reader, row_vectors=row_vectors, build=build_slate, pool=self.settings.slate_pool
        )

    # -- questions ------------------------------------------------------------------------------

    def recommend(self, request: RecommendRequest, *, local_only: bool = False) -> Recommendations:
        """A slate for a user.

        Args:
            request: what is asked.
            local_only: ask neither the store nor a model (load shedding).

        Raises:
            NoGeneration: there was never anything to serve from.
            CursorMismatch: the cursor is damaged or of another question.
            CursorExpired: the generation of the cursor's pages is gone.
        """
        return self.recommend_many([request], local_only=local_only)[0]

    def recommend_many(
        self, requests: Sequence[RecommendRequest], *, local_only: bool = False
    ) -> list[Recommendations]:
        """Slates for several users; all that the store knows of them is read at once.

        Raises:
            ServingError: as `recommend`, for the first request that fails.
        """
        begun = [self._begin(request, local_only) for request in requests]
        self._read_states([work for work, _ in begun])
        answers = []
        for request, (work, page) in zip(requests, begun, strict=True):
            self._run(
                work,
                [
                    ("live", self._stages.live),
                    ("cache", self._stages.cache),
                    ("previous_generation", self._stages.previous),
                    (
                        "similar_to_last_item",
                        lambda one: self._stages.neighbours(one, "similar_to_last_item"),
                    ),
                ],
            )
            cursor = self._next_page(work, page)
            answers.append(self._answer(work, request.request_id, request.debug, cursor))
        return answers

    def rank(self, request: RankRequest) -> Recommendations:
        """The items that the caller brings, best first for a user.

        Items that the model does not know keep their order at the end; without a model, or when it
        is too slow, all of them do, and the answer is a degraded one.

        Args:
            request: what is asked.

        Raises:
            NoGeneration: there was never anything to serve from.
        """
        view = self._reader.view()
        work = self._work(
            view,
            Selection(view.snapshot, exclude=(), only=None),
            k=len(request.item_ids),
            diversity=request.diversity or 0.0,
            user_id=request.user_id,
            recent=request.recent_items,
        )
        self._read_states([work])
        snapshot = view.snapshot
        rows = np.array([snapshot.rows.get(one, 0) for one in request.item_ids], dtype=np.int64)
        known = np.flatnonzero(rows)
        model = self._stages.model(snapshot.generation)
        score = np.zeros(rows.size)
        work.source, work.generation = "given_order", snapshot.generation
        if model is None:
            work.broken.append("no_model")
        elif known.size == 0:
            work.missed.append("unknown_items")
        else:
            try:
                with work.timed("rank"):
                    score[known] = self._stages.rank(work, model, rows[known])
                work.source = "rank"
            except ServingError as error:
                self._note(work, error)
        if work.source == "rank":
            best = known[np.argsort(-score[known], kind="stable")]
            entries = [(request.item_ids[at], float(score[at]), "rank") for at in best.tolist()]
            work.selection.take(self._choose(work, entries, len(entries)))
        left = [(one, 0.0, "given_order") for one in request.item_ids]
        work.selection.take(work.selection.left_of(left))
        return self._answer(work, request.request_id, request.debug, None)

    def similar(self, request: SimilarRequest, *, local_only: bool = False) -> Recommendations:
        """Items like another; an unknown item gets the popular ones, and ``reason`` says so.

        Args:
            request: what is asked.
            local_only: do not ask the store (load shedding).

        Raises:
            NoGeneration: there was never anything to serve from.
        """
        view = self._view(local_only)
        selection = Selection(
            view.snapshot,
            exclude=request.exclude,
            silent_exclude=(request.item_id,),
            only=request.only,
        )
        work = self._work(
            view, selection, k=request.k, local_only=local_only, recent=(request.item_id,)
        )
        self._run(work, [("similar", lambda one: self._stages.neighbours(one, "similar"))])
        return self._answer(work, request.request_id, False, None)

    def explain(self, request: ExplainRequest) -> Explanation:
        """Why items stand where they stand for a user, or why they do not appear.

        Raises:
            NotSupported: this process has no model of the served generation.
            NoGeneration: there was never anything to serve from.
            ServingError: the model is too slow, busy or broken.
        """
        view = self._reader.view()
        model = self._stages.model(view.snapshot.generation)
        if model is None or self._calls is None:
            raise NotSupported(
                "explanations need the model of the served generation, and this process has not "
                "loaded it; set serving.live, or try again when it is loaded"
            )
        asked = RecommendRequest(request.user_id, MAX_K, recent_items=request.recent_items)
        work, _ = self._begin(asked, False)
        self._read_states([work])
        shown = self.recommend(asked)
        snapshot = view.snapshot
        rows = [snapshot.rows[one] for one in request.item_ids if one in snapshot.rows]
        question, index = work.question(), np.array(rows, dtype=np.int64)
        found = self._calls.run(lambda: model.explain(question, index), self.settings.deadline_s)
        return explained(request, snapshot, found, shown)

    # -- feedback and items ---------------------------------------------------------------------

    def record(self, events: Sequence[Event]) -> EventReport:
        """Take feedback in; it counts in the next answer, and it is in the store on return.

        Args:
            events: what users did; the same event counts once however often it is sent.

        Raises:
            NotSupported: this process takes none.
            ValueError: an event breaks a rule; then none of them was taken in.
            StageUnavailable: the store does not answer; send them again.
        """
        if self._stream is None:
            raise NotSupported("this process takes no feedback; set serving.sessions")
        try:
            known = self._reader.last_view().snapshot.rows
        except NoGeneration:
            known = None
        return self._stream.record(events, known_items=known)

    def hide(self, item_ids: Sequence[str]) -> ItemsReport:
        """Stop recommending items, at once here and within ``head_ttl_s`` everywhere.

        Raises:
            NoGeneration: nothing is published.
            StageUnavailable: the store does not answer.
        """
        return self._set_alive(item_ids, False)

    def restore(self, item_ids: Sequence[str]) -> ItemsReport:
        """Recommend hidden items again; see `hide`."""
        return self._set_alive(item_ids, True)

    # -- the process ----------------------------------------------------------------------------

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
        """End the threads that call models."""
        if self._calls is not None:
            self._calls.close()

    # -- inside: beginning ------------------------------------------------------------------------

    def _view(self, local_only: bool) -> View:
        return self._reader.last_view() if local_only else self._reader.view()

    def _begin(self, request: RecommendRequest, local_only: bool) -> tuple[Work, Page]:
        view = self._view(local_only)
        question = question_of(request)
        page = Page("", (), round(self._wall_clock() * 1e6), question)
        if request.cursor is not None:
            page = decode_cursor(request.cursor)
            if page.question != question:
                raise CursorMismatch(
                    "cursor must come with the question it was given for, only k may differ; ask "
                    "for the first page without one"
                )
            view = self._view_of(page.generation, view, local_only)
        selection = Selection(
            view.snapshot,
            exclude=request.exclude,
            silent_exclude=request.recent_items,
            only=request.only,
            shown=page.shown,
        )
        work = self._work(
            view,
            selection,
            k=request.k,
            diversity=self.settings.diversity if request.diversity is None else request.diversity,
            local_only=local_only,
            user_id=request.user_id,
            recent=request.recent_items,
            threshold=request.threshold,
            segment=request.segment,
            until_us=page.until_us,
        )
        return work, page

    def _work(
        self,
        view: View,
        selection: Selection,
        *,
        k: int,
        diversity: float = 0.0,
        local_only: bool = False,
        user_id: str | None = None,
        recent: Sequence[str] = (),
        threshold: bool = False,
        segment: str | None = None,
        until_us: int | None = None,
    ) -> Work:
        now_us = round(self._wall_clock() * 1e6) if until_us is None else until_us
        return Work(
            view=view,
            selection=selection,
            k=k,
            diversity=diversity,
            deadline=self._clock() + self.settings.deadline_s,
            now=self._clock,
            local_only=local_only,
            user_id=user_id,
            recent=recent,
            until_us=now_us,
            moment_us=now_us if self.settings.moment == "now" else None,
            threshold=threshold,
            segment=segment,
            rerank=self.settings.rerank,
        )

    def _view_of(self, generation: str, view: View, local_only: bool) -> View:
        """The view of a page's generation, which may have been replaced since."""
        if view.snapshot.generation == generation:
            return view
        snapshot = self._reader.known_snapshot(generation)
        if snapshot is None and not local_only:
            try:
                snapshot = self._reader.snapshot(generation)
            except NoGeneration as error:
                raise CursorExpired(
                    f"the pages of generation {generation} are gone; ask for the first page "
                    "without a cursor"
                ) from error
        if snapshot is None:
            raise StageUnavailable("too busy to read an older generation", stage="store")
        return View(snapshot, None, None, from_store=True)

    def _read_states(self, works: Sequence[Work]) -> None:
        """What the store knows of the users; one round trip for each generation."""
        by_generation: dict[str | None, list[Work]] = {}
        for work in works:
            if work.user_id is not None and not work.local_only:
                by_generation.setdefault(work.view.snapshot.generation, []).append(work)
        for asked in by_generation.values():
            user_ids = [work.user_id for work in asked if work.user_id is not None]
            began = time.perf_counter()
            failed: ServingError | None = None
            try:
                states = self._reader.users(asked[0].view.snapshot, user_ids)
            except ServingError as error:
                failed = error
            ms = (time.perf_counter() - began) * 1e3
            for at, work in enumerate(asked):
                work.outcomes.append(
                    StageOutcome(
                        "read_user",
                        ms,
                        "done" if failed is None else "failed",
                        None if failed is None else reason_of(failed),
                    )
                )
                if failed is not None:
                    work.broken.append(reason_of(failed))
                else:
                    work.state = states[at]
                    self._take_session(work, states[at].session)

    def _take_session(self, work: Work, session: Sequence[SessionEvent]) -> None:
        """What the user did before the first page was asked for, and the lists do not know."""
        met = [event for event in session if event.timestamp_us <= work.until_us]
        if not met:
            return
        from recsys.live_request import FreshEvent

        manifest = work.view.snapshot.manifest
        model = self._stages.model(work.view.snapshot.generation)
        since_us = 0 if manifest is None else round(manifest.published_at * 1e6)
        if model is not None:
            since_us = model.as_of_us
        work.selection.exclude_silently({event.item_id for event in met})
        work.fresh = [
            FreshEvent(event.item_id, event.timestamp_us, event.event, event.weight)
            for event in met
            if event.timestamp_us >= since_us
        ]

    # -- inside: stages and slate -----------------------------------------------------------------

    def _run(self, work: Work, stages: Sequence[Stage]) -> None:
        """First stage with something allowed; then popular items up to ``k``."""
        snapshot, selection = work.view.snapshot, work.selection
        for name, stage in stages:
            if work.left_s <= 0:
                work.broken.append("deadline")
                break
            work.generation = snapshot.generation
            try:
                with work.timed(name) as outcome:
                    allowed = stage(work)
                    outcome.ended = "answered" if allowed or work.whole else "empty"
            except ServingError as error:
                self._note(work, error)
                continue
            chosen = self._choose(work, allowed, work.k)
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
        if work.segment is not None and work.segment in snapshot.segments:
            of_segment = snapshot.segments[work.segment]
            self._fill(work, "popular_in_segment", snapshot.named(of_segment, "popular_in_segment"))
        self._fill(work, "popular", snapshot.named(snapshot.popular, "popular"))
        if not selection.items or selection.only is not None:
            alone = selection.only
            rest = (
                snapshot.item_ids
                if alone is None
                else sorted(alone & snapshot.rows.keys(), key=snapshot.rows.__getitem__)
            )
            self._fill(work, "catalogue", ((item_id, 0.0, "catalogue") for item_id in rest))

    def _choose(self, work: Work, allowed: list[Named], k: int) -> list[Named]:
        if work.local_only or work.diversity <= 0 or work.left_s <= 0:
            return allowed[:k]
        try:
            with work.timed("slate"):
                return self._slates.choose(work.view.snapshot, allowed, k, work.diversity)
        except ServingError as error:  # a plain slate is better than another stage's
            work.broken.append(reason_of(error))
            return allowed[:k]

    def _fill(self, work: Work, name: str, offered: Iterable[Named]) -> None:
        room = work.k - len(work.selection.items)
        if room <= 0:
            return
        chosen = work.selection.allowed(offered)[:room]
        if chosen and not work.selection.items:
            work.source = name
        work.selection.take(chosen)

    def _note(self, work: Work, error: ServingError) -> None:
        reason = reason_of(error)
        work.broken.append(reason)
        if error.stage == "live":
            self.telemetry.stage_error("live", reason)

    # -- inside: answering ------------------------------------------------------------------------

    def _next_page(self, work: Work, page: Page) -> str | None:
        """The cursor of the page after this one; None when there is none."""
        snapshot, items = work.view.snapshot, work.selection.items
        if snapshot.manifest is None or snapshot.generation is None or work.whole:
            return None
        if len(items) < work.k or len(page.shown) + len(items) >= MAX_K:
            return None
        rows = {snapshot.rows[item.item_id] for item in items if item.item_id in snapshot.rows}
        shown = tuple(sorted(rows.union(page.shown)))
        return encode_cursor(Page(snapshot.generation, shown, page.until_us, page.question))

    def _answer(
        self, work: Work, request_id: str | None, debug: bool, cursor: str | None
    ) -> Recommendations:
        broken = [*work.broken]
        if work.view.problem is not None:
            broken.insert(0, work.view.problem)
        if work.local_only:
            broken.insert(0, "overloaded")
        full = work.selection.items and work.source in _FIRST_STAGES
        missed = [] if full else work.missed
        reason = next(iter([*broken, *missed]), None)
        if reason is not None:
            self.telemetry.fallback(work.source, reason)
        for outcome in work.outcomes:
            self.telemetry.stage_done(outcome.stage, outcome.ms / 1e3)
        return Recommendations(
            items=tuple(work.selection.items),
            source=work.source,
            generation=work.generation,
            request_id=request_id or uuid.uuid4().hex,
            degraded=bool(broken),
            reason=reason,
            filtered=work.selection.filtered,
            cursor=cursor,
            policy=work.policy,
            stages=tuple(work.outcomes) if debug else None,
        )

    def _set_alive(self, item_ids: Sequence[str], alive: bool) -> ItemsReport:
        head = self.store.head()
        if head is None:
            raise NoGeneration("nothing is published; run `recsys publish`")
        known: set[str] = set()
        for generation in (head.generation, head.previous):
            if generation is None:
                continue
            try:
                snapshot = self._reader.snapshot(generation)
            except NoGeneration:
                continue
            found = [one for one in item_ids if one in snapshot.rows]
            self.store.set_alive(generation, [snapshot.rows[one] for one in found], alive)
            known.update(found)
        self._reader.refresh()
        unknown = tuple(one for one in item_ids if one not in known)
        return ItemsReport(len(known), unknown)
