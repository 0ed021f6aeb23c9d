"""Which arms a user is in: by a salted hash, so always the same ones, in every process.

Nobody's arms are stored. A unit's place in a layer comes from the layer's hash, its arm from the
experiment's own; so experiments do not depend on each other, more traffic only adds units, and
nobody moves to another arm as long as weights and salt stay.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

from features.moments import EPOCH, utc
from recsys.config.experiment_design import NUM_BUCKETS, ArmSettings, Experiment, Span, lay_out
from serving.connection.clients import store_errors
from serving.errors import StageUnavailable

if TYPE_CHECKING:
    from datetime import datetime

    import redis

__all__ = ["Assignment", "ExperimentState", "Experiments", "KillSwitch"]

log = logging.getLogger(__name__)

_HASHES = 2**64
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one unit gets.

    Attributes:
        arms: arm by experiment, for those the unit takes part in.
        settings: what these arms change, together.
    """

    arms: Mapping[str, str] = field(default_factory=dict)
    settings: ArmSettings = field(default_factory=ArmSettings)


class ExperimentState(NamedTuple):
    """One line of a list of experiments.

    Attributes:
        name: of the experiment.
        state: ``running``, ``stopped``, ``not started``, ``ended``, or ``unknown`` while the
            kill switches were never read.
        layer: that it shares with others; None: a layer of its own.
        traffic: share of the units that take part while it runs.
        arms: share of these units by arm.
        start: first moment, None: always was.
        end: first moment after it, None: none.
    """

    name: str
    state: str
    layer: str | None
    traffic: float
    arms: Mapping[str, float]
    start: datetime | None
    end: datetime | None


class _Running(NamedTuple):
    experiment: Experiment
    span: Span
    start: float
    end: float
    bounds: list[float]  # share of the units up to and with each arm
    hashed: hashlib.blake2b


