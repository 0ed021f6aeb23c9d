"""What the log of one arm says another arm would have got: estimates beside the known truth.

Each place of a slate is a round: the action is the item at the place, the reward its click. Its
weight is the probability that the judged arm has this item at this place over the same of the
logging arm, whatever stands above. That is unbiased where a click depends on its place and item
alone; under "cascade" and "dependent" clicks it is not. The direct method and the doubly robust
estimate read the table of `recsys.simulation.trial.place_rewards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from recsys.simulation.estimates.diagnostics import (
    WeightDiagnostics,
    disagreement,
    errors_apart,
    weight_diagnostics,
)
from recsys.simulation.estimates.estimate import Contributions, Estimate
from recsys.simulation.estimates.estimators import (
    clipped_ips,
    dm,
    dr,
    importance_weights,
    ips,
    snips,
)
from recsys.simulation.estimates.slope import SHOWN_LIMITS, choose_clip
from recsys.simulation.trial.place_rewards import PlaceRewards
from recsys.simulation.world.arms import SimulatedArm
from recsys.simulation.world.sessions import SessionLog, ranks_of

__all__ = ["LogEstimate", "coverage_of", "estimate_from_log", "place_weights"]


class LogEstimate(NamedTuple):
    """Clicks per session of an arm, from another arm's log.

    Attributes:
        arm: judged.
        logging: whose log it is.
        ips: by inverse propensities.
        snips: self-normalised.
        clipped: by inverse propensities of at most ``clip``.
        clip: largest weight, as `recsys.simulation.estimates.slope.choose_clip` chose it from the
            log.
        at_limit: clicks per session by clipped IPS at each of `SHOWN_LIMITS`.
        dm: direct method; its interval leaves out the error of the model. None: no model.
        dr: doubly robust. None: no model.
        diagnostics: of the weights, and of ``dm`` against ``snips``; its verdict says whether the
            numbers may be shown.
        truth: clicks per session that the judged arm would have got from the same people in the
            same sessions. None: not known.
    """

    arm: str
    logging: str
    ips: Estimate
    snips: Estimate
    clipped: Estimate
    clip: float
    at_limit: Mapping[float, float]
    dm: Estimate | None
    dr: Estimate | None
    diagnostics: WeightDiagnostics
    truth: float | None

    @property
    def usable(self) -> bool:
        """Whether the log can carry the numbers."""
        return self.diagnostics.verdict != "unusable"

    @property
    def errors_apart(self) -> float | None:
        """How many standard errors ``dm`` is above ``snips``; None without a model."""
        return None if self.dm is None else errors_apart(self.dm, self.snips)

    def errors_from_truth(self, estimate: Estimate) -> float | None:
        """How many standard errors ``estimate`` is above the truth; None where it is not known."""
        if self.truth is None or not estimate.standard_error > 0:
            return None
        return (estimate.value - self.truth) / estimate.standard_error


def place_weights(log: SessionLog, logging: SimulatedArm, judged: SimulatedArm) -> np.ndarray:
    """[n, k] float64 P(this item at this place under the judged arm) / the same when logging.

    Args:
        log: of ``logging``.
        logging: the arm that was shown.
        judged: another arm of the same users, or the same.

    Raises:
        ValueError: one of the two draws by score ("softmax").
    """
    k = log.rank.shape[1]
    place = np.arange(k)
    shown = logging.marginals(k)[log.rank, place]
    there = ranks_of(judged.item_index, logging.item_index)[log.user[:, None], log.rank]  # [n, k]
    wanted = np.where(there >= 0, judged.marginals(k)[np.maximum(there, 0), place], 0.0)
    weight = importance_weights(wanted.ravel(), shown.ravel())
    return weight.reshape(wanted.shape)


def coverage_of(logging: SimulatedArm, judged: SimulatedArm, user: np.ndarray, k: int) -> float:
    """Share of what the judged arm shows that the logging arm shows at that place at all.

    Args:
        logging: the arm that was shown.
        judged: the other one.
        user: [n] int64 rows, one a session.
        k: places.
    """
    possible = np.append(logging.marginals(k) > 0, np.zeros((1, k), bool), axis=0)  # row -1: no
    there = ranks_of(logging.item_index, judged.item_index)  # [U, M of judged]
    mass = judged.marginals(k)
    covered = (possible[there] * mass).sum(axis=(1, 2)) / k  # [U]
    return float(covered[user].mean())


def estimate_from_log(
    log: SessionLog,
    logging: SimulatedArm,
    judged: SimulatedArm,
    *,
    rewards: PlaceRewards | None = None,
    truth: float | None = None,
    level: float = 0.95,
) -> LogEstimate:
    """Clicks per session of ``judged`` from the log of ``logging``, errors clustered by person.

    Args:
        log: sessions of ``logging``.
        logging: the arm that was shown.
        judged: the arm in question.
        rewards: `fit_place_rewards` of this log. None: no ``dm`` and no ``dr``.
        truth: if known.
        level: of the intervals.
    """
    n, k = log.rank.shape
    weight = place_weights(log, logging, judged).ravel()
    reward = log.click.ravel().astype(np.float64)
    unit = np.repeat(log.person, k)
    covered = coverage_of(logging, judged, log.user, k)

    def found(one: Contributions) -> Estimate:
        return _a_session(one.estimate(unit=unit, level=level), k)

    shown = bool(weight.any())
    nothing = Estimate("snips", 0.0, float("nan"), float("-inf"), float("inf"), n)
    normalised = found(snips(weight, reward)) if shown else nothing
    clip = choose_clip(weight, reward) if shown else float("inf")
    direct = robust = None
    seen = weight_diagnostics(weight, unit=unit, coverage=covered)
    if rewards is not None:
        predicted, expected = rewards.predict(judged)
        direct = found(dm(expected))
        robust = found(dr(weight, reward, predicted, expected))
        apart = disagreement(direct, normalised)
        if apart and seen.verdict != "unusable":
            seen = seen._replace(verdict="weak", reasons=(*seen.reasons, *apart))
    return LogEstimate(
        judged.name,
        logging.name,
        found(ips(weight, reward)),
        normalised,
        found(clipped_ips(weight, reward, limit=clip)),
        clip,
        {limit: k * clipped_ips(weight, reward, limit=limit).value for limit in SHOWN_LIMITS},
        direct,
        robust,
        seen,
        truth,
    )


def _a_session(one: Estimate, k: int) -> Estimate:
    """Clicks of a place as clicks of k places."""
    return one._replace(
        value=k * one.value,
        standard_error=k * one.standard_error,
        low=k * one.low,
        high=k * one.high,
        num_rounds=one.num_rounds // k,
    )
