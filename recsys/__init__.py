"""Models and measuring: content, semantic ids, retrieval, ranking, evaluation. No network code.

Importing this package costs nothing: the names that need a model library are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names
from recsys import threads
from recsys.errors import ArtifactError, ConfigError, LeakageError, NotFittedError

if TYPE_CHECKING:
    from recsys.bundle import Bundle
    from recsys.config import Config, load_config
    from recsys.pipeline import evaluate, train
    from recsys.recommender import Recommender, Slate, SlateItem

__all__ = [
    "ArtifactError",
    "Bundle",
    "Config",
    "ConfigError",
    "LeakageError",
    "NotFittedError",
    "Recommender",
    "Slate",
    "SlateItem",
    "evaluate",
    "load_config",
    "train",
]


__getattr__, __dir__ = lazy_names(__name__, __file__)

threads.wait_asleep()
