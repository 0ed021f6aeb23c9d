"""What is held out, and what is measured on it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import field_validator, model_validator

from features.moments import utc
from recsys.settings import Count, Open01, Settings, check_distinct

__all__ = ["EvaluationOptions", "SplitOptions"]


class SplitOptions(Settings):
    """What is held out for evaluation."""

    kind: Literal["per_user", "time"] = "per_user"
    """Each user's last events, or all events after a moment."""
    fraction: Open01 = 0.8
    """Share of the events that is training data."""
    moment: datetime | None = None
    """With kind "time": what came before it is training data, UTC where it has no zone; what models
    are chosen on is a share of that as before. Not said: the share of the events decides."""

    @field_validator("moment")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        return None if value is None else utc(value)

    @model_validator(mode="after")
    def _moment_is_of_time(self) -> Self:
        if self.moment is not None and self.kind != "time":
            raise ValueError(
                f"moment must stand with kind = 'time', got {self.kind!r}; set it, or leave the "
                "moment out"
            )
        return self

    @property
    def at_once(self) -> bool:
        """Whether all users are asked at one moment; else each at a moment of its own."""
        return self.kind == "time"


class EvaluationOptions(Settings):
    """What is measured on the held-out part."""

    ks: tuple[Count, ...] = (5, 10, 20)
    """Cutoffs of the metrics."""
    bootstrap_samples: Count = 1000
    """Draws behind an interval."""

    @field_validator("ks")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(check_distinct(value, "cutoff")))
