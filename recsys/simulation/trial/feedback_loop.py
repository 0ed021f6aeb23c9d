"""A policy that is trained again and again on the log it made itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from recsys.simulation.world.arms import SimulatedArm, arm_from_scores, tables_of
from recsys.simulation.world.sessions import Behaviour, SessionLog, simulate_sessions
from recsys.simulation.world.world import World

__all__ = ["LoopRound", "Refit", "click_rates", "debiased_click_rates", "feedback_loop"]

Refit = Callable[[SimulatedArm, Sequence[SessionLog]], np.ndarray]
"""(the arm as it was, logs so far, of arms with the same candidates in the order of the first)
-> [U, M] new scores of those candidates."""


class LoopRound(NamedTuple):
    """What one round came to.

    Attributes:
        clicks: per session, as were to be expected given what was shown.
        coverage: share of the candidates of all users that were shown to anybody.
        concentration: Gini coefficient of the showings over the catalogue's shown or showable
            items, 0 even to 1 all one item.
        kept: share of the first k places that hold the same item as in the round before; 1 in the
            first.
    """

    clicks: float
    coverage: float
    concentration: float
    kept: float


def feedback_loop(
    world: World,
    arm: SimulatedArm,
    refit: Refit,
    *,
    rounds: int,
    sessions: int,
    rng: np.random.Generator,
    behaviour: Behaviour | None = None,
    k: int = 10,
) -> list[LoopRound]:
    """Show, log, train on the log, show again.

    The first round shows ``arm`` as it is; later ones order the same candidates by what ``refit``
    makes of all logs so far, drawn as the arm's settings say.

    Args:
        world: the truth.
        arm: the first policy.
        refit: trains; `click_rates` repeats what was shown, `debiased_click_rates` does not.
        rounds: >= 1.
        sessions: of each round.
        rng: all draws.
        behaviour: of people.
        k: places.

    Raises:
        ValueError: ``rounds`` < 1.

    Source: Chaney, Stewart and Engelhardt, How algorithmic confounding in recommendation systems
    increases homogeneity and decreases utility, RecSys 2018.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be >= 1, got {rounds}")
    found: list[LoopRound] = []
    logs: list[SessionLog] = []
    current, before = arm, arm.item_index[:, :k]
    for number in range(rounds):
        simulated = simulate_sessions(
            tables_of(world, [current]),
            sessions=sessions,
            rng=rng,
            behaviour=behaviour,
            k=k,
            here=min(8192, sessions),
            logging_arm=0,
            log_sessions=sessions,
        )
        people, log = simulated.people, simulated.log
        if log is None:
            raise RuntimeError("nothing was logged")
        shown = np.take_along_axis(current.item_index[log.user], log.rank, axis=1)
        showable = np.unique(current.item_index)
        times = np.bincount(shown.ravel(), minlength=int(showable.max()) + 1)[showable]
        head = current.item_index[:, :k]
        found.append(
            LoopRound(
                float(people.expected.sum() / people.sessions.sum()),
                float((times > 0).mean()),
                _gini(times),
                1.0 if number == 0 else float((head == before).mean()),
            )
        )
        logs.append(_in_order_of(arm, current, log))
        before = head
        score = refit(arm, logs)
        current = replace(arm_from_scores(arm.name, arm.item_index, score), settings=arm.settings)
    return found


def click_rates(arm: SimulatedArm, logs: Sequence[SessionLog]) -> np.ndarray:
    """[U, M] clicks over showings of each item, all users together; unseen items count as bad.

    Naive: it reads a low place as dislike, and never finds what it did not show.
    """
    return _rates(arm, logs, np.ones(logs[0].rank.shape[1]), prior=0.0)


def debiased_click_rates(arm: SimulatedArm, logs: Sequence[SessionLog]) -> np.ndarray:
    """As `click_rates`, each showing counting as much as its place is clicked, unseen as usual.

    The place effect is estimated from the log itself: clicks per showing of each place.
    """
    place = np.mean([log.click.mean(axis=0) for log in logs], axis=0)
    return _rates(arm, logs, np.maximum(place / max(place.max(), 1e-12), 0.02), prior=10.0)


def _rates(
    arm: SimulatedArm, logs: Sequence[SessionLog], looked: np.ndarray, *, prior: float
) -> np.ndarray:
    size = int(arm.item_index.max()) + 1
    clicks, shown = np.zeros(size), np.zeros(size)
    for log in logs:
        items = np.take_along_axis(arm.item_index[log.user], log.rank, axis=1).ravel()
        clicks += np.bincount(items, weights=log.click.ravel(), minlength=size)
        shown += np.bincount(items, weights=np.tile(looked, len(log)), minlength=size)
    usual = clicks.sum() / max(shown.sum(), 1e-12)
    rate: np.ndarray = (clicks + prior * usual) / np.maximum(shown + prior, 1e-12)
    score: np.ndarray = rate[arm.item_index]
    return score


def _in_order_of(first: SimulatedArm, current: SimulatedArm, log: SessionLog) -> SessionLog:
    """The log with ranks among the first arm's candidates."""
    order = np.argsort(first.item_index, axis=1)
    ordered = np.take_along_axis(first.item_index, order, axis=1)
    width = int(max(first.item_index.max(), current.item_index.max())) + 1
    offset = np.arange(len(ordered))[:, None] * width
    items = np.take_along_axis(current.item_index[log.user], log.rank, axis=1)
    flat = (ordered + offset).ravel()  # rising, as users rise and items within a user do
    at = np.searchsorted(flat, items + offset[log.user])
    return replace(log, rank=order.ravel()[at])


def _gini(times: np.ndarray) -> float:
    ordered = np.sort(times.astype(np.float64))
    n, total = ordered.size, ordered.sum()
    if total == 0:
        return 0.0
    return float(2.0 * (np.arange(1, n + 1) * ordered).sum() / (n * total) - (n + 1) / n)
