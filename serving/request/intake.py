"""From a request to what is asked: which generation, which arms, what the user just did."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from features.tables.repeats import RepeatRule
from features.tables.rules import EventRules
from recsys.config.serving import ServiceSettings
from serving.errors import (
    CursorExpired,
    CursorMismatch,
    NoGeneration,
    ServingError,
    StageUnavailable,
)
from serving.events.sessions import SessionEvent
from serving.messages import RankRequest, RecommendRequest, SimilarRequest, StageOutcome
from serving.models.live import LiveModels, LiveQuestion
from serving.request.asked import Asked, SlatePolicy, policy_of
from serving.request.cursor import Page, decode_cursor, question_of
from serving.request.experiments import Assignment, Experiments
from serving.request.filters import filters_of
from serving.request.reader import GenerationReader, View
from serving.request.snapshot import Snapshot
from serving.request.timings import reason_of
from serving.request.user_states import UserState

if TYPE_CHECKING:
    from recsys.recommender.past import FreshEvent

__all__ = ["Intake"]


class _Begun(NamedTuple):
    """A question before the store is asked about the user."""

    request: RecommendRequest
    k: int
    view: View
    page: Page
    policy: SlatePolicy
    deadline: float
    local_only: bool
    broken: tuple[str, ...] = ()


class _Read(NamedTuple):
    """What became of reading a user's state."""

    state: UserState | None = None
    broken: tuple[str, ...] = ()
    outcomes: tuple[StageOutcome, ...] = ()


_NO_ARMS = Assignment()
_UNREAD = _Read()


