"""Which origins a log allows, and what lies before and in the window of each."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from features.errors import DataError
from features.moments import duration_text, duration_us
from features.tables import EVENT, TIMESTAMP, Interactions
from recsys.config import Config
from recsys.dataset import Dataset
from recsys.errors import ConfigError
from recsys.evaluation.splits import Split

__all__ = ["Steps", "Window", "checked_steps", "lay_out"]

_MINUTE_US, _SECOND_US = 60_000_000, 1_000_000
_LEAST_ORIGINS = 2


class Steps(NamedTuple):
    """What is asked for.

    Attributes:
        origins: how many.
        every_us: microseconds from one to the next.
        horizon_us: microseconds of a window.
    """

    origins: int
    every_us: int
    horizon_us: int

    def __str__(self) -> str:
        every, horizon = duration_text(self.every_us), duration_text(self.horizon_us)
        return f"--origins {self.origins} --every {every} --horizon {horizon}"


class Window(NamedTuple):
    """The time after an origin in which its model is judged.

    Attributes:
        begin: the origin, UTC; a model of it learned from what came strictly before.
        end: the first moment after the window.
    """

    begin: datetime
    end: datetime

    @property
    def name(self) -> str:
        """The origin as part of a path."""
        return self.begin.strftime("%Y%m%dT%H%M%SZ")

    def parts(self, log: Interactions) -> Split:
        """What was known at the origin, and what happened in the window."""
        inside = (pl.col(TIMESTAMP) >= self.begin) & (pl.col(TIMESTAMP) < self.end)
        return Split(log.before(self.begin), log.only(inside))


def checked_steps(config: Config, origins: int, every: str, horizon: str | None) -> Steps:
    """The arguments as numbers.

    Args:
        config: the run.
        origins: how many.
        every: from one to the next, such as "7d".
        horizon: length of a window, likewise. None: as ``every``.

    Raises:
        ConfigError: one of them is out of range, or the log has no clock to lay them out on.
    """
    if origins < _LEAST_ORIGINS:
        raise ConfigError(
            f"--origins must be {_LEAST_ORIGINS} or more, to have a spread, got {origins}; "
            "split.moment with `recsys train` and `recsys evaluate` measures a single one"
        )
    unit = config.data.columns.timestamp_unit
    if unit in ("order", "none"):
        raise ConfigError(
            "data.columns.timestamp_unit must be of a clock to lay out origins by, got "
            f"{unit!r}; give the log a column of times, or use `recsys evaluate`"
        )
    every_us = _checked_us("--every", every)
    return Steps(
        origins, every_us, every_us if horizon is None else _checked_us("--horizon", horizon)
    )


def _checked_us(name: str, text: str) -> int:
    found = duration_us(text)
    if found is None or found < _MINUTE_US:
        raise ConfigError(
            f"{name} must be a time of a minute or more such as '7d' (m, h, d or w), got {text!r}"
        )
    return found // _SECOND_US * _SECOND_US


def lay_out(data: Dataset, steps: Steps) -> tuple[Window, ...]:
    """The windows, oldest first; the newest ends where the log does, at a whole second.

    Raises:
        DataError: the log holds no event.
        ConfigError: it is too short for the origins, or a window holds nothing to be found.
    """
    log = data.interactions
    if not len(log):
        raise DataError("the log must hold events to be laid out by time, got none; add some")
    first: Any = log.frame[TIMESTAMP].min()
    last: Any = log.frame[TIMESTAMP].max()
    try:
        every, horizon = (timedelta(microseconds=us) for us in steps[1:])
        newest = last.replace(microsecond=0) + timedelta(seconds=1) - horizon
        begins = [newest - n * every for n in reversed(range(steps.origins))]
    except OverflowError:
        raise ConfigError(f"{steps} reach back beyond the first year; give shorter times") from None
    if not len(log.before(begins[0])):
        fit = max(0, -((first - newest) // every))
        raise ConfigError(
            f"the log must hold events before the oldest origin: {steps} need one that begins "
            f"before {begins[0]}, got events from {first} to {last} UTC, in which {fit} origins "
            "fit; ask for fewer of them, for a smaller --every or --horizon, or give a longer log"
        )
    windows = tuple(Window(begin, begin + horizon) for begin in begins)
    for window in windows:
        inside = window.parts(log).test.frame
        if data.targets:
            inside = inside.filter(pl.col(EVENT).is_in(list(data.targets)))
        if inside.is_empty():
            raise ConfigError(
                "every window must hold events that are to be found, got none from "
                f"{window.begin} to {window.end} UTC; give a longer --horizon, or another --every"
            )
    return windows
