"""Errors of the serving side; each names the stage it happened in.

```
ServingError
  StageUnavailable    a backend is down or too slow        -> fallback, else 503
  DeadlineExceeded    a stage is over its budget           -> fallback, else 504
  CorruptValue        a stored value cannot be decoded     -> fallback, else 500
  NoGeneration        nothing to serve from                -> 503
  PublishRefused      a check failed, the head is unmoved  -> the publisher's exit code
    HeadConflict      another publisher moved the head first
  WriterReplaced      another process updates the feature state -> this one stops
  CursorMismatch      a page was asked for with another question  -> 400
  CursorExpired       the generation of a page is gone            -> 410
  NotSupported        this process has not what it takes          -> 409
```
"""

from __future__ import annotations

__all__ = [
    "CorruptValue",
    "CursorExpired",
    "CursorMismatch",
    "DeadlineExceeded",
    "HeadConflict",
    "NoGeneration",
    "NotSupported",
    "PublishRefused",
    "ServingError",
    "StageUnavailable",
    "WriterReplaced",
]


class ServingError(Exception):
    """Something in the serving path failed.

    Attributes:
        stage: where it happened: "store", "live", "publish", ...
    """

    def __init__(self, message: str, *, stage: str) -> None:
        super().__init__(message)
        self.stage = stage


class StageUnavailable(ServingError):
    """A backend is down, refuses connections or does not answer in time.

    Attributes:
        shard: "host:port" of the one node that failed, of a store that has several: what the
            others hold can still be read. None: nothing can.
        refused: it answered, at once, that it will not, such as a store without memory for more:
            other questions may be answered.
    """

    def __init__(
        self, message: str, *, stage: str, shard: str | None = None, refused: bool = False
    ) -> None:
        super().__init__(message, stage=stage)
        self.shard = shard
        self.refused = refused


class DeadlineExceeded(ServingError):
    """A stage took longer than the request may."""


class CorruptValue(ServingError):
    """A stored value is truncated, damaged or of another version."""

    def __init__(self, message: str, *, stage: str = "store") -> None:
        super().__init__(message, stage=stage)


class NoGeneration(ServingError):
    """No generation is published, or the one asked for is not in the store."""

    def __init__(self, message: str, *, stage: str = "store") -> None:
        super().__init__(message, stage=stage)


class PublishRefused(ServingError):
    """A publish or a flip failed a check; readers still see what they saw before."""

    def __init__(self, message: str, *, stage: str = "publish") -> None:
        super().__init__(message, stage=stage)


class HeadConflict(PublishRefused):
    """The head moved between reading it and flipping it."""


class WriterReplaced(ServingError):
    """Another process has become the writer of the feature state."""

    def __init__(self, message: str, *, stage: str = "features") -> None:
        super().__init__(message, stage=stage)


class CursorMismatch(ServingError):
    """A cursor is damaged, or belongs to another question."""

    def __init__(self, message: str, *, stage: str = "cursor") -> None:
        super().__init__(message, stage=stage)


class CursorExpired(ServingError):
    """The generation that a cursor's pages come from is not in the store any more."""

    def __init__(self, message: str, *, stage: str = "cursor") -> None:
        super().__init__(message, stage=stage)


class NotSupported(ServingError):
    """This process was not given what the question takes."""

    def __init__(self, message: str, *, stage: str = "request") -> None:
        super().__init__(message, stage=stage)