class Intake:
    """Makes `Asked` of requests, with what the store knows of who asks.

    Args:
        reader: the store, and what is remembered of it.
        models: the models in memory. None: there is no model.
        settings: times and sizes.
        experiments: assign arms. None: nobody is in one.
        clock: seconds, only differences count.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        reader: GenerationReader,
        *,
        models: LiveModels | None,
        settings: ServiceSettings,
        experiments: Experiments | None,
        rules: EventRules,
        repeats: RepeatRule,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._models = models
        self._settings = settings
        self._experiments = experiments
        self._rules = rules
        self._repeats = repeats
        self._clock = clock
        self._wall_clock = wall_clock

    def recommend(self, requests: Sequence[RecommendRequest], *, local_only: bool) -> list[Asked]:
        """What is asked by each; the store is read once for each generation.

        Raises:
            NoGeneration: there was never anything to serve from.
            CursorMismatch: the cursor is damaged or of another question.
            CursorExpired: the generation of the cursor's pages is gone.
            StageUnavailable: it is not in memory, and the store must not be asked or is away.
        """
        return self._with_users([self._begun(request, local_only) for request in requests])

    def similar(self, request: SimilarRequest, *, local_only: bool) -> Asked:
        """What is asked; the user is nobody, who met the item.

        Raises:
            NoGeneration: there was never anything to serve from.
        """
        asked = RecommendRequest(
            None,
            request.k,
            exclude=request.exclude,
            only=request.only,
            recent_items=(request.item_id,),
        )
        policy = policy_of(self._settings, _NO_ARMS, request.k, 0.0)
        begun = self._plain(asked, request.k, policy, local_only)
        return self._asked(begun, _UNREAD, (request.item_id,))

    def rank(self, request: RankRequest) -> Asked:
        """What is asked; nothing filters a list that the caller brings.

        Raises:
            NoGeneration: there was never anything to serve from.
        """
        k = len(request.item_ids)
        asked = RecommendRequest(request.user_id, recent_items=request.recent_items)
        policy = policy_of(self._settings, _NO_ARMS, k, request.diversity or 0.0)
        return self._with_users([self._plain(asked, k, policy, False)])[0]

    # -- inside -------------------------------------------------------------------------------

    def _view(self, local_only: bool) -> View:
        return self._reader.last_view() if local_only else self._reader.view()

    def _begun(self, request: RecommendRequest, local_only: bool) -> _Begun:
        view, now = self._view(local_only), self._wall_clock()
        assigned = _NO_ARMS
        if self._experiments is not None:
            assigned = self._experiments.assign(request.user_id, now)
        page = _page(request, now)
        broken: tuple[str, ...] = ()
        if request.cursor is not None:
            view = self._view_of_page(page.generation, view, local_only)
        elif assigned.settings.generation is not None:
            view, broken = self._pinned(assigned.settings.generation, view, local_only)
        policy = policy_of(self._settings, assigned, request.k, request.diversity)
        deadline = self._clock() + self._settings.deadline_s
        return _Begun(request, request.k, view, page, policy, deadline, local_only, broken)

    def _plain(
        self, request: RecommendRequest, k: int, policy: SlatePolicy, local_only: bool
    ) -> _Begun:
        """A question that knows no arms and no pages."""
        view = self._view(local_only)
        page = Page("", (), round(self._wall_clock() * 1e6), 0)
        deadline = self._clock() + self._settings.deadline_s
        return _Begun(request, k, view, page, policy, deadline, local_only)

    def _view_of_page(self, generation: str, view: View, local_only: bool) -> View:
        try:
            return self._view_of(generation, view, local_only)
        except NoGeneration as error:
            raise CursorExpired(
                f"the pages of generation {generation} are gone; ask for the first page without a "
                "cursor"
            ) from error

    def _pinned(
        self, generation: str, view: View, local_only: bool
    ) -> tuple[View, tuple[str, ...]]:
        """The view that an arm pins, or the served one and why."""
        try:
            return self._view_of(generation, view, local_only), ()
        except NoGeneration:
            return view, ("pinned_generation_gone",)
        except ServingError as error:
            return view, (reason_of(error),)

    def _view_of(self, generation: str, view: View, local_only: bool) -> View:
        if view.snapshot.generation == generation:
            return view
        if self._models is not None:
            self._models.want(generation)
        snapshot = self._reader.known_snapshot(generation)
        if snapshot is None:
            if local_only:
                raise StageUnavailable("too busy to read another generation", stage="store")
            snapshot = self._reader.snapshot(generation)
        return View(snapshot, None, None, from_store=True)

    def _with_users(self, begun: Sequence[_Begun]) -> list[Asked]:
        """The questions with what the store knows of the users."""
        read = [_UNREAD] * len(begun)
        places: dict[str | None, list[int]] = {}
        for place, one in enumerate(begun):
            if one.request.user_id is not None and not one.local_only:
                places.setdefault(one.view.snapshot.generation, []).append(place)
        for group in places.values():
            began = time.perf_counter()
            reason, states = None, list[UserState]()
            user_ids = [begun[place].request.user_id or "" for place in group]
            try:
                states = self._reader.users(begun[group[0]].view.snapshot, user_ids)
            except ServingError as error:
                reason = reason_of(error)
            ms = (time.perf_counter() - began) * 1e3
            ended = "done" if reason is None else "failed"
            outcomes = (StageOutcome("read_user", ms, ended, reason),)
            for at, place in enumerate(group):
                read[place] = (
                    _Read(states[at], (), outcomes)
                    if reason is None
                    else _Read(None, (reason,), outcomes)
                )
        return [self._asked(*pair) for pair in zip(begun, read, strict=True)]

    def _asked(self, begun: _Begun, read: _Read, filtered: tuple[str, ...] = ()) -> Asked:
        """The question; ``filtered`` are items that must not be shown whatever the rules say."""
        request, snapshot, page = begun.request, begun.view.snapshot, begun.page
        asked_us = page.until_us
        if self._repeats.until_us(asked_us) > asked_us:
            filtered = (*filtered, *request.recent_items)
        met: Sequence[str] = ()
        fresh: Sequence[FreshEvent] = ()
        if read.state is not None and read.state.session:
            page, events = _met(page, read.state.session)
            fresh = self._fresh(snapshot, events) if events else ()
            weighed = [(self._rules.weight_of(one.event, one.weight, 1.0), one) for one in events]
            met = [one.item_id for weight, one in weighed if weight > 0]
            held = (one.item_id for weight, one in weighed if self._hides(one, weight, asked_us))
            filtered = (*filtered, *held)
        moment_us = begun.page.until_us if self._settings.moment == "now" else None
        return Asked(
            asker=LiveQuestion(request.user_id, request.recent_items, fresh, moment_us),
            k=begun.k,
            threshold=request.threshold,
            segment=request.segment,
            view=begun.view,
            page=page,
            filters=filters_of(
                snapshot,
                exclude=request.exclude,
                silent_exclude=filtered,
                only=request.only,
                shown=page.shown,
            ),
            policy=begun.policy,
            state=read.state,
            met=met,
            local_only=begun.local_only,
            deadline=begun.deadline,
            now=self._clock,
            broken=begun.broken + read.broken,
            outcomes=read.outcomes,
        )

    def _hides(self, event: SessionEvent, weight: float, asked_us: int) -> bool:
        """Whether an event of a weight keeps its item from its user's slates."""
        if weight <= 0:
            return weight < 0
        return self._repeats.until_us(event.timestamp_us, event.event) > asked_us

    def _fresh(self, snapshot: Snapshot, met: Sequence[SessionEvent]) -> list[FreshEvent]:
        """What the published lists, or the model where there is one, do not know."""
        from recsys.recommender.past import FreshEvent

        model = None if self._models is None else self._models.current(snapshot.generation)
        if model is not None:
            since_us = model.as_of_us
        else:
            since_us = round(snapshot.manifest.published_at * 1e6) if snapshot.manifest else 0
        return [
            FreshEvent(event.item_id, event.timestamp_us, event.event, event.weight)
            for event in met
            if event.timestamp_us >= since_us
        ]


def _met(page: Page, session: Sequence[SessionEvent]) -> tuple[Page, list[SessionEvent]]:
    """What the user did before the first page was asked for, and that page."""
    if not page.generation:  # a first page knows all, whatever its clock says
        newest_us = max(event.timestamp_us for event in session)
        page = page._replace(until_us=max(page.until_us, newest_us))
    return page, [event for event in session if event.timestamp_us <= page.until_us]


def _page(request: RecommendRequest, now: float) -> Page:
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
