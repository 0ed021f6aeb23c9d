"""From a question to the work it makes: which generation, which arms, what the user just did."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from recsys.config.serving import ServiceSettings
from serving.errors import (
    CursorExpired,
    CursorMismatch,
    NoGeneration,
    ServingError,
    StageUnavailable,
)
from serving.events.sessions import SessionEvent
from serving.messages import RecommendRequest, StageOutcome
from serving.request.cursor import Page, decode_cursor, question_of
from serving.request.experiments import Assignment, Experiments
from serving.request.reader import GenerationReader, View
from serving.request.selection import Selection
from serving.request.stages import Stages
from serving.request.work import Work, reason_of

__all__ = ["Intake"]


class Intake:
    """Makes `Work` of questions, and reads what the store knows of who asks.

    Args:
        reader: the store, and what is remembered of it.
        stages: know the models.
        settings: times and sizes.
        experiments: assign arms. None: nobody is in one.
        clock: seconds, only differences count.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        reader: GenerationReader,
        stages: Stages,
        *,
        settings: ServiceSettings,
        experiments: Experiments | None,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._stages = stages
        self._settings = settings
        self._experiments = experiments
        self._clock = clock
        self._wall_clock = wall_clock

    def view(self, local_only: bool = False) -> View:
        """The generation that answers come from.

        Raises:
            NoGeneration: there was never anything to serve from.
        """
        return self._reader.last_view() if local_only else self._reader.view()

    def begin(self, request: RecommendRequest, local_only: bool) -> Work:
        """The work that a question makes.

        Raises:
            NoGeneration: there was never anything to serve from.
            CursorMismatch: the cursor is damaged or of another question.
            CursorExpired: the generation of the cursor's pages is gone.
            StageUnavailable: it is not in memory, and the store must not be asked or is away.
        """
        view = self.view(local_only)
        now = self._wall_clock()
        assigned = Assignment()
        if self._experiments is not None:
            assigned = self._experiments.assign(request.user_id, now)
        page = self._page(request, now)
        problem = None
        if request.cursor is not None:
            view = self._view_of_page(page.generation, view, local_only)
        elif assigned.settings.generation is not None:
            view, problem = self._pinned(assigned.settings.generation, view, local_only)
        selection = Selection(
            view.snapshot,
            exclude=request.exclude,
            silent_exclude=request.recent_items,
            only=request.only,
            shown=page.shown,
        )
        work = self.work(
            view,
            selection,
            k=request.k,
            diversity=request.diversity,
            local_only=local_only,
            user_id=request.user_id,
            recent=request.recent_items,
            page=page,
            assigned=assigned,
        )
        work.threshold, work.segment = request.threshold, request.segment
        if problem is not None:
            work.broken.append(problem)
        return work

    def work(
        self,
        view: View,
        selection: Selection,
        *,
        k: int,
        diversity: float | None,
        local_only: bool = False,
        user_id: str | None = None,
        recent: Sequence[str] = (),
        page: Page | None = None,
        assigned: Assignment | None = None,
    ) -> Work:
        """The work that any question makes.

        Args:
            view: what it works with.
            selection: its filters.
            k: places wanted.
            diversity: of the slate. None: as configured.
            local_only: ask neither the store nor a model.
            user_id: who asks.
            recent: what the user just did.
            page: where the slate begins. None: at the beginning, now.
            assigned: the user's arms. None: none.
        """
        settings, assigned = self._settings, assigned or Assignment()
        arm = assigned.settings
        page = page or Page("", (), round(self._wall_clock() * 1e6), 0)
        diversity = settings.diversity if diversity is None else diversity
        if arm.diversity is not None:
            diversity = arm.diversity
        rerank = settings.rerank if arm.rerank is None else arm.rerank
        if arm.ranker in ("noop", "popular"):
            rerank = "never"
        return Work(
            view=view,
            selection=selection,
            k=k,
            diversity=0.0 if arm.ranker not in (None, "default") else diversity,
            deadline=self._clock() + settings.deadline_s,
            now=self._clock,
            local_only=local_only,
            user_id=user_id,
            recent=recent,
            moment_us=page.until_us if settings.moment == "now" else None,
            rerank=rerank,
            slate_pool=settings.slate_pool if arm.slate_pool is None else arm.slate_pool,
            page=page,
            arms=assigned.arms,
            arm=arm,
        )

    def read_states(self, works: Sequence[Work]) -> None:
        """What the store knows of the users; one round trip for each generation."""
        by_generation: dict[str | None, list[Work]] = {}
        for work in works:
            if work.user_id is not None and not work.local_only:
                by_generation.setdefault(work.view.snapshot.generation, []).append(work)
        for asked in by_generation.values():
            user_ids = [work.user_id for work in asked if work.user_id is not None]
            began = time.perf_counter()
            reason = None
            try:
                states = self._reader.users(asked[0].view.snapshot, user_ids)
            except ServingError as error:
                reason, states = reason_of(error), []
            ms = (time.perf_counter() - began) * 1e3
            for at, work in enumerate(asked):
                ended = "done" if reason is None else "failed"
                work.outcomes.append(StageOutcome("read_user", ms, ended, reason))
                if reason is not None:
                    work.broken.append(reason)
                else:
                    work.state = states[at]
                    self._take_session(work, states[at].session)

    # -- inside -------------------------------------------------------------------------------

    def _page(self, request: RecommendRequest, now: float) -> Page:
        question = question_of(request)
        if request.cursor is None:
            seed = int.from_bytes(os.urandom(8), "little")
            return Page("", (), round(now * 1e6), question, seed)
        page = decode_cursor(request.cursor)
        if page.question != question:
            raise CursorMismatch(
                "cursor must come with the question it was given for, only k may differ; ask for "
                "the first page without one"
            )
        return page

    def _view_of_page(self, generation: str, view: View, local_only: bool) -> View:
        try:
            return self._view_of(generation, view, local_only)
        except NoGeneration as error:
            raise CursorExpired(
                f"the pages of generation {generation} are gone; ask for the first page without a "
                "cursor"
            ) from error

    def _pinned(self, generation: str, view: View, local_only: bool) -> tuple[View, str | None]:
        """The view that an arm pins, or the served one and why."""
        try:
            return self._view_of(generation, view, local_only), None
        except NoGeneration:
            return view, "pinned_generation_gone"
        except ServingError as error:
            return view, reason_of(error)

    def _view_of(self, generation: str, view: View, local_only: bool) -> View:
        if view.snapshot.generation == generation:
            return view
        self._stages.want(generation)
        snapshot = self._reader.known_snapshot(generation)
        if snapshot is None:
            if local_only:
                raise StageUnavailable("too busy to read another generation", stage="store")
            snapshot = self._reader.snapshot(generation)
        return View(snapshot, None, None, from_store=True)

    def _take_session(self, work: Work, session: Sequence[SessionEvent]) -> None:
        """What the user did before the first page was asked for, and the lists do not know."""
        if not work.page.generation and session:  # a first page knows all, whatever its clock says
            newest_us = max(event.timestamp_us for event in session)
            work.page = work.page._replace(until_us=max(work.page.until_us, newest_us))
        met = [event for event in session if event.timestamp_us <= work.page.until_us]
        if not met:
            return
        from recsys.recommender.past import FreshEvent

        snapshot = work.view.snapshot
        model = self._stages.model(snapshot.generation)
        if model is not None:
            since_us = model.as_of_us
        else:
            since_us = round(snapshot.manifest.published_at * 1e6) if snapshot.manifest else 0
        work.met = [event.item_id for event in met]
        work.selection.exclude_silently(work.met)
        work.fresh = [
            FreshEvent(event.item_id, event.timestamp_us, event.event, event.weight)
            for event in met
            if event.timestamp_us >= since_us
        ]
