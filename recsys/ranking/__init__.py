"""From candidates to a slate: LambdaMART, a listwise network, diversity."""

from __future__ import annotations

from recsys.ranking.slate import build_slate

__all__ = ["build_slate"]
