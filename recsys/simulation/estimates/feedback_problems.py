"""What is wrong with a log, each problem with its rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import chdtrc

from recsys.simulation.estimates.diagnostics import weight_diagnostics
from recsys.simulation.estimates.estimators import importance_weights
from recsys.simulation.estimates.logged_feedback import LoggedFeedback

__all__ = ["FeedbackProblem", "problems"]

FIRST = 5
DRIFT_P, DRIFT_SIZE = 1e-3, 0.1


class FeedbackProblem(NamedTuple):
    """One thing that a log breaks.

    Attributes:
        kind: a short name: ``not_finite``, ``action_range``, ``propensity_range``,
            ``reward_range``, ``position_range``, ``duplicate_rounds``, ``no_exploration``,
            ``drift``, ``support``, ``effective_size``.
        message: in words, with numbers and a remedy.
        num_rows: rows concerned.
        rows: the first of them, at most 5 row numbers from 0.
        fatal: no estimate from this log means anything.
    """

    kind: str
    message: str
    num_rows: int
    rows: tuple[int, ...]
    fatal: bool

    def __str__(self) -> str:
        if not self.num_rows:
            return f"{self.kind}: {self.message}"
        listed = ", ".join(map(str, self.rows)) + (
            ", ..." if self.num_rows > len(self.rows) else ""
        )
        return f"{self.kind}: {self.message} ({self.num_rows} rows: {listed})"


def problems(
    log: LoggedFeedback,
    *,
    chosen: np.ndarray | None = None,
    reward_range: tuple[float, float] | None = None,
    num_blocks: int = 4,
) -> list[FeedbackProblem]:
    """Everything that is wrong with ``log``; nothing where all is well.

    - values: NaN, an action or a position out of range, a propensity outside (0, 1], a reward
      outside ``reward_range``,
    - duplicate rounds: equal in everything the log holds; not looked for without ``time``, where
      equal rounds are no evidence,
    - no exploration: every propensity is 1,
    - drift: over ``num_blocks`` equal blocks of time the mean log propensity moves by more than
      four standard errors and by 10%, or the shares of actions do (chi-square, p < .001, and a
      total variation above .1),
    - with a target policy: support (the mean weight is not 1) and effective sample size, see
      `recsys.simulation.weight_diagnostics`.

    Args:
        log: the rounds.
        chosen: [n] float64, probability of the logged actions under the target policy.
        reward_range: smallest and largest reward that is possible. None: any finite one.
        num_blocks: of time, >= 2.

    Returns:
        The problems, fatal ones first.

    Raises:
        ValueError: no rounds, ``chosen`` has another shape, or ``num_blocks`` is below 2.
    """
    n = len(log)
    if n == 0:
        raise ValueError("log must hold at least one round, got none; widen the window of time")
    if num_blocks < 2:
        raise ValueError(f"num_blocks must be >= 2, got {num_blocks}")
    if chosen is not None and chosen.shape != (n,):
        raise ValueError(f"chosen must be [n] with n = {n}, got shape {chosen.shape}")
    found = _values(log, reward_range)
    if chosen is not None:
        found += _rows("not_finite", "chosen must be finite", ~np.isfinite(chosen), fatal=True)
        wrong = (chosen < 0) | (chosen > 1 + 1e-9)
        found += _rows("target_range", "chosen must be 0..1", wrong, fatal=True)
    found += _duplicates(log)
    if not any(one.fatal for one in found):
        found += _logging_policy(log, num_blocks)
        if chosen is not None:
            found += _target(log, chosen)
    return sorted(found, key=lambda one: not one.fatal)


def _values(log: LoggedFeedback, reward_range: tuple[float, float] | None) -> list[FeedbackProblem]:
    found: list[FeedbackProblem] = []
    for name in ("reward", "propensity", "time", "context"):
        values = getattr(log, name)
        if values is not None:
            bad = ~np.isfinite(values)
            bad = bad.any(axis=1) if bad.ndim == 2 else bad
            remedy = "drop the rows or fill them"
            # Trees take a missing context for what it is.
            fatal = name != "context"
            found += _rows("not_finite", f"{name} must be finite; {remedy}", bad, fatal=fatal)
    p = log.propensity
    wrong = (p <= 0) | (p > 1)
    found += _rows(
        "propensity_range",
        "propensity must be in (0, 1]; log the probability of the draw, not a score",
        wrong,
        fatal=True,
    )
    wrong = (log.action < 0) | (log.action >= log.num_actions)
    found += _rows("action_range", f"action must be 0..{log.num_actions - 1}", wrong, fatal=True)
    if log.position is not None:
        found += _rows("position_range", "position counts from 1", log.position < 1, fatal=True)
    if reward_range is not None:
        low, high = reward_range
        wrong = (log.reward < low) | (log.reward > high)
        worst = log.reward[wrong]
        span = f"; got {worst.min():g}..{worst.max():g}" if worst.size else ""
        found += _rows("reward_range", f"reward must be {low:g}..{high:g}{span}", wrong, fatal=True)
    return found


def _duplicates(log: LoggedFeedback) -> list[FeedbackProblem]:
    if log.time is None:
        return []
    columns = [log.action, log.reward, log.propensity, log.position, log.unit, log.time]
    parts = [column[:, None] for column in columns if column is not None]
    if log.context is not None:
        parts.append(log.context)
    table = np.concatenate(parts, axis=1, dtype=np.float64)
    order = np.lexsort(table.T)
    same = (table[order][1:] == table[order][:-1]).all(axis=1)
    copy = np.zeros(len(log), dtype=bool)
    copy[order[1:][same]] = True
    return _rows(
        "duplicate_rounds", "rounds must come once; join the log by request id", copy, fatal=False
    )


def _logging_policy(log: LoggedFeedback, num_blocks: int) -> list[FeedbackProblem]:
    n = len(log)
    if bool((log.propensity == 1.0).all()) and log.num_actions > 1:
        text = (
            "every propensity is 1: the logger never explored, and only its own choices can be "
            "valued; serve with an exploration floor"
        )
        return [FeedbackProblem("no_exploration", text, n, tuple(range(min(n, FIRST))), True)]
    if n < 100 * num_blocks:
        return []
    order = np.arange(n) if log.time is None else np.argsort(log.time, kind="stable")
    block = np.empty(n, dtype=np.int64)
    block[order] = np.arange(n) * num_blocks // n
    size = np.bincount(block, minlength=num_blocks)
    found: list[FeedbackProblem] = []
    logs = np.log(log.propensity)
    mean = np.bincount(block, weights=logs, minlength=num_blocks) / size
    error = logs.std() * np.sqrt(1.0 / size + 1.0 / n)
    away = np.abs(mean - logs.mean())
    worst = int(away.argmax())
    if away[worst] > 4 * error[worst] and away[worst] > np.log1p(DRIFT_SIZE):
        text = (
            f"the geometric mean of propensity moves from {np.exp(logs.mean()):.4g} overall to "
            f"{np.exp(mean[worst]):.4g} in block {worst + 1} of {num_blocks}; was the policy "
            "changed or retrained? value each version apart"
        )
        found += _rows("drift", text, block == worst, fatal=False)
    counts = np.bincount(
        block * log.num_actions + log.action, minlength=num_blocks * log.num_actions
    )
    counts = counts.reshape(num_blocks, -1)
    overall = counts.sum(axis=0)
    common = overall >= 5 * num_blocks  # chi-square wants about five rounds a cell
    if common.sum() >= 2:
        seen = counts[:, common]
        expected = seen.sum(axis=1, keepdims=True) * (seen.sum(axis=0) / seen.sum())
        statistic = float((np.square(seen - expected) / expected).sum())
        p = float(chdtrc((num_blocks - 1) * (int(common.sum()) - 1), statistic))
        apart = np.abs(seen - expected).sum(axis=1) / (2 * seen.sum(axis=1))
        # Shares of a small block differ by chance alone, more so with many actions.
        chance = np.sqrt(expected / (2 * np.pi)).sum(axis=1) * np.sqrt(2) / seen.sum(axis=1)
        worst = int((apart - chance).argmax())
        if p < DRIFT_P and apart[worst] > DRIFT_SIZE + chance[worst]:
            text = (
                f"shares of actions in block {worst + 1} of {num_blocks} are {apart[worst]:.2f} "
                f"away from the whole log (total variation, p {p:.1g})"
            )
            found += _rows("drift", text, block == worst, fatal=False)
    return found


def _target(log: LoggedFeedback, chosen: np.ndarray) -> list[FeedbackProblem]:
    weight = importance_weights(chosen, log.propensity)
    found = weight_diagnostics(weight, unit=log.unit)
    kept: list[FeedbackProblem] = []
    for reason in found.reasons:
        largest = np.argsort(-weight, kind="stable")[:FIRST]
        rows = tuple(int(row) for row in largest) if reason.kind != "support" else ()
        fatal = reason.verdict == "unusable"
        kept.append(FeedbackProblem(reason.kind, reason.text, len(rows), rows, fatal))
    return kept


def _rows(kind: str, message: str, wrong: np.ndarray, *, fatal: bool) -> list[FeedbackProblem]:
    count = int(wrong.sum())
    if count == 0:
        return []
    rows = tuple(int(row) for row in np.flatnonzero(wrong)[:FIRST])
    return [FeedbackProblem(kind, message, count, rows, fatal)]
