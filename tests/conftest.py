from __future__ import annotations

from hypothesis import settings

# One profile everywhere: the same examples on every machine, and no clock that a busy one misses.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
