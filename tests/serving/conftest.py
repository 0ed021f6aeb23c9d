"""The log as it was, and a clock, for every test of serving; stores are in `stores`."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _own_logging():
    """A test that configures the process's log leaves it as it was."""
    root, known = logging.getLogger(), logging.root.manager.loggerDict
    handlers, level = root.handlers[:], root.level
    levels = {name: getattr(one, "level", logging.NOTSET) for name, one in known.items()}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, one in known.items():
        if isinstance(one, logging.Logger):
            one.setLevel(levels.get(name, logging.NOTSET))


@pytest.fixture
def fake_clock():
    class Clock:
        now = 1000.0

        def __call__(self) -> float:
            return self.now

        def advance(self, seconds: float) -> None:
            self.now += seconds

    return Clock()
