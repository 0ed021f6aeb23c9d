"""A circuit breaker: a backend that fails too often is left alone for a moment."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Literal

__all__ = ["BreakerState", "CircuitBreaker"]

BreakerState = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """Says whether a call may be tried now.

    Closed: every call. Open, once enough of the latest calls failed: none for ``retry_after_s``.
    Then half-open: one caller tries while the others are still refused; its success closes, its
    failure opens again.

    Args:
        retry_after_s: how long to leave the backend alone, > 0.
        clock: seconds, only differences count.
        window: latest calls that count, >= 1. With 1 a single failure opens.
        failure_rate: share of failures in a full window at which it opens, in (0, 1]. So
            ``window * failure_rate`` failures with nothing else between them are enough.
        on_change: called with the new state, under no lock: for a metric or a log line.
    """

    def __init__(
        self,
        retry_after_s: float,
        clock: Callable[[], float],
        *,
        window: int = 1,
        failure_rate: float = 0.5,
        on_change: Callable[[BreakerState], None] | None = None,
    ) -> None:
        if retry_after_s <= 0:
            raise ValueError(f"retry_after_s must be > 0, got {retry_after_s}")
        if window < 1 or not 0.0 < failure_rate <= 1.0:
            raise ValueError(
                f"window must be >= 1 and failure_rate in (0, 1], got {window} and {failure_rate}"
            )
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._too_many = max(1.0, window * failure_rate)
        self._on_change = on_change
        self._lock = threading.Lock()
        self._failed: deque[bool] = deque(maxlen=window)
        self._num_failed = 0
        self._open_until: float | None = None
        self._told: BreakerState = "closed"

    @property
    def is_open(self) -> bool:
        """True from the failure that opened it until the next success."""
        return self._open_until is not None

    @property
    def state(self) -> BreakerState:
        """Where it is now: "closed", "open", or "half-open" when the next caller may try."""
        until = self._open_until
        if until is None:
            return "closed"
        return "open" if self._clock() < until else "half-open"

    def allow(self) -> bool:
        """True when the caller may try; it then reports `succeeded` or `failed`."""
        if not self.is_open:
            return True
        with self._lock:
            now, until = self._clock(), self._open_until
            if until is not None and now < until:
                return False
            if until is None:
                return True
            # This caller is the trial; should it never report, another may try later.
            self._open_until = now + self._retry_after_s
        self._tell("half-open")
        return True

    def succeeded(self) -> None:
        """Report that the call worked."""
        if self._open_until is None and not self._num_failed:
            return  # the usual case, without a lock
        with self._lock:
            closing = self._open_until is not None
            if closing:
                self._open_until = None
                self._failed.clear()
            else:
                self._failed.append(False)
            self._num_failed = self._failed.count(True)
        if closing:
            self._tell("closed")

    def failed(self) -> None:
        """Report that the call failed."""
        with self._lock:
            self._failed.append(True)
            self._num_failed = self._failed.count(True)
            if self._open_until is None and self._num_failed < self._too_many:
                return
            self._open_until = self._clock() + self._retry_after_s
        self._tell("open")

    def _tell(self, state: BreakerState) -> None:
        if self._on_change is not None and state != self._told:
            self._told = state
            self._on_change(state)
