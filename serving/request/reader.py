"""Reads of the request path: a cached head, snapshots in memory, and a store that may be away."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from features.errors import DataError
from features.packing import FeatureBlock, NearCache, PackedSchema
from recsys.config.serving import ServiceSettings
from serving.breaker import CircuitBreaker
from serving.errors import CorruptValue, NoGeneration, ServingError, StageUnavailable
from serving.events.sessions import Sessions
from serving.request.snapshot import BundledPopular, Snapshot, load_snapshot
from serving.request.user_states import UserState, read_user_states
from serving.store import GenerationStore
from serving.store.candidate_codec import CandidateList
from serving.telemetry.collectors import ServingState

__all__ = ["GenerationReader", "View"]

log = logging.getLogger(__name__)

T = TypeVar("T")
ErrorHook = Callable[[str], None]
_LATEST = 4  # calls of the store that say whether it answers
_KEPT_SNAPSHOTS = 4  # served, previous, and those that experiments pin
_WITHOUT_GENERATION = ("corrupt_value", "generation_expired")  # though the store answers


class View(NamedTuple):
    """What one request works with, whatever is flipped meanwhile.

    Attributes:
        snapshot: of the served generation, or the last one known, or the bundled list.
        previous: generation served before, when the store names one.
        problem: why ``snapshot`` may be stale: ``store_unavailable``, ``no_generation``,
            ``generation_expired`` or ``corrupt_value``; None when it is fresh.
        from_store: False for a bundled list.
    """

    snapshot: Snapshot
    previous: str | None
    problem: str | None
    from_store: bool


class GenerationReader:
    """Answers from the store when it is there and from memory when it is not.

    Args:
        store: where generations are.
        bundled: list to start with when the store is away or empty.
        settings: times and sizes.
        clock: seconds, only differences count.
        on_error: called with the name of each problem that was hidden by a fallback.
        sessions: what users did just now. None: nobody remembers.
    """

    def __init__(
        self,
        store: GenerationStore,
        *,
        bundled: BundledPopular | None,
        settings: ServiceSettings,
        clock: Callable[[], float],
        on_error: ErrorHook,
        sessions: Sessions | None = None,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._settings = settings
        self._clock = clock
        self._on_error = on_error
        self._breaker = CircuitBreaker(settings.retry_after_s, clock, window=_LATEST)
        self._bundled = bundled.to_snapshot() if bundled is not None else None
        self._view: View | None = None
        self._logged: str | None = None
        self._epoch: int | None = None
        self._read_at: float | None = None
        self._fresh_until = -float("inf")
        self._refreshing = threading.Lock()
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()
        self._remembered: OrderedDict[tuple[str, str], CandidateList] = OrderedDict()
        self._memory_lock = threading.Lock()
        self.near_cache = (
            NearCache(settings.near_cache_bytes, generations=_KEPT_SNAPSHOTS)
            if settings.near_cache_bytes
            else None
        )

    def view(self) -> View:
        """The generation to serve from; asks the store about once in ``head_ttl_s``.

        One thread at a time asks; the others go on with what they have.

        Raises:
            NoGeneration: nothing published or reachable, and no bundled list.
        """
        view = self._view
        if view is not None and self._clock() < self._fresh_until:
            return view
        if self._refreshing.acquire(blocking=view is None):
            try:
                if self._view is None or self._clock() >= self._fresh_until:
                    self._refresh()
            finally:
                self._refreshing.release()
        return self.last_view()

    def state(self) -> ServingState:
        """What is served from now, for people who watch."""
        view = self._view
        manifest = None if view is None else view.snapshot.manifest
        problem = None if view is None else view.problem
        return ServingState(
            generation=None if view is None else view.snapshot.generation,
            epoch=self._epoch,
            head_age_s=None if self._read_at is None else self._clock() - self._read_at,
            published_at=None if manifest is None else manifest.published_at,
            expires_in_s=None if manifest is None else manifest.expires_at - time.time(),
            breaker=self._breaker.state,
            problem=problem,
        )

    def refresh(self) -> None:
        """Ask the store at the next call of `view`, whenever it was asked last."""
        self._fresh_until = -float("inf")

    def known_snapshot(self, generation: str) -> Snapshot | None:
        """Snapshot of a generation, if it is in memory."""
        return self._snapshots.get(generation)

    def last_view(self) -> View:
        """The view as last read, without asking the store.

        Raises:
            NoGeneration: there is none yet, and no bundled list.
        """
        if self._view is not None:
            return self._view
        if self._bundled is None:
            raise NoGeneration(
                "nothing is published and no fallback list was bundled; run `recsys candidates`, "
                "then `recsys publish`"
            )
        return View(self._bundled, None, "no_generation", from_store=False)

    def snapshot(self, generation: str) -> Snapshot:
        """Snapshot of another generation, read once.

        Raises:
            ServingError: it is not there, or the store is away.
        """
        found = self._snapshots.get(generation)
        return found if found is not None else self._load(generation)

    def users(self, snapshot: Snapshot, user_ids: Sequence[str]) -> list[UserState]:
        """The users' lists and sessions, in one round trip.

        Args:
            snapshot: of the generation to read from; a bundled list has no users.
            user_ids: in the order of the answer.

        Raises:
            ServingError: the store is away; see `remembered_user`.
        """
        generation = snapshot.generation if snapshot.manifest is not None else None
        found = self.call(
            lambda: read_user_states(self._store, self._sessions, generation, user_ids)
        )
        for user_id, state in zip(user_ids, found, strict=True):
            if state.problem is not None:
                self._on_error(_problem(state.problem))
            if generation is not None and state.candidates is not None:
                self._remember(generation, user_id, state.candidates)
        return found

    def remembered_user(self, snapshot: Snapshot, user_id: str) -> CandidateList | None:
        """The user's candidates as last read from the store, if still in memory."""
        return self._remembered.get((snapshot.generation or "", user_id))

    def neighbours(self, snapshot: Snapshot, item_id: str) -> CandidateList | None:
        """The item's neighbours from the store.

        Raises:
            ServingError: the store is away or the value is damaged.
        """
        generation = snapshot.generation
        if generation is None or snapshot.manifest is None:
            raise NoGeneration("a bundled list has no neighbours")
        return self.call(lambda: self._store.neighbours(generation, item_id))

    def item_rows(self, snapshot: Snapshot, item_ids: Sequence[str]) -> list[bytes | None]:
        """Packed feature rows, None where there is none.

        Raises:
            ServingError: the store is away.
        """
        generation = snapshot.generation
        if generation is None or snapshot.manifest is None:
            raise NoGeneration("a bundled list has no item rows")
        return self.call(lambda: self._store.read_items(generation, item_ids))

    def item_block(
        self,
        snapshot: Snapshot,
        item_ids: Sequence[str],
        schema: PackedSchema,
        *,
        fields: Sequence[str] | None = None,
    ) -> FeatureBlock:
        """Item features, from the near cache and with one read of the store for the rest.

        Args:
            snapshot: of the generation to read from.
            item_ids: C items; an unknown one is absent.
            schema: of the generation's item rows.
            fields: names of the fields to read. None: all.

        Raises:
            ServingError: the store is away, a row is damaged, or there is no such field.
        """

        def fetch(missing: Sequence[str]) -> list[bytes | None]:
            return self.item_rows(snapshot, missing)

        try:
            if self.near_cache is None or snapshot.generation is None:
                return schema.unpack(fetch(item_ids), fields=fields)
            return self.near_cache.get_many(
                snapshot.generation, item_ids, fetch, schema=schema, fields=fields
            )
        except DataError as error:
            self._on_error("corrupt_value")
            raise CorruptValue(f"item rows cannot be read: {error}") from error

    def call(self, ask: Callable[[], T]) -> T:
        """What ``ask`` gets from the store, unless that did not answer a moment ago.

        Raises:
            ServingError: the store is away or refuses, or a value is damaged.
        """
        if not self._breaker.allow():
            raise StageUnavailable(
                "the store failed a moment ago and is left alone for "
                f"{self._settings.retry_after_s:g} s",
                stage="store",
            )
        try:
            found = ask()
        except StageUnavailable as error:
            if error.refused or error.shard is not None:  # others are answered
                self._breaker.succeeded()
            else:
                self._breaker.failed()
                self._fresh_until = -float("inf")
            self._on_error(_problem(error))
            raise
        except ServingError as error:
            self._breaker.succeeded()
            self._on_error(_problem(error))
            raise
        self._breaker.succeeded()
        return found

    # -- inside -------------------------------------------------------------------------------

    def _refresh(self) -> None:
        problem: str | None = None
        previous = self._view.previous if self._view else None
        snapshot: Snapshot | None = None
        try:
            head = self.call(self._store.head)
            self._read_at = self._clock()
            if head is None:
                problem = "no_generation"
            else:
                previous, self._epoch = head.previous, head.epoch
                snapshot = self._current(head.generation)
        except ServingError as error:
            problem = _problem(error)
            if problem != self._logged:
                log.warning("serving from memory: %s", error)
        if problem is None and self._logged is not None:
            log.info("the store answers again")
        self._logged = problem
        if snapshot is None and previous is not None and problem in _WITHOUT_GENERATION:
            snapshot = self._instead(previous)
        if snapshot is not None:
            self._view = View(snapshot, previous, problem, from_store=True)
        elif self._view is not None:
            self._view = self._view._replace(previous=previous, problem=problem)
        elif self._bundled is not None:
            self._view = View(self._bundled, previous, problem, from_store=False)
        wait_s = self._settings.head_ttl_s if problem is None else self._settings.retry_after_s
        self._fresh_until = self._clock() + wait_s

    def _instead(self, previous: str) -> Snapshot | None:
        """The generation before, for a process that has none in memory."""
        if self._view is not None and self._view.from_store:
            return None
        try:
            return self.snapshot(previous)
        except ServingError:
            return None

    def _current(self, generation: str) -> Snapshot:
        known = self._snapshots.get(generation)
        if known is None:
            snapshot = self._load(generation)
            log.info("serving generation %s: %d items", generation, len(snapshot.item_ids))
            return snapshot
        if self.call(lambda: self._store.manifest(generation)) is None:
            raise NoGeneration(f"generation {generation!r} expired; publish again")
        self._renew(known)
        for one in list(self._snapshots.values()):
            if one is not known:
                with contextlib.suppress(CorruptValue):  # counted; the served one is whole
                    self._renew(one)
        return known

    def _renew(self, snapshot: Snapshot) -> None:
        """Read anew what may be recommended of a generation."""
        generation = snapshot.generation
        if generation is not None:
            snapshot.alive = self.call(
                lambda: self._store.alive(generation, len(snapshot.item_ids))
            )

    def _remember(self, generation: str, user_id: str, found: CandidateList) -> None:
        if not self._settings.remembered_users:
            return
        with self._memory_lock:
            self._remembered[generation, user_id] = found
            self._remembered.move_to_end((generation, user_id))
            while len(self._remembered) > self._settings.remembered_users:
                self._remembered.popitem(last=False)

    def _load(self, generation: str) -> Snapshot:
        snapshot = self.call(lambda: load_snapshot(self._store, generation))
        with self._memory_lock:
            self._snapshots[generation] = snapshot
            self._snapshots.move_to_end(generation)
            while len(self._snapshots) > _KEPT_SNAPSHOTS:
                self._snapshots.popitem(last=False)
        return snapshot


def _problem(error: ServingError) -> str:
    if isinstance(error, CorruptValue):
        return "corrupt_value"
    if isinstance(error, NoGeneration):
        return "generation_expired"
    return "store_unavailable"
