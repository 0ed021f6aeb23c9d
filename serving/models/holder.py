"""The models of the generations in use, loaded beside the requests and swapped when they are warm.

A flip of the store's head, a damaged bundle or a slow disk never stops a request: the model that
answered before goes on until its successor is there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

__all__ = ["ModelHolder", "ModelsStatus"]

log = logging.getLogger(__name__)

M = TypeVar("M")
_IN_USE_S = 60.0  # a generation asked for within this time keeps its place


class ModelsStatus(NamedTuple):
    """What a `ModelHolder` holds.

    Attributes:
        served: generation that answers come from, by the store.
        current: generation of the model that `ModelHolder.current` gives; None: there is none.
        loaded: generations in memory, the one that was needed last comes last.
        loading: generation being read now.
        problem: why the served generation has no model of its own; None: it has, or none is
            served.
        loads: models loaded since the start.
        failures: loads that failed since the start.
        load_seconds: of the last load that worked.
    """

    served: str | None
    current: str | None
    loaded: tuple[str, ...]
    loading: str | None
    problem: str | None
    loads: int
    failures: int
    load_seconds: float


@dataclass(slots=True)
class _Failure:
    message: str
    stamp: object
    wait_s: float
    retry_at: float


class ModelHolder(Generic[M]):
    """Models by generation; a thread of its own loads them.

    Args:
        load: reads and warms up the model of a generation; may take minutes and may raise.
        keep: models in memory, >= 1. While one is loaded there may be one more.
        stamp: changes when another attempt, or another load, of a generation is worth it, such
            as the modification times of its files.
        poll_s: how often the served generation and the stamps are looked at, > 0.
        retry_s: after a failed load; doubled with each further one.
        retry_max_s: longest time between two attempts.
        clock: seconds, only differences count.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        load: Callable[[str], M],
        *,
        keep: int = 2,
        stamp: Callable[[str], object] = lambda generation: None,
        poll_s: float = 1.0,
        retry_s: float = 1.0,
        retry_max_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep must be >= 1, got {keep}")
        if poll_s <= 0 or not 0 < retry_s <= retry_max_s:
            raise ValueError(
                "poll_s and retry_s must be > 0 and retry_max_s >= retry_s, got "
                f"{poll_s}, {retry_s} and {retry_max_s}"
            )
        self._load = load
        self._keep = keep
        self._stamp = stamp
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._retry_max_s = retry_max_s
        self._clock = clock
        self._ask: Callable[[], str | None] | None = None
        self._served: str | None = None
        self._current: tuple[str, M] | None = None
        self._models: dict[str, M] = {}
        self._stamps: dict[str, object] = {}
        self._wanted: dict[str, float] = {}
        self._failures: dict[str, _Failure] = {}
        self._refused: set[str] = set()
        self._loading: str | None = None
        self._counts = [0, 0]
        self._load_seconds = 0.0
        self._closed = False
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="recsys-models", daemon=True)
        self._thread.start()

    def follow(self, served: Callable[[], str | None]) -> None:
        """Ask ``served`` about once in ``poll_s`` which generation answers come from.

        Args:
            served: None while nobody knows; an exception counts as that.
        """
        self._ask = served
        self._wake.set()

    def serve(self, generation: str) -> None:
        """Answers come from ``generation`` now; returns at once."""
        if generation != self._served:
            self._served = generation
            self._wake.set()

    def want(self, generation: str) -> None:
        """Keep the model of ``generation`` as well, such as a pinned arm's; returns at once.

        It has its place while this is called at least once a minute, and as long as the served
        generation and those wanted before leave one.
        """
        new = generation not in self._wanted
        self._wanted[generation] = self._clock()
        if new:
            self._wake.set()

    def current(self, generation: str | None = None) -> M | None:
        """The model of ``generation``; never waits.

        Args:
            generation: None: the served one's, or until that is warm the one that answered
                before it.
        """
        if generation is not None:
            return self._models.get(generation)
        current = self._current
        return None if current is None else current[1]

    def problem(self) -> str | None:
        """Why the served generation has no model of its own; None while there is no such thing."""
        served = self._served
        failure = None if served is None else self._failures.get(served)
        return None if failure is None else failure.message

    def status(self) -> ModelsStatus:
        """What is held, for metrics."""
        current = self._current
        return ModelsStatus(
            served=self._served,
            current=None if current is None else current[0],
            loaded=tuple(self._models),
            loading=self._loading,
            problem=self.problem(),
            loads=self._counts[0],
            failures=self._counts[1],
            load_seconds=self._load_seconds,
        )

    def wait(self, timeout_s: float) -> bool:
        """Wait until the served generation has been tried once; True when its model is there."""

        def tried() -> bool:
            served = self._served
            return served is not None and (served in self._models or served in self._failures)

        with self._changed:
            self._changed.wait_for(tried, timeout=timeout_s)
        return self._served in self._models

    def close(self) -> None:
        """End the thread; a load under way is left to end, and its model is dropped."""
        self._closed = True
        self._wake.set()

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            self._look()
            generation = self._next()
            if generation is not None:
                self._attempt(generation)
                continue
            self._wake.wait(self._poll_s)
            self._wake.clear()

    def _look(self) -> None:
        if self._ask is not None:
            try:
                self._served = self._ask() or self._served
            except Exception as error:
                log.debug("the served generation is not known: %s", error)
        now = self._clock()
        for generation, asked in list(self._wanted.items()):
            if now - asked > _IN_USE_S:
                del self._wanted[generation]
        needed = self._needed()
        self._failures = {one: self._failures[one] for one in needed if one in self._failures}
        self._point()

    def _needed(self) -> list[str]:
        """The served generation, then those wanted."""
        served = self._served
        wanted = [one for one in list(self._wanted) if one != served]
        return wanted if served is None else [served, *wanted]

    def _point(self) -> None:
        """Swap to the served generation's model if it is there."""
        served = self._served
        model = None if served is None else self._models.get(served)
        if served is None or model is None:
            return
        if self._current is None or self._current[1] is not model:
            # Replaced as a whole: readers do not lock.
            self._models = {**self._without(served), served: model}
            self._current = (served, model)

    def _without(self, generation: str) -> dict[str, M]:
        return {name: model for name, model in self._models.items() if name != generation}

    def _next(self) -> str | None:
        return next((one for one in self._needed() if self._is_due(one)), None)

    def _is_due(self, generation: str) -> bool:
        stamp = self._stamp(generation)
        failure = self._failures.get(generation)
        if failure is not None:
            return stamp != failure.stamp or self._clock() >= failure.retry_at
        if generation in self._models:
            return stamp is not None and stamp != self._stamps[generation]
        if generation == self._served or len(self._models) < self._keep:
            return True
        if self._victim() is not None:
            return True
        if generation not in self._refused:
            self._refused.add(generation)
            log.warning(
                "generation %s gets no model: serving.live_models = %d and all are in use; "
                "raise it, or pin fewer generations",
                generation,
                self._keep,
            )
        return False

    def _victim(self) -> str | None:
        """The generation to give up for another: needed longest ago, and not in use."""
        current = self._current
        kept = {None if current is None else current[0], *self._needed()}
        return next((one for one in self._models if one not in kept), None)

    def _attempt(self, generation: str) -> None:
        stamp = self._stamp(generation)
        self._loading = generation
        began = time.perf_counter()
        try:
            model = self._load(generation)
        except Exception as error:
            self._failed(generation, stamp, error)
        else:
            if not self._closed:
                self._load_seconds = time.perf_counter() - began
                self._succeeded(generation, stamp, model)
        finally:
            self._loading = None
            with self._changed:
                self._changed.notify_all()

    def _succeeded(self, generation: str, stamp: object, model: M) -> None:
        self._counts[0] += 1
        self._failures.pop(generation, None)
        self._refused.discard(generation)
        self._stamps[generation] = stamp
        self._models = {**self._without(generation), generation: model}
        self._point()
        while len(self._models) > self._keep:
            others = [one for one in self._models if one not in (self._served, generation)]
            self._models = self._without(self._victim() or others[0])
        log.info("model of generation %s loaded in %.1f s", generation, self._load_seconds)

    def _failed(self, generation: str, stamp: object, error: Exception) -> None:
        self._counts[1] += 1
        message = f"the model of generation {generation} cannot be loaded: {error}"
        before = self._failures.get(generation)
        if before is None or before.message != message:
            kept = self._current
            log.warning(
                "%s; %s, and the load is tried again",
                message,
                "there is no live model" if kept is None else f"that of {kept[0]} goes on",
            )
        wait_s = self._retry_s
        if before is not None and before.stamp == stamp:
            wait_s = min(2 * before.wait_s, self._retry_max_s)
        self._failures[generation] = _Failure(message, stamp, wait_s, self._clock() + wait_s)
