"""How the parts of one answer went: their time, and the fixed word for what failed."""

from __future__ import annotations

import time
from collections.abc import Iterable

from serving.errors import CorruptValue, DeadlineExceeded, NoGeneration, ServingError
from serving.messages import StageOutcome

__all__ = ["Timings", "reason_of"]


class Timings:
    """Notes the parts of one answer as they end; all else that a stage says, it returns.

    Args:
        before: parts that ended before.

    Attributes:
        outcomes: of all parts, in the order they ended.
    """

    __slots__ = ("outcomes",)

    def __init__(self, before: Iterable[StageOutcome] = ()) -> None:
        self.outcomes = [*before]

    def ended(self, stage: str, began: float, outcome: str = "done") -> None:
        """A part ended.

        Args:
            stage: its name.
            began: when, by `time.perf_counter`.
            outcome: how, see `serving.messages.StageOutcome`.
        """
        ms = (time.perf_counter() - began) * 1e3
        self.outcomes.append(StageOutcome(stage, ms, outcome))

    def failed(self, stage: str, began: float, error: ServingError) -> str:
        """The fixed word for a failure that ended a part; see `ended`."""
        reason = reason_of(error)
        ms = (time.perf_counter() - began) * 1e3
        self.outcomes.append(StageOutcome(stage, ms, "failed", reason))
        return reason


def reason_of(error: ServingError) -> str:
    """The fixed word for a failure that a fallback hides."""
    if isinstance(error, CorruptValue):
        return "corrupt_value"
    if isinstance(error, DeadlineExceeded):
        return f"{error.stage}_deadline"
    if isinstance(error, NoGeneration):
        return "generation_expired"
    return f"{error.stage}_unavailable"
