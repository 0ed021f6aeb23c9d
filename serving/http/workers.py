"""Threads for work that blocks, so that the event loop goes on reading and writing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from serving.http.error_table import Refusal

__all__ = ["Workers"]

T = TypeVar("T")


class Workers:
    """Threads for work that blocks, and a bound on how much of it may wait.

    Args:
        max_in_flight: threads, >= 1.
        max_waiting: calls that wait for one, >= 0.
    """

    def __init__(self, max_in_flight: int, max_waiting: int) -> None:
        self._threads = _threads(max_in_flight)
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._count = 0  # in a thread or waiting for one; written by the event loop only

    @property
    def is_full(self) -> bool:
        """Whether another call would be refused."""
        return self._count >= self._max_in_flight + self._max_waiting

    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return max(0, self._count - self._max_in_flight)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """``work(*args)`` in a thread.

        Raises:
            Refusal: too many calls wait already (``overloaded``).
        """
        if self.is_full:
            raise Refusal("overloaded")
        self._count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        finally:
            self._count -= 1

    def close(self) -> None:
        """Wait for what is under way, and end the threads; another call begins new ones."""
        self._threads.shutdown()
        self._threads = _threads(self._max_in_flight)


def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="recsys-http")
