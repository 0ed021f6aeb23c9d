"""Models and measuring: content, semantic ids, retrieval, ranking, evaluation. No network code.

Importing this package costs nothing; the models live in its subpackages.
"""

from __future__ import annotations

from recsys.errors import ArtifactError, ConfigError, LeakageError, NotFittedError

__all__ = ["ArtifactError", "ConfigError", "LeakageError", "NotFittedError"]
