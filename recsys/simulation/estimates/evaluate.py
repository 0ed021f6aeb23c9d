"""Policies judged on one log: diagnostics first, a number only where the log can carry it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recsys.simulation.estimates.cells import estimated_marginal_weights, marginal_weights
from recsys.simulation.estimates.diagnostics import (
    Reason,
    Verdict,
    disagreement,
    support_coverage,
    weight_diagnostics,
)
from recsys.simulation.estimates.estimate import (
    Contributions,
    Estimate,
    bootstrap_estimates,
    from_contributions,
)
from recsys.simulation.estimates.estimators import (
    clipped_ips,
    dm,
    dr,
    dr_os,
    importance_weights,
    ips,
    mips,
    replay,
    sg_dr,
    sg_ips,
    sndr,
    snips,
    snmips,
    switch_dr,
)
from recsys.simulation.estimates.evaluation_table import Evaluation, EvaluationTable
from recsys.simulation.estimates.feedback_problems import problems
from recsys.simulation.estimates.logged_feedback import LoggedFeedback
from recsys.simulation.estimates.reward_models import (
    CrossFitted,
    LookupRewards,
    RewardModel,
    cross_fit,
)
from recsys.simulation.estimates.slope import (
    LIMITS,
    SHOWN_LIMITS,
    choose_clip,
    choose_lepski,
    sampled_spread,
)

__all__ = ["evaluate_policies"]

STRENGTHS = (0.0, 0.001, 0.01, 0.1, 0.5)


def evaluate_policies(
    log: LoggedFeedback,
    policies: Mapping[str, np.ndarray],
    *,
    rng: np.random.Generator,
    logging: np.ndarray | None = None,
    fit: Callable[[LoggedFeedback], RewardModel] = LookupRewards.fit,
    folds: int = 2,
    cells: Sequence[np.ndarray] = (),
    reward_range: tuple[float, float] | None = None,
    resamples: int = 0,
    level: float = 0.95,
) -> EvaluationTable:
    """Every estimator on every policy, with a verdict.

    Limits, shrinkage and depth are chosen by the log: that of ``clipped_ips`` by
    `choose_least_error`, the others by `choose_lepski`. Their intervals leave out the choice and
    the bias it accepts; those of ``snips``, ``dr`` and ``sndr`` have neither.

    The interval of each policy holds for that policy alone: the best of many is too high by its
    luck. The winner by ``snips`` among two or more usable policies is picked on one half of the
    units and valued on the other.

    Args:
        log: the rounds.
        policies: name to [n, K] or [K] float64 probabilities (rows sum to 1), or [n] probability
            of the logged action alone where K differs from n; then only weights are used.
        rng: draws folds, halves and resamples.
        logging: [n, K] or [K] probabilities of the logger, if known for all actions: exact
            weights of cells, the coverage, and the A/A check.
        fit: reward model.
        folds: of its cross-fitting.
        cells: [K] int64 categories of the actions, finest first: `prefix_cells` of falling depth.
        reward_range: smallest and largest possible reward.
        resamples: > 0: intervals by bootstrap over units; 0: asymptotic.
        level: of the intervals.

    Raises:
        ValueError: the log has a fatal problem of its own, or a policy has a wrong shape or rows
            that are no probabilities.
    """
    found = problems(log, reward_range=reward_range)
    fatal = [one for one in found if one.fatal]
    if any(one.kind != "no_exploration" for one in fatal):
        raise ValueError("the log must be sound: " + "; ".join(map(str, fatal)))
    logger = from_contributions("logger", log.reward, unit=log.unit, level=level)
    models = cross_fit(log, fit, rng=rng, folds=folds)
    judge = _Judge(log, logging, models, cells, resamples, level, rng, bool(fatal))
    judged = {name: judge.policy(name, policy) for name, policy in policies.items()}
    notes: list[str] = []
    usable = {name: one for name, one in judged.items() if one.verdict != "unusable"}
    if len(usable) > 1:
        winner, held_out = judge.winner({name: policies[name] for name in usable})
        judged[winner] = replace(judged[winner], held_out=held_out)
        notes.append(
            f"{len(policies)} policies on one log: the best is biased up by its luck; for the one "
            f"that wins on half of the units, {winner!r}, believe the held-out half; a family "
            f"error of {1 - level:.2g} needs intervals at {1 - (1 - level) / len(policies):.4g}"
        )
    passes = None
    if logging is not None:
        lift = judge.policy("logger", logging).lift
        passes = lift.low <= 1e-12 and lift.high >= -1e-12
        if not passes:
            notes.append(
                f"A/A check fails: the logger's own policy has lift {lift.value:.5f} "
                f"[{lift.low:.5f}, {lift.high:.5f}]; the logged propensities are not its own"
            )
    notes.append("Nothing can be said of items and contexts that the log never shows.")
    return EvaluationTable(logger, judged, tuple(found), tuple(notes), passes)


@dataclass(frozen=True)
class _Judge:
    """One log with what every policy on it shares."""

    log: LoggedFeedback
    logging: np.ndarray | None
    models: CrossFitted
    cells: Sequence[np.ndarray]
    resamples: int
    level: float
    rng: np.random.Generator
    no_exploration: bool

    def policy(self, name: str, policy: np.ndarray) -> Evaluation:
        log = self.log
        full, chosen = _probabilities(name, policy, log)
        weight = importance_weights(chosen, log.propensity)
        coverage = None
        if full is not None and self.logging is not None:
            coverage = support_coverage(self.logging, full)
        seen = weight_diagnostics(weight, unit=log.unit, coverage=coverage)
        reasons = list(seen.reasons)
        if self.no_exploration:
            reasons.append(Reason("no_exploration", "the logger never explored", "unusable"))
        if not bool((weight > 0).any()):
            nothing = Estimate("lift", np.nan, np.nan, -np.inf, np.inf, len(log))
            return Evaluation(name, "unusable", tuple(reasons), seen, {}, nothing, None, {}, {})
        parts, settings = self._contributions(full, weight)
        estimates = self._intervals(parts)
        if "dm" in estimates:
            reasons += disagreement(estimates["dm"], estimates["snips"])
        limits = [clipped_ips(weight, log.reward, limit=limit) for limit in SHOWN_LIMITS]
        sensitivity = dict(zip(SHOWN_LIMITS, self._asymptotic(limits), strict=True))
        worst: Verdict = "ok"
        if reasons:
            worst = "unusable" if any(r.verdict == "unusable" for r in reasons) else "weak"
        lift = self._lift(weight)
        return Evaluation(
            name, worst, tuple(reasons), seen, settings, lift, None, estimates, sensitivity
        )

    def winner(self, policies: Mapping[str, np.ndarray]) -> tuple[str, Estimate]:
        """Pick on one half of the units, value on the other."""
        log = self.log
        units = (
            np.arange(len(log)) if log.unit is None else np.unique(log.unit, return_inverse=True)[1]
        )
        first = (self.rng.permutation(int(units.max()) + 1) % 2 == 0)[units]
        best, value, held = "", -np.inf, None
        for name, policy in policies.items():
            weight = importance_weights(_probabilities(name, policy, log)[1], log.propensity)
            if weight[first].sum() == 0 or weight[~first].sum() == 0:
                continue
            here = snips(weight[first], log.reward[first]).value
            if here > value:
                other = snips(weight[~first], log.reward[~first])
                unit = None if log.unit is None else log.unit[~first]
                best, value = name, here
                held = other.estimate(unit=unit, level=self.level)
        if held is None:
            raise ValueError("no policy has weight in both halves of the log; use more rounds")
        return best, held

    def _contributions(
        self, full: np.ndarray | None, weight: np.ndarray
    ) -> tuple[list[Contributions], dict[str, float]]:
        reward = self.log.reward
        settings = {"clip": choose_clip(weight, reward)}
        parts = [ips(weight, reward), snips(weight, reward)]
        parts.append(clipped_ips(weight, reward, limit=settings["clip"]))
        subgaussian = [sg_ips(weight, reward, strength=strength) for strength in STRENGTHS]
        place = self._least_error(subgaussian)
        settings["strength"] = STRENGTHS[place]
        parts.append(subgaussian[place])
        if full is not None:
            predicted, expected = self.models.predict(full)
            model = (weight, reward, predicted, expected)
            parts += [dm(expected), dr(*model), sndr(*model)]
            switched = [switch_dr(*model, limit=limit) for limit in LIMITS]
            place = self._least_error(switched)
            settings["switch"] = LIMITS[place]
            parts.append(switched[place])
            shrinkages = (np.inf, 1e5, 1e4, 1e3, 1e2, 10.0)
            shrunk = [dr_os(*model, shrinkage=one) for one in shrinkages]
            place = self._least_error(shrunk)
            settings["shrinkage"] = shrinkages[place]
            parts.append(shrunk[place])
            parts.append(sg_dr(*model, strength=settings["strength"]))
            parts += self._marginal(full, weight, settings)
            if bool((full.max(axis=-1) == 1.0).all()) and _uniform(self.log):
                parts.append(replay(weight > 0, reward))
        return parts, settings

    def _marginal(
        self, full: np.ndarray, weight: np.ndarray, settings: dict[str, float]
    ) -> list[Contributions]:
        if not self.cells:
            return []
        log = self.log
        if self.logging is not None:
            weights = [marginal_weights(log.action, self.logging, full, c) for c in self.cells]
        else:
            weights = [
                estimated_marginal_weights(weight, cell[log.action], stratum=log.position)
                for cell in self.cells
            ]
        candidates = [mips(one, log.reward) for one in weights]
        place = self._least_error(candidates)
        settings["depth"] = float(len(self.cells) - place)
        return [candidates[place], snmips(weights[place], log.reward)]

    def _least_error(self, candidates: Sequence[Contributions]) -> int:
        value = np.array([one.value for one in candidates])
        return choose_lepski(value, sampled_spread(candidates, unit=self.log.unit))

    def _asymptotic(self, parts: Sequence[Contributions]) -> list[Estimate]:
        return [one.estimate(unit=self.log.unit, level=self.level) for one in parts]

    def _intervals(self, parts: Sequence[Contributions]) -> dict[str, Estimate]:
        if self.resamples:
            found = bootstrap_estimates(
                parts,
                rng=self.rng,
                unit=self.log.unit,
                resamples=self.resamples,
                level=self.level,
            )
        else:
            found = self._asymptotic(parts)
        return {one.name: one for one in found}

    def _lift(self, weight: np.ndarray) -> Estimate:
        """``snips`` minus the mean reward, both from the same rounds."""
        reward = self.log.reward
        lift = Contributions("lift", -reward, weight * reward, weight)
        return lift.estimate(unit=self.log.unit, level=self.level)


def _probabilities(
    name: str, policy: np.ndarray, log: LoggedFeedback
) -> tuple[np.ndarray | None, np.ndarray]:
    """The policy for all actions, if given, and at the logged ones."""
    n, num_actions = len(log), log.num_actions
    policy = np.asarray(policy, dtype=np.float64)
    full = policy.shape == (n, num_actions) or policy.shape == (num_actions,)
    if not full and policy.shape != (n,):
        raise ValueError(
            f"policy {name!r} must be [{n}, {num_actions}], [{num_actions}] or [{n}], got "
            f"{policy.shape}"
        )
    if not full:
        return None, policy
    wrong = np.abs(policy.sum(axis=-1) - 1.0) > 1e-6
    if bool(wrong.any()) or bool((policy < 0).any()):
        raise ValueError(
            f"policy {name!r} must have rows >= 0 that sum to 1: {int(np.sum(wrong))} do not"
        )
    chosen = policy[log.action] if policy.ndim == 1 else policy[np.arange(n), log.action]
    return policy, chosen


def _uniform(log: LoggedFeedback) -> bool:
    return bool(np.allclose(log.propensity, 1.0 / log.num_actions, rtol=1e-6))
