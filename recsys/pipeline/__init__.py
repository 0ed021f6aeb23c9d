"""A training run from tables to a bundle, and the measuring of what it made.

May be imported by `backtest`, `tuning` and `serving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from recsys.pipeline.evaluation import evaluate
    from recsys.pipeline.run import train

__all__ = ["evaluate", "train"]

__getattr__, __dir__ = lazy_names(__name__, __file__)
