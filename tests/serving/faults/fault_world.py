"""A shop that is asked and told things without a pause while something behind it breaks.

Every user of every generation has a list of its own, so that an answer with another user's list,
with items of two generations or with an empty slate is told from a good one. What writers were told
is in the store is looked for in the store afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import redis

from recsys.config.impressions import RowLogLimits
from recsys.config.serving import ServiceSettings
from serving.connection import connect
from serving.errors import StageUnavailable
from serving.events.event_stream import EventStream, Position
from serving.events.feedback import checked_events
from serving.events.sessions import Sessions
from serving.impressions.log import ImpressionLog
from serving.messages import Event, Recommendations, RecommendRequest
from serving.request.service import RecommendationService
from serving.store import GenerationStore
from tests.serving.connection.servers import wait_for

K = 5
USERS = [f"u{number}" for number in range(24)]
WRITERS = [f"w{number}" for number in range(6)]
ITEM_IDS = [f"i{number}" for number in range(1, 61)]
POPULAR = ITEM_IDS[-8:]
TIMEOUT_S, RETRIES = 0.2, 1
PATIENT_S = 10.0
"""Timeout where the store is never away, so that a busy machine does not look like a fault."""
SETTINGS = ServiceSettings(head_ttl_s=0.05, retry_after_s=0.1, deadline_s=2.0)
PATIENCE_S = 4.0
"""For threads that wait for a core; on top of every limit that is checked."""
MOST_S = SETTINGS.deadline_s + 2 * (RETRIES + 1) * 2 * TIMEOUT_S + PATIENCE_S
"""Longest answer: the deadline, and two calls that begin before it and try and connect again."""


def items_of(generation: str, user: str) -> list[int]:
    """The user's list, [K + 1] item indices; no two users of a generation have the same."""
    first = 2 * USERS.index(user) + 25 * int(generation.removeprefix("g"))
    return [(first + place) % 50 + 1 for place in range(K + 1)]


def publish(store: GenerationStore, generation: str, **options: Any) -> Any:
    """Publish a generation "g<number>" for all of `USERS`, with neighbours of "i1"."""
    index = np.array([items_of(generation, user) for user in USERS])
    score = np.tile(1 - np.arange(index.shape[1], dtype=np.float32) / 8, (len(USERS), 1))
    popular = np.array([ITEM_IDS.index(one) + 1 for one in POPULAR])
    values: dict[str, Any] = {
        "users": [
            (USERS[at : at + 6], index[at : at + 6], score[at : at + 6], 0)
            for at in range(0, len(USERS), 6)
        ],
        "item_ids": ITEM_IDS,
        "popular": (popular, np.linspace(1.0, 0.5, len(popular), dtype=np.float32)),
        "vocabulary_sha256": "v",
        "ttl_s": 3600,
        "neighbours": [(["i1"], index[:1], score[:1], 0)],
    }
    return store.publish(generation, **{**values, **options})


def problem_of(user: str, answer: Recommendations) -> str | None:
    """What is wrong with a slate, whatever stage gave it; None: nothing."""
    shown = [item.item_id for item in answer.items]
    if answer.source in ("cache", "previous_generation"):
        expected = [ITEM_IDS[at - 1] for at in items_of(answer.generation or "g0", user)[:K]]
    elif answer.source == "popular":
        expected = POPULAR[:K]
    else:
        return f"source {answer.source}"
    return None if shown == expected else f"{user} of {answer.generation}: {shown} from cache"


@dataclass(frozen=True)
class Got:
    """What one call got.

    Attributes:
        began: by the monotonic clock.
        took_s: seconds.
        user: who asked.
        answer: None where ``error`` was raised instead.
    """

    began: float
    took_s: float
    user: str
    answer: Recommendations | None
    error: Exception | None = None

    @property
    def is_good(self) -> bool:
        """The user's own list of the served generation, and nothing was broken."""
        return self.answer is not None and (self.answer.source, self.answer.degraded) == (
            "cache",
            False,
        )


@dataclass
class Shop:
    """A service and what it stands on."""

    client: redis.Redis
    store: GenerationStore
    service: RecommendationService
    sessions: Sessions
    stream: EventStream
    impressions: ImpressionLog
    directory: Path

    def errors(self, kind: str) -> float:
        """Failures of the store that fallbacks hid and metrics counted."""
        labels = {"stage": "store", "kind": kind}
        registry = self.service.telemetry.registry
        return registry.get_sample_value("recsys_stage_errors_total", labels) or 0.0

    def ask(self, user: str) -> Recommendations:
        """One slate, which must be a right one."""
        answer = self.service.recommend(RecommendRequest(user, k=K))
        assert problem_of(user, answer) is None
        return answer


