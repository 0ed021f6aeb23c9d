"""What is held out, and what is measured on it."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from recsys.settings import Count, Open01, Settings, check_distinct

__all__ = ["EvaluationOptions", "SplitOptions"]


class SplitOptions(Settings):
    """What is held out for evaluation."""

    kind: Literal["per_user", "time"] = "per_user"
    """Each user's last events, or all events after a moment."""
    fraction: Open01 = 0.8
    """Share of the events that is training data."""

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
