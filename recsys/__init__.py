"""Models and measuring: content, semantic ids, retrieval, ranking, evaluation. No network code.

Importing this package costs nothing: the names that need a model library are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys import threads
from recsys.errors import ArtifactError, ConfigError, LeakageError, NotFittedError
from recsys.lazy import lazy_names

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

_HOME = {
    "Bundle": "recsys.bundle",
    "Config": "recsys.config",
    "Recommender": "recsys.recommender",
    "Slate": "recsys.recommender",
    "SlateItem": "recsys.recommender",
    "evaluate": "recsys.pipeline",
    "load_config": "recsys.config",
    "train": "recsys.pipeline",
}

__getattr__, __dir__ = lazy_names(__name__, _HOME)

threads.wait_asleep()