@contextlib.contextmanager
def shop(
    url: str, directory: Path, *, timeout_s: float = TIMEOUT_S, **options: Any
) -> Iterator[Shop]:
    """A service over the store at ``url``, with sessions, event stream and impression log.

    Args:
        url: of the store.
        directory: for the log.
        timeout_s: of one read of the store.
        options: of the service, or ``now``: its wall clock.
    """
    client = connect(
        url, timeout_s=timeout_s, connect_timeout_s=timeout_s, retries=RETRIES, max_connections=16
    )
    store = GenerationStore(client)
    clock = options.pop("now", time.time)
    sessions = Sessions(client, store.keys, max_events=1_000_000, clock=clock)
    stream = EventStream(client, store.keys, sessions=sessions, clock=clock)
    impressions = ImpressionLog(directory / "impressions", RowLogLimits(flush_s=0.05))
    service = RecommendationService(
        store,
        sessions=sessions,
        stream=stream,
        impressions=impressions,
        wall_clock=clock,
        **{"settings": SETTINGS, **options},
    )
    try:
        yield Shop(client, store, service, sessions, stream, impressions, directory)
    finally:
        service.close()
        client.close()


@dataclass
class Traffic:
    """Threads that ask and tell until the block ends.

    Attributes:
        got: every answer, in the order in which they came.
        told: events that are in the store, as the service said.
        refused: events that the service refused, each with its error.
    """

    shop: Shop
    readers: int = 4
    writers: int = 2
    pause_s: float = 0.005
    got: list[Got] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    refused: list[tuple[Event, Exception]] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._stopping = threading.Event()
        self._numbers = itertools.count()
        jobs = [self._read] * self.readers + [self._write] * self.writers
        self._threads = [
            threading.Thread(target=job, args=(number,)) for number, job in enumerate(jobs)
        ]
        for thread in self._threads:
            thread.start()
        try:
            if self.readers:
                self.wait_until_good()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads)

    def _read(self, number: int) -> None:
        users = itertools.cycle(USERS[number :: self.readers])
        while not self._stopping.wait(self.pause_s):
            user, began = next(users), time.monotonic()
            answer, error = None, None
            try:
                answer = self.shop.service.recommend(RecommendRequest(user, k=K))
            except Exception as raised:
                error = raised
            self.got.append(Got(began, time.monotonic() - began, user, answer, error))

    def _write(self, number: int) -> None:
        while not self._stopping.wait(self.pause_s):
            name = next(self._numbers)
            user = WRITERS[name % len(WRITERS)]
            event = Event(user, "i7", time.time(), event_id=f"e{name}")
            try:
                self.shop.service.record([event])
            except Exception as error:
                self.refused.append((event, error))
            else:
                self.told.append(event)

    def wait_for(self, condition: Callable[[Got], bool], what: str, times: int = 1) -> list[Got]:
        """The first ``times`` answers begun from now on that are as they should be."""
        now, seen, found = time.monotonic(), len(self.got), list[Got]()

        def enough() -> bool:
            nonlocal seen
            new = self.got[seen:]
            seen += len(new)
            found.extend(one for one in new if one.began >= now and condition(one))
            return len(found) >= times

        wait_for(enough, what, lambda: self.got[-1:])
        return found

    def wait_until_good(self) -> list[Got]:
        """The answers of one round of all users, all of them good and none of them in between."""
        missing = set(USERS)

        def completes(one: Got) -> bool:
            if one.is_good:
                missing.discard(one.user)
            else:
                missing.update(USERS)
            return not missing

        return self.wait_for(completes, "good answers for all users")

    def wait_until_told(self, times: int = 10) -> None:
        """Return when so many more events are taken in."""
        before = len(self.told)
        wait_for(lambda: len(self.told) >= before + times, "events to be taken in")

    def wait_until_refused(self, times: int = 3) -> None:
        """Return when so many more events are refused."""
        before = len(self.refused)
        wait_for(lambda: len(self.refused) >= before + times, "events to be refused")

    def check(self) -> None:
        """Every answer was right and came in time; events were refused by name; none is lost."""
        wrong = [one for one in self.got if one.error is not None]
        assert not wrong, wrong[0]
        problems = [problem_of(one.user, one.answer) for one in self.got if one.answer]
        assert not any(problems), next(filter(None, problems))
        assert max(one.took_s for one in self.got) < MOST_S
        assert {type(error) for _, error in self.refused} <= {StageUnavailable}
        assert missing_events(self.shop, self.told) == []

    def reasons(self) -> set[str | None]:
        """Why answers were degraded."""
        return {one.answer.reason for one in self.got if one.answer and one.answer.degraded}


def missing_events(shop: Shop, told: list[Event]) -> list[str]:
    """Acknowledged events that the session or the stream does not hold."""
    sessions = shop.sessions.read_many(WRITERS)
    remembered = {event.identity for session in sessions for event in session}
    streamed: set[int] = set()
    position = Position()
    while batch := shop.stream.read(position, limit=5000):
        streamed.update(event.identity for event in batch.events)
        position = batch.position
        if not batch.num_entries:
            break
    kept = remembered & streamed
    return [
        str(event.event_id)
        for event in told
        if checked_events([event], event.timestamp)[0].identity not in kept
    ]


def check_impressions(shop: Shop, answers: list[Recommendations]) -> None:
    """Every place of every answer is in a file, or counted as not kept; closes the service."""
    shop.service.close()
    stats = shop.impressions.stats()
    assert stats.pending == 0
    assert stats.accepted == stats.written + stats.refused
    assert stats.accepted + stats.dropped == sum(len(answer.items) for answer in answers)
