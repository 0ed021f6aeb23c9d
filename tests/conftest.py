from __future__ import annotations

import prometheus_client.values  # noqa: F401  # before Feast, see features/feast/__init__.py
from hypothesis import settings

# One profile everywhere: the same examples on every machine, and no clock that a busy one misses.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

pytest_plugins = ("tests.serving.stores",)
