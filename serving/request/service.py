"""One request from question to answer: candidates, filters, slate, and a fallback for each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from features.tables.repeats import RepeatRule
from features.tables.rules import EventRules
from recsys.config.serving import ServiceSettings
from serving.errors import NoGeneration, NotSupported, ServingError
from serving.events.event_stream import EventStream
from serving.events.sessions import Sessions
from serving.impressions.log import FeedbackLog, ImpressionLog
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
)
from serving.models.live import LiveModels
from serving.request.answering import answer_of, explanation_of
from serving.request.experiments import Experiments
from serving.request.intake import Intake
from serving.request.item_visibility import set_alive
from serving.request.ladder import Ladder
from serving.request.reader import GenerationReader
from serving.request.slate_rule import RowVectors, SlateBuilder, SlateRule
from serving.request.snapshot import BundledPopular
from serving.request.stages import Stages
from serving.store import GenerationStore
from serving.telemetry.metrics import Telemetry

__all__ = ["RecommendationService"]

log = logging.getLogger(__name__)


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
        experiments: assign arms. None: nobody is in one.
        impressions: where slates are logged. None: nowhere. It is closed with the service.
        feedback: where feedback is logged as well. None: nowhere. It is closed with the service.
        settings: times and sizes.
        bundled: list to answer with when the process starts without the store.
        row_vectors: reads item vectors out of packed rows, for diversity.
        build_slate: the slate rule. None: `recsys.ranking.slate.build_slate`.
        telemetry: where counts go. None: its own.
        rules: what the users' events mean, as in the log. None: that all are likes.
        repeats: for how long what a user met is hidden from that user. None: for good.
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
        experiments: Experiments | None = None,
        impressions: ImpressionLog | None = None,
        feedback: FeedbackLog | None = None,
        settings: ServiceSettings | None = None,
        bundled: BundledPopular | None = None,
        row_vectors: RowVectors | None = None,
        build_slate: SlateBuilder | None = None,
        telemetry: Telemetry | None = None,
        rules: EventRules | None = None,
        repeats: RepeatRule | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings or ServiceSettings()
        self.telemetry = telemetry or Telemetry()
        self.store = store
        self._stream = stream
        self.experiments = experiments
        self._impressions = impressions
        self._feedback = feedback
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
        self.telemetry.watch_serving(self._reader.state)
        for name, log_ in (("impressions", impressions), ("feedback", feedback)):
            if log_ is not None:
                self.telemetry.watch_row_log(name, log_.stats)
        self._intake = Intake(
            self._reader,
            models=models,
            settings=self.settings,
            experiments=experiments,
            rules=rules or EventRules(),
            repeats=repeats or RepeatRule(),
            clock=clock,
            wall_clock=wall_clock,
        )
        self._stages = Stages(self._reader, models=models, settings=self.settings, clock=clock)
        rule = SlateRule(self._reader, row_vectors=row_vectors, build=build_slate)
        self._ladder = Ladder(self._stages, rule, self.telemetry)

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
        self,
        requests: Sequence[RecommendRequest],
        *,
        local_only: bool = False,
        logged: bool = True,
    ) -> list[Recommendations]:
        """Slates for several users; all that the store knows of them is read at once.

        Args:
            requests: what is asked.
            local_only: see `recommend`.
            logged: these are shown to somebody; False for a rehearsal.

        Raises:
            ServingError: as `recommend`, for the first request that fails.
        """
        answers = []
        questions = self._intake.recommend(requests, local_only=local_only)
        for request, asked in zip(requests, questions, strict=True):
            if asked.policy.arm.ranker == "popular":
                slate = self._ladder.popular(asked)
            else:
                slate = self._ladder.recommend(asked)
            answer = answer_of(
                asked,
                slate,
                self.telemetry,
                request_id=request.request_id,
                debug=request.debug,
                paged=True,
            )
            if logged and self._impressions is not None:
                first = len(asked.page.shown) + 1
                self._impressions.record(request, answer, self._wall_clock(), first_position=first)
            answers.append(answer)
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
        asked = self._intake.rank(request)
        slate = self._ladder.order(asked, request.item_ids)
        return answer_of(
            asked, slate, self.telemetry, request_id=request.request_id, debug=request.debug
        )

    def similar(self, request: SimilarRequest, *, local_only: bool = False) -> Recommendations:
        """Items like another; an unknown item gets the popular ones, and ``reason`` says so.

        Args:
            request: what is asked.
            local_only: do not ask the store (load shedding).

        Raises:
            NoGeneration: there was never anything to serve from.
        """
        asked = self._intake.similar(request, local_only=local_only)
        slate = self._ladder.similar(asked)
        return answer_of(asked, slate, self.telemetry, request_id=request.request_id)

    def explain(self, request: ExplainRequest) -> Explanation:
        """Why items stand where they stand for a user, or why they do not appear.

        Raises:
            NotSupported: this process has no model of the served generation.
            NoGeneration: there was never anything to serve from.
            ServingError: the model is too slow, busy or broken.
        """
        view = self._reader.view()
        model = self._stages.model(view.snapshot.generation)
        if model is None:
            raise NotSupported(
                "explanations need the model of the served generation, and this process has not "
                "loaded it; set serving.live, or try again when it is loaded"
            )
        longest = RecommendRequest(request.user_id, MAX_K, recent_items=request.recent_items)
        asked = self._intake.recommend([longest], local_only=False)[0]
        snapshot = view.snapshot
        rows = [snapshot.rows[one] for one in request.item_ids if one in snapshot.rows]
        found = self._stages.explain(asked, model, np.array(rows, dtype=np.int64))
        slate = self._ladder.recommend(asked)
        shown = answer_of(asked, slate, self.telemetry, request_id=request.request_id)
        return explanation_of(request, snapshot, found, shown)

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
        stream = self._stream
        report = self._reader.call(lambda: stream.record(events, known_items=known))
        if self._feedback is not None:
            self._feedback.record(events)
        return report

    def hide(self, item_ids: Sequence[str]) -> ItemsReport:
        """Stop recommending items, at once here and within ``head_ttl_s`` everywhere.

        They stay hidden in generations to come, those that do not know them yet included.

        Raises:
            NoGeneration: nothing is published.
            StageUnavailable: the store does not answer.
        """
        return set_alive(self.store, self._reader, item_ids, False)

    def restore(self, item_ids: Sequence[str]) -> ItemsReport:
        """Recommend hidden items again; see `hide`."""
        return set_alive(self.store, self._reader, item_ids, True)

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
        """End the threads that call models, and write what the logs still hold."""
        self._stages.close()
        for one in (self._impressions, self._feedback):
            if one is not None:
                one.close()
