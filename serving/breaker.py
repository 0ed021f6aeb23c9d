"""A short circuit breaker: after a failure a backend is left alone for a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """Says whether a call may be tried now.

    Closed: every call. After a failure, open: none for ``retry_after_s``. Then half-open: one
    caller tries while the others are still refused; its success closes, its failure opens again.

    Args:
        retry_after_s: how long to leave the backend alone, > 0.
        clock: seconds, only differences count.
    """

    def __init__(self, retry_after_s: float, clock: Callable[[], float]) -> None:
        if retry_after_s <= 0:
            raise ValueError(f"retry_after_s must be > 0, got {retry_after_s}")
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._lock = threading.Lock()
        self._open_until: float | None = None

    @property
    def is_open(self) -> bool:
        """True from a failure until the next success."""
        return self._open_until is not None

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
            return True

    def succeeded(self) -> None:
        """Report that the call worked."""
        if self._open_until is not None:
            with self._lock:
                self._open_until = None

    def failed(self) -> None:
        """Report that the call failed."""
        with self._lock:
            self._open_until = self._clock() + self._retry_after_s
