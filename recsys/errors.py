"""Errors of the model packages; each exists because some caller catches it."""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "CollapseError",
    "ConfigError",
    "LeakageError",
    "NotFittedError",
    "TooFewUsersError",
]


class ConfigError(ValueError):
    """A setting is unknown, missing or out of range."""


class NotFittedError(RuntimeError):
    """A model was used before it was trained or loaded."""


class ArtifactError(RuntimeError):
    """A bundle is missing, half-written, of another version or of another vocabulary."""


class LeakageError(RuntimeError):
    """A training example can see something that happened at or after its own moment."""


class CollapseError(RuntimeError):
    """A model in training tells users or items apart by too few directions."""


class TooFewUsersError(ValueError):
    """There are fewer users than something can be learned from; the rest works without it."""
