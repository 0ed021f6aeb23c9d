"""The answer to "what would these policies have earned?", and its refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from recsys.simulation.estimates.diagnostics import Reason, Verdict, WeightDiagnostics
from recsys.simulation.estimates.estimate import Estimate
from recsys.simulation.estimates.feedback_problems import FeedbackProblem

__all__ = ["Evaluation", "EvaluationTable", "UnusableError"]


class UnusableError(ValueError):
    """An estimate was asked of a log that cannot carry it."""


@dataclass(frozen=True)
class Evaluation:
    """One policy on one log.

    Attributes:
        policy: its name.
        verdict: whether the log can carry the numbers.
        reasons: why it is not ``ok``.
        diagnostics: of the weights.
        chosen: what the log chose: ``clip``, ``switch``, ``shrinkage``, ``strength``, ``depth``.
        lift: ``snips`` minus the logger's mean reward, with the interval of this difference.
        held_out: ``snips`` on the half of the units that did not pick the winner; of the winner
            among several policies only.
    """

    policy: str
    verdict: Verdict
    reasons: tuple[Reason, ...]
    diagnostics: WeightDiagnostics
    chosen: Mapping[str, float]
    lift: Estimate
    held_out: Estimate | None
    _estimates: Mapping[str, Estimate]
    _sensitivity: Mapping[float, Estimate]

    def estimates(self, *, force: bool = False) -> Mapping[str, Estimate]:
        """Every estimator's answer by name.

        Raises:
            UnusableError: the verdict is ``unusable`` and ``force`` is not set.
        """
        self._refuse(force)
        return self._estimates

    def sensitivity(self, *, force: bool = False) -> Mapping[float, Estimate]:
        """Clipped IPS at each limit.

        Raises:
            UnusableError: as `estimates`.
        """
        self._refuse(force)
        return self._sensitivity

    def _refuse(self, force: bool) -> None:
        if self.verdict == "unusable" and not force:
            why = "; ".join(reason.text for reason in self.reasons)
            raise UnusableError(f"no estimate of {self.policy!r} from this log: {why}")


class EvaluationTable(NamedTuple):
    """Policies, and what holds for all of them.

    Attributes:
        logger: mean reward of the log.
        policies: by name, in the order given.
        problems: of the log itself.
        notes: what a reader must know, in sentences.
        a_a_passes: the logger judged on its own log has lift 0 in its interval; None where its
            policy was not given.
    """

    logger: Estimate
    policies: Mapping[str, Evaluation]
    problems: tuple[FeedbackProblem, ...]
    notes: tuple[str, ...]
    a_a_passes: bool | None

    def text(self, *, force: bool = False) -> str:
        """The table as lines; no number of an unusable policy unless ``force``."""
        lines = [f"logger {self.logger.value:.5f} [{self.logger.low:.5f}, {self.logger.high:.5f}]"]
        for name, one in self.policies.items():
            seen = one.diagnostics
            lines.append(
                f"{name}: {one.verdict}; "
                f"ESS/n {seen.effective_share:.4f}, max w {seen.largest:.1f}, "
                f"mean w {seen.mean.value:.3f} [{seen.mean.low:.3f}, {seen.mean.high:.3f}], "
                f"top 1% holds {seen.top_share:.0%} of the weight"
            )
            lines += [f"  {reason.text}" for reason in one.reasons]
            if one.verdict == "unusable" and not force:
                lines.append("  no numbers: the log cannot carry them")
                continue
            lines += [f"  {found}" for found in one.estimates(force=force).values()]
            limits = one.sensitivity(force=force).items()
            if limits:
                values = ", ".join(f"{limit:g}: {found.value:.5f}" for limit, found in limits)
                lines.append(f"  clipped_ips by limit {values}")
            if one.held_out is not None:
                lines.append(f"  held-out half: {one.held_out}")
        lines += [str(problem) for problem in self.problems]
        return "\n".join([*lines, *self.notes])
