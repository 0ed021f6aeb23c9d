"""Several processes behind one port: started, watched, started again, and ended together.

The parent holds the address and nothing heavy; each worker listens on a socket of its own. When one
dies, new connections go to the others until its successor is warm; those that waited for it are
reset, and may be made again.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.errors import StageUnavailable
from serving.telemetry.text_log import log_event

__all__ = ["Child", "Supervisor", "restart_registry"]

log = logging.getLogger(__name__)

_TICK_S = 0.05
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STABLE_S = 30.0  # a process that ran this long begins the backoff anew
_START_TRIES = 3
_KILL_AFTER_S = 5.0


@dataclass(slots=True)
class Child:
    """A process to keep running.

    Attributes:
        name: unique.
        command: makes its command line from the file descriptor that it tells on: it writes
            ``ready`` there or ``failed <why>``, each with a newline, and ends when it reads the
            end of the stream.
        is_worker: it answers requests: it must become ready, and be told to drain.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    is_worker: bool = True
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    control: socket.socket | None = field(default=None, init=False)
    told: bytes = field(default=b"", init=False)
    ready: bool = field(default=False, init=False)
    was_ready: bool = field(default=False, init=False)
    started_at: float = field(default=0.0, init=False)
    start_at: float = field(default=0.0, init=False)
    failures: int = field(default=0, init=False)
    restarts: int = field(default=0, init=False)

    @property
    def cause(self) -> str:
        """What it said of its failure, or nothing."""
        lines = self.told.decode(errors="replace").splitlines()
        said = [line.removeprefix("failed ") for line in lines if line.startswith("failed ")]
        return said[-1] if said else ""


class Supervisor:
    """Keeps children running until a signal.

    SIGTERM and SIGINT are passed on to the workers, which drain; a second signal is passed on as
    well, and ends them at once. Whoever is left some time after is killed.

    Args:
        children: to keep running.
        on_ready: called once, when every worker is ready.
        patience_s: for the workers to end after the first signal.
        environment: of the children. None: this process's.
        start_tries: times in a row that a worker may end before it was ever ready.
        clock: seconds, only differences count.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        on_ready: Callable[[], None],
        patience_s: float = 30.0,
        environment: Mapping[str, str] | None = None,
        start_tries: int = _START_TRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._children = list(children)
        self._on_ready = on_ready
        self._patience_s = patience_s
        self._environment = environment
        self._start_tries = start_tries
        self._clock = clock
        self._told_ready = False
        self._signals: list[int] = []

    @property
    def restarts(self) -> Mapping[str, int]:
        """Times each child was started again."""
        return {child.name: child.restarts for child in self._children}

    def run(self) -> None:
        """Run until a signal, then end the children.

        Raises:
            StageUnavailable: workers end again and again before they are ready.
        """
        handled = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._on_signal) for number in handled}
        try:
            while not self._signals:
                for child in self._children:
                    self._tend(child)
                if not self._told_ready and all(c.ready for c in self._children if c.is_worker):
                    self._told_ready = True
                    self._on_ready()
                self._listen()
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- running ---------------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _tend(self, child: Child) -> None:
        if child.process is None:
            if self._clock() >= child.start_at:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            if child.failures and self._clock() - child.started_at > _STABLE_S:
                child.failures = 0
            return
        self._read(child)
        self._forget(child)
        child.failures += 1
        wait_s = _BACKOFF_S[min(child.failures, len(_BACKOFF_S)) - 1]
        child.start_at = self._clock() + wait_s
        child.restarts += 1
        log_event(
            log,
            "a process ended and is started again",
            level=logging.ERROR,
            process=child.name,
            code=code,
            cause=child.cause or None,
            restarts=child.restarts,
            wait_s=wait_s,
        )
        if child.is_worker and not child.was_ready and child.failures >= self._start_tries:
            raise StageUnavailable(
                f"worker {child.name} ended {child.failures} times before it was ready, at last "
                f"with code {code}: {child.cause or 'it said nothing; see its log above'}",
                stage="http",
            )

    def _start(self, child: Child) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            child.process = subprocess.Popen(
                child.command(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches it through us, once
                env=None if self._environment is None else dict(self._environment),
            )
        child.control, child.told, child.ready = ours, b"", False
        child.started_at = self._clock()

    def _listen(self) -> None:
        """Wait a moment for what the children say."""
        by_socket = {child.control: child for child in self._children if child.control is not None}
        said, _, _ = select.select(list(by_socket), [], [], _TICK_S)
        for control in said:
            self._read(by_socket[control])

    def _read(self, child: Child) -> None:
        if child.control is None:
            return
        try:
            while said := child.control.recv(4096):
                child.told = (child.told + said)[-8192:]
            child.control.close()
            child.control = None
        except BlockingIOError:
            pass
        except OSError:
            child.control = None
        if b"ready\n" in child.told:
            child.ready = child.was_ready = True

    def _forget(self, child: Child) -> None:
        if child.control is not None:
            child.control.close()
        child.process, child.control, child.ready = None, None, False

    # -- ending ----------------------------------------------------------------------------------

    def _end(self) -> None:
        passed_on = 0
        until = self._clock() + self._patience_s
        while any(child.process is not None for child in self._children):
            for number in (self._signals or [signal.SIGTERM])[passed_on:]:
                self._pass_on(number)
                passed_on += 1
                if passed_on == 2:
                    until = min(until, self._clock() + _KILL_AFTER_S)
            if self._clock() >= until:
                log.error("processes that do not end are killed")
                self._pass_on(signal.SIGKILL)
                until = float("inf")
            for child in self._children:
                if child.process is not None and child.process.poll() is not None:
                    self._forget(child)
            time.sleep(_TICK_S)

    def _pass_on(self, number: int) -> None:
        for child in self._children:
            if child.process is not None:
                child.process.send_signal(number)


class _Restarts(Collector):
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "recsys_process_restarts", "Processes started again.", labels=["process"]
        )
        for name, count in self._supervisor.restarts.items():
            family.add_metric([name], count)
        yield family


def restart_registry(supervisor: Supervisor) -> CollectorRegistry:
    """The supervisor's own metrics."""
    registry = CollectorRegistry()
    registry.register(_Restarts(supervisor))
    return registry