class Experiments:
    """Assigns units to arms.

    Args:
        experiments: as declared.
        stopped: names of those switched off, asked at every assignment, so it answers from
            memory; None: not known yet, and then none runs. See `KillSwitch`.

    Raises:
        ValueError: they do not go together, see `recsys.config.experiment_design.lay_out`.
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        *,
        stopped: Callable[[], Collection[str] | None] = frozenset,
    ) -> None:
        self._stopped = stopped
        self._layers: list[tuple[hashlib.blake2b, list[_Running]]] = []
        self._all: list[_Running] = []
        shared: dict[str, list[_Running]] = {}
        for one, span in zip(experiments, lay_out(experiments), strict=True):
            running = _running(one, span)
            self._all.append(running)
            if one.layer is None:
                self._layers.append((_hash("alone", one.salted), [running]))
            elif one.layer in shared:
                shared[one.layer].append(running)
            else:
                shared[one.layer] = [running]
                self._layers.append((_hash("layer", one.layer), shared[one.layer]))
        self._settings: dict[tuple[tuple[str, str], ...], ArmSettings] = {}

    def assign(self, unit_id: str | None, now: float) -> Assignment:
        """Arms of a unit.

        Args:
            unit_id: whose, a user or a session; None takes part in nothing.
            now: seconds since the epoch.
        """
        if unit_id is None or not self._all:
            return _NOTHING
        stopped = self._stopped()
        if stopped is None:
            return _NOTHING
        unit = unit_id.encode("utf-8", "surrogatepass")
        arms: dict[str, str] = {}
        for hashed, members in self._layers:
            bucket = _number(hashed, unit) % NUM_BUCKETS
            for one in members:
                if (
                    one.span.first <= bucket < one.span.stop
                    and one.start <= now < one.end
                    and one.experiment.name not in stopped
                ):
                    place = bisect.bisect_right(one.bounds, _number(one.hashed, unit) / _HASHES)
                    arms[one.experiment.name] = one.experiment.arms[
                        min(place, len(one.bounds) - 1)
                    ].name
        if not arms:
            return _NOTHING
        return Assignment(arms, self._merged(arms))

    def states(self, now: float) -> list[ExperimentState]:
        """What is there and what of it runs, in the order declared."""
        stopped = self._stopped()
        found = []
        for one in self._all:
            experiment = one.experiment
            if now >= one.end:
                state = "ended"
            elif stopped is None:
                state = "unknown"
            elif experiment.name in stopped:
                state = "stopped"
            else:
                state = "running" if now >= one.start else "not started"
            whole = sum(arm.weight for arm in experiment.arms)
            found.append(
                ExperimentState(
                    name=experiment.name,
                    state=state,
                    layer=experiment.layer,
                    traffic=experiment.traffic,
                    arms={arm.name: arm.weight / whole for arm in experiment.arms},
                    start=experiment.start,
                    end=experiment.end,
                )
            )
        return found

    def _merged(self, arms: Mapping[str, str]) -> ArmSettings:
        key = tuple(arms.items())
        settings = self._settings.get(key)
        if settings is None:
            settings = ArmSettings()
            for one in self._all:
                for arm in one.experiment.arms:
                    if arms.get(one.experiment.name) == arm.name:
                        settings = settings.with_those_of(arm.settings)
            self._settings[key] = settings
        return settings


class KillSwitch:
    """Experiments that were switched off, as a hash in the store says: name -> "off" or "on".

    The store is asked at most every ``ttl_s``, by one thread at a time; the others, and all of
    them while it does not answer, get what was last known. After a failure it is left alone for
    longer and longer, up to half a minute.

    Args:
        client: of the store.
        key: of the hash, `serving.store.keys.Keys.experiments`.
        ttl_s: how long an answer is reused, > 0.
        clock: seconds, only differences count.

    Raises:
        ValueError: ``ttl_s`` is not positive.
    """

    def __init__(
        self,
        client: redis.Redis,
        key: str,
        *,
        ttl_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if ttl_s <= 0:
            raise ValueError(f"ttl_s must be > 0 seconds, got {ttl_s}")
        self._client = client
        self._key = key
        self._ttl_s = ttl_s
        self._clock = clock
        self._asking = threading.Lock()
        self._stopped: frozenset[str] | None = None
        self._next = clock()
        self._pause_s = ttl_s

    def stopped(self) -> frozenset[str] | None:
        """Names of experiments that must not run; None while the store never answered."""
        if self._clock() >= self._next and self._asking.acquire(blocking=False):
            try:
                self._ask()
            finally:
                self._asking.release()
        return self._stopped

    def stop(self, name: str) -> None:
        """Switch an experiment off, for every process within its ``ttl_s``.

        Raises:
            StageUnavailable: the store does not answer; nothing was switched.
        """
        self._set(name, "off")

    def start(self, name: str) -> None:
        """Switch an experiment on again; see `stop`."""
        self._set(name, "on")

    def _set(self, name: str, state: str) -> None:
        with store_errors(f"switch an experiment {state}"):
            self._client.hset(self._key, name, state)
        self._next = self._clock()

    def _ask(self) -> None:
        try:
            with store_errors("read the experiments' switches"):
                found = cast("dict[bytes, bytes]", self._client.hgetall(self._key))
        except StageUnavailable as error:
            if self._pause_s == self._ttl_s:
                log.warning("experiments stay as they were last known: %s", error)
            self._pause_s = min(2 * self._pause_s, max(_LONGEST_PAUSE_S, self._ttl_s))
        else:
            self._pause_s = self._ttl_s
            stopped = frozenset(
                name.decode("utf-8", "replace") for name, state in found.items() if state == b"off"
            )
            if stopped != self._stopped and (stopped or self._stopped):
                log.info("experiments switched off: %s", ", ".join(sorted(stopped)) or "none")
            self._stopped = stopped
        self._next = self._clock() + self._pause_s


_NOTHING = Assignment()


def _running(one: Experiment, span: Span) -> _Running:
    whole = sum(arm.weight for arm in one.arms)
    return _Running(
        experiment=one,
        span=span,
        start=float("-inf") if one.start is None else _seconds(one.start),
        end=float("inf") if one.end is None else _seconds(one.end),
        bounds=list(itertools.accumulate(arm.weight / whole for arm in one.arms)),
        hashed=_hash("arm", one.salted),
    )


def _seconds(moment: datetime) -> float:
    return (utc(moment) - EPOCH).total_seconds()


def _hash(kind: str, salt: str) -> hashlib.blake2b:
    """A hash begun with what is the same for all units."""
    return hashlib.blake2b(f"{kind}\x00{salt}\x00".encode(), digest_size=8)


def _number(hashed: hashlib.blake2b, unit: bytes) -> int:
    """0 to 2**64 - 1, evenly."""
    own = hashed.copy()
    own.update(unit)
    return int.from_bytes(own.digest(), "little")
