"""Models and measuring: content, semantic ids, retrieval, ranking, evaluation. No network code.

Importing this package costs nothing: the names that need a model library are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from recsys.errors import ArtifactError, ConfigError, LeakageError, NotFittedError

if TYPE_CHECKING:
    from recsys.bundle.bundle import Bundle
    from recsys.config.config import Config, load_config
    from recsys.pipeline.run import evaluate, train
    from recsys.recommender.recommender import Recommender, Slate, SlateItem

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
    "Bundle": "recsys.bundle.bundle",
    "Config": "recsys.config.config",
    "Recommender": "recsys.recommender.recommender",
    "Slate": "recsys.recommender.recommender",
    "SlateItem": "recsys.recommender.recommender",
    "evaluate": "recsys.pipeline.run",
    "load_config": "recsys.config.config",
    "train": "recsys.pipeline.run",
}


def __getattr__(name: str) -> Any:
    """Import the module that holds ``name`` and return it."""
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'recsys' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names of the package, the ones not loaded yet included."""
    return sorted({*globals(), *_HOME})
