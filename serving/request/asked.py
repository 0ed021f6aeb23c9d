"""One question with all that is known of it before the first stage looks for items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from recsys.config.experiment_design import DRAWING, ArmSettings
from recsys.config.serving import ServiceSettings
from serving.messages import StageOutcome
from serving.models.live import LiveQuestion
from serving.request.cursor import Page
from serving.request.experiments import Assignment
from serving.request.filters import Filters
from serving.request.reader import View
from serving.request.user_states import UserState

__all__ = ["Asked", "SlatePolicy", "policy_of"]


class SlatePolicy(NamedTuple):
    """How a slate is made: as configured, as the request says, and as the user's arms say.

    Attributes:
        arms: arm by experiment, for those the user takes part in.
        arm: what these arms change.
        diversity: of the slate, 0 to 1.
        rerank: ``never``, ``fresh`` or ``always``.
        draws: the slate is drawn at random.
        wanted: entries that a stage must give for the slate.
    """

    arms: Mapping[str, str]
    arm: ArmSettings
    diversity: float
    rerank: str
    draws: bool
    wanted: int


class Asked(NamedTuple):
    """One question; nothing changes it.

    Attributes:
        asker: who asks, and what that user did just now.
        k: places wanted.
        threshold: a live answer may be short.
        segment: whose popular items to show.
        view: what it is answered from, whatever is flipped meanwhile.
        page: where the slate begins.
        filters: which items may be shown.
        policy: how the slate is made.
        state: what the store says of the user; None: it was not asked, or did not answer.
        met: items that the user liked, of all that the service was told, oldest first.
        local_only: ask neither the store nor a model.
        deadline: by ``now``.
        now: the service's clock, seconds.
        broken: reasons known so far that make the answer a degraded one.
        outcomes: of what was done so far.
    """

    asker: LiveQuestion
    k: int
    threshold: bool
    segment: str | None
    view: View
    page: Page
    filters: Filters
    policy: SlatePolicy
    state: UserState | None
    met: Sequence[str]
    local_only: bool
    deadline: float
    now: Callable[[], float]
    broken: tuple[str, ...]
    outcomes: tuple[StageOutcome, ...]


def policy_of(
    settings: ServiceSettings, assigned: Assignment, k: int, diversity: float | None
) -> SlatePolicy:
    """The policy of one question.

    Args:
        settings: as configured.
        assigned: the user's arms; they go before what the request says.
        k: places wanted.
        diversity: that the request asks for. None: as configured.
    """
    arm = assigned.settings
    diversity = settings.diversity if diversity is None else diversity
    if arm.diversity is not None:
        diversity = arm.diversity
    if arm.ranker not in (None, "default"):
        diversity = 0.0
    rerank = settings.rerank if arm.rerank is None else arm.rerank
    pool = settings.slate_pool if arm.slate_pool is None else arm.slate_pool
    draws = arm.ranker in DRAWING
    if draws:
        wanted = max(k, int(arm.drawn_with("top")))
    else:
        wanted = max(2 * k, pool) if diversity > 0 else k
    return SlatePolicy(
        arms=assigned.arms,
        arm=arm,
        diversity=diversity,
        rerank="never" if arm.ranker in ("noop", "popular") else rerank,
        draws=draws,
        wanted=wanted,
    )
