"""What is known of one request while it is worked on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recsys.config.experiment_design import DRAWING, ArmSettings
from serving.errors import CorruptValue, DeadlineExceeded, NoGeneration, ServingError
from serving.messages import StageOutcome
from serving.models.live import LiveQuestion
from serving.request.cursor import Page
from serving.request.reader import View
from serving.request.selection import Selection
from serving.request.user_states import UserState

if TYPE_CHECKING:
    from recsys.recommender.past import FreshEvent

__all__ = ["Work", "reason_of"]


@dataclass(slots=True)
class Work:
    """State of one request.

    Attributes:
        view: what it works with, whatever is flipped meanwhile.
        selection: filters, and the slate so far.
        k: places wanted.
        diversity: of the slate.
        deadline: by the service's clock.
        now: the service's clock.
        local_only: ask neither the store nor a model.
        user_id: None when nobody said.
        recent: what the request says the user just did, newest last.
        fresh: what the service was told and the published lists do not know, oldest first.
        met: items of all that the service was told, oldest first.
        moment_us: of the request, for the model; None: see `serving.models.live.LiveQuestion`.
        threshold: a live answer may be short.
        segment: whose popular items to show.
        rerank: ``never``, ``fresh`` or ``always``.
        slate_pool: candidates considered by a diverse slate, at least.
        page: where the slate begins.
        arms: arm by experiment, for those the user takes part in.
        arm: what these arms change.
        state: what the store says of the user; None: it was not asked, or did not answer.
        whole: the stage's answer stands as it is, however short.
        generation: whose lists were used.
        source: stage that gave the first place.
        broken: reasons that make the answer a degraded one.
        missed: reasons why a stage had nothing.
        outcomes: what was tried.
    """

    view: View
    selection: Selection
    k: int
    diversity: float
    deadline: float
    now: Callable[[], float]
    local_only: bool
    user_id: str | None = None
    recent: Sequence[str] = ()
    fresh: Sequence[FreshEvent] = ()
    met: Sequence[str] = ()
    moment_us: int | None = None
    threshold: bool = False
    segment: str | None = None
    rerank: str = "fresh"
    slate_pool: int = 50
    page: Page = field(default_factory=lambda: Page("", (), 0, 0))
    arms: Mapping[str, str] = field(default_factory=dict)
    arm: ArmSettings = field(default_factory=ArmSettings)
    state: UserState | None = None
    whole: bool = False
    generation: str | None = None
    source: str = "none"
    broken: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    outcomes: list[StageOutcome] = field(default_factory=list)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - self.now()

    @property
    def did_something(self) -> bool:
        """The user did something that the published lists do not know."""
        return bool(self.recent or self.fresh)

    @property
    def draws(self) -> bool:
        """The slate is drawn at random."""
        return self.arm.ranker in DRAWING

    @property
    def wanted(self) -> int:
        """How many entries a stage must give for a slate of ``k``."""
        if self.draws:
            return max(self.k, int(self.arm.drawn_with("top")))
        return max(2 * self.k, self.slate_pool) if self.diversity > 0 else self.k

    def question(self) -> LiveQuestion:
        """Who asks a model."""
        return LiveQuestion(self.user_id, self.recent, self.fresh, self.moment_us)

    @contextmanager
    def timed(self, stage: str) -> Iterator[_Outcome]:
        """Note how long a stage takes; the caller may say how it ended."""
        began = time.perf_counter()
        outcome = _Outcome()
        try:
            yield outcome
        except ServingError as error:
            outcome.ended, outcome.detail = "failed", reason_of(error)
            raise
        finally:
            ms = (time.perf_counter() - began) * 1e3
            self.outcomes.append(StageOutcome(stage, ms, outcome.ended, outcome.detail))


@dataclass(slots=True)
class _Outcome:
    ended: str = "done"
    detail: str | None = None


def reason_of(error: ServingError) -> str:
    """The fixed word for a failure that a fallback hides."""
    if isinstance(error, CorruptValue):
        return "corrupt_value"
    if isinstance(error, DeadlineExceeded):
        return f"{error.stage}_deadline"
    if isinstance(error, NoGeneration):
        return "generation_expired"
    return f"{error.stage}_unavailable"
