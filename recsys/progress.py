"""Progress of long work: bars with ETA on stderr, or nothing at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TextIO, TypeVar

__all__ = ["Progress"]

T = TypeVar("T")

_DELAY_S = 1.0  # work that is over before this shows no bar


class Progress:
    """Where long work reports to; silent unless ``enabled``.

    A bar shows a count, a rate and the time left, appears after a second and disappears when the
    work is done. Into a file or a pipe one line is written every five seconds at most.

    Args:
        enabled: False: every method does nothing but pass its items on.
        stream: where bars and notes go. None: ``sys.stderr`` at the time of the call.
    """

    def __init__(self, *, enabled: bool = False, stream: TextIO | None = None) -> None:
        self.enabled = enabled
        self._stream = stream

    @classmethod
    def on_terminal(cls, wanted: bool | None = None) -> Progress:
        """Progress for a command: as ``wanted``, or None for "when stderr is a terminal"."""
        return cls(enabled=sys.stderr.isatty() if wanted is None else wanted)

    def track(
        self, items: Iterable[T], description: str, *, total: int | None = None, unit: str = "step"
    ) -> Iterator[T]:
        """Pass ``items`` on, one bar step each.

        Args:
            items: what is worked through.
            description: what is going on, in a few words ("train towers").
            total: number of items; None: ``len(items)`` if it has one.
            unit: what one item is, for the rate.
        """
        if total is None and isinstance(items, Sized):
            total = len(items)
        with self.bar(total, description, unit=unit) as advance:
            for item in items:
                yield item
                advance(1)

    @contextmanager
    def bar(
        self, total: int | None, description: str, *, unit: str = "step"
    ) -> Iterator[Callable[[int], None]]:
        """Open a bar and yield the function that moves it on by a number of units."""
        if not self.enabled:
            yield _ignore
            return
        from tqdm import tqdm  # here: a silent run need not load it

        stream = self._stream or sys.stderr
        terminal = stream.isatty()
        with tqdm(
            total=total,
            desc=description,
            unit=unit,
            file=stream,
            delay=_DELAY_S,
            leave=False,
            mininterval=0.1 if terminal else 5.0,
            dynamic_ncols=terminal,
        ) as shown:
            yield shown.update

    def note(self, message: str) -> None:
        """Write one line that stays."""
        if self.enabled:
            from tqdm import tqdm

            tqdm.write(message, file=self._stream or sys.stderr)


def _ignore(count: int) -> None:
    """Move no bar."""
