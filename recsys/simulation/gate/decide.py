"""The gate: may the candidate take the incumbent's place? PROMOTE, HOLD or SUSPICIOUS.

`decide` is a plain function of two `Evidence` and the bounds. Every rule that finds something adds
a `Reason`; the gravest decides, and SUSPICIOUS is graver than HOLD: numbers that cannot be believed
are no ground for a decision, not even against the candidate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from recsys.config.gate_rules import GateRules
from recsys.simulation.estimates.estimate import from_contributions
from recsys.simulation.gate.estimates import judge_estimates
from recsys.simulation.gate.evidence import Evidence, UserValues
from recsys.simulation.gate.reason import HOLD, PROMOTE, SUSPICIOUS, Reason, Verdict
from recsys.simulation.report.parts import EffectLine

__all__ = ["GateDecision", "decide"]

GRAVITY = (SUSPICIOUS, HOLD, PROMOTE)


class GateDecision(NamedTuple):
    """What to do, and why.

    Attributes:
        verdict: the gravest of the reasons' verdicts; PROMOTE where none speaks against it.
        reasons: the gravest first, then in the order of the rules.
        effects: difference of every metric, candidate minus incumbent, with its interval.
        slices: the same of the main metric for every slice of enough users.
        unsaid: what the evidence cannot say, one sentence each.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    effects: tuple[EffectLine, ...] = ()
    slices: tuple[EffectLine, ...] = ()
    unsaid: tuple[str, ...] = ()


def decide(candidate: Evidence, incumbent: Evidence | None, rules: GateRules) -> GateDecision:
    """Judge a candidate against what runs now.

    Differences are taken user by user over the same users, with intervals of Student's t. Systems
    that were judged on other data, another split or other users are not compared at all: that is
    SUSPICIOUS by itself. A number that the incumbent has and the candidate has not is HOLD, so that
    measuring less never helps.

    Args:
        candidate: the new system.
        incumbent: what runs now. None: nothing does, and the candidate is judged alone.
        rules: the bounds.

    Raises:
        ValueError: a system has no values of a metric that the rules name.
    """
    names = [_with_cutoff(metric, candidate.k) for metric in rules.metrics]
    for system in (candidate, *([] if incumbent is None else [incumbent])):
        missing = [name for name in names if name not in system.users.values]
        if missing:
            raise ValueError(
                f"gate.metrics must be measured for every system: {system.name} has no "
                f"{', '.join(missing)}, it has {', '.join(system.users.values)}"
            )
    reasons = list(_alone(candidate, names, rules))
    if incumbent is None:
        says = "Nothing runs that it could be compared with; it was judged alone."
        reasons.append(Reason("no_incumbent", PROMOTE, says))
        return _concluded(reasons)
    other = list(_not_comparable(candidate, incumbent))
    for found in incumbent.leakage:
        says = f"The incumbent knows the answer, so nothing can be compared with it: {found}"
        other.append(Reason("leakage", SUSPICIOUS, says))
    if other:
        return _concluded([*reasons, *other])
    effects = [_difference(name, candidate.users, incumbent.users, rules.level) for name in names]
    bases = [float(incumbent.users.values[name].mean()) for name in names]
    for place, (effect, base) in enumerate(zip(effects, bases, strict=True)):
        reasons += _relevance(effect, base, rules, main=place == 0)
    slices, small = _slices(candidate, incumbent, names[0], rules)
    reasons += (reason for _, found in slices for reason in found)
    reasons += _guardrails(candidate, incumbent, rules)
    reasons += judge_estimates(candidate.estimates, incumbent.estimates, rules)
    reasons += _same_lists(candidate, incumbent, rules)
    unsaid = [
        "How people react to what they have never been shown: the users judged here chose "
        "among what the system of that time put before them.",
        *(f"Anything about {name}: {count} users are too few." for name, count in small),
    ]
    if not candidate.estimates:
        unsaid.append("What the change is worth: no log with propensities was given.")
    if candidate.latency_p99_ms is None:
        unsaid.append("Whether it is fast enough: its latency was not measured.")
    return _concluded(reasons, effects, [line for line, _ in slices if line is not None], unsaid)


def _concluded(
    reasons: Sequence[Reason],
    effects: Sequence[EffectLine] = (),
    slices: Sequence[EffectLine] = (),
    unsaid: Sequence[str] = (),
) -> GateDecision:
    ordered = tuple(sorted(reasons, key=lambda reason: GRAVITY.index(reason.verdict)))
    verdict = ordered[0].verdict if ordered else PROMOTE
    return GateDecision(verdict, ordered, tuple(effects), tuple(slices), tuple(unsaid))


def _alone(candidate: Evidence, names: Sequence[str], rules: GateRules) -> Iterator[Reason]:
    for found in candidate.leakage:
        says = f"The answer leaks into the inputs: {found}"
        yield Reason("leakage", SUSPICIOUS, says)
    for name in names:
        mean = float(candidate.users.values[name].mean()) if candidate.users.num_users else 0.0
        if mean > rules.max_ndcg:
            says = (
                f"{name} of the candidate is {mean:.3f}. Nobody foresees people so well: look for "
                "the answer among the inputs."
            )
            yield Reason("near_perfect", SUSPICIOUS, says, mean, rules.max_ndcg)
    users = candidate.users.num_users
    if users < rules.min_users:
        says = f"Only {users} users were judged; at least {rules.min_users} are needed."
        yield Reason("too_few_users", HOLD, says, users, rules.min_users)


def _not_comparable(candidate: Evidence, incumbent: Evidence) -> Iterator[Reason]:
    if candidate.data != incumbent.data:
        says = (
            "The two were judged on different events, so their numbers cannot be compared: train "
            "and evaluate both on the same data."
        )
        yield Reason("other_data", SUSPICIOUS, says)
    if candidate.split != incumbent.split:
        says = (
            f"The two were judged on another window: the candidate holds out {candidate.split}, "
            f"the incumbent {incumbent.split}. Use one split for both."
        )
        yield Reason("other_split", SUSPICIOUS, says)
    ours, theirs = set(candidate.users.user_id.tolist()), set(incumbent.users.user_id.tolist())
    if ours != theirs:
        apart = len(ours ^ theirs)
        says = f"The two were judged on other users: {apart} are among those of one alone."
        yield Reason("other_users", SUSPICIOUS, says, apart, 0)


def _relevance(
    effect: EffectLine, base: float, rules: GateRules, *, main: bool
) -> Iterator[Reason]:
    name, value = effect.name, effect.value
    low = -math.inf if effect.low is None else effect.low
    bound = -rules.max_drop * base
    grave = False
    if value > rules.max_gain * base:
        gain = f"rose by {value / base:.0%}" if base > 0 else f"rose from zero to {value:.4f}"
        says = (
            f"{name} {gain} in one step. One honest change brings a few percent; look for a leak "
            "in the candidate or for a broken incumbent."
        )
        yield Reason("too_good", SUSPICIOUS, says, value, rules.max_gain * base)
        grave = True
    if low < bound:
        sure = effect.high is not None and effect.high < 0
        word = "is worse" if sure else "may be worse than allowed"
        says = (
            f"{name} {word}: {_ends(effect)}, and no loss of more than {-bound:.4f} "
            f"({rules.max_drop:.0%} of the incumbent's {base:.4f}) may be left open."
        )
        yield Reason("relevance_drop", HOLD, says, None if effect.low is None else low, bound)
        grave = True
    if main and rules.require_gain and low <= 0:
        says = f"{name} did not surely rise: {_ends(effect)}, and gate.require_gain asks for it."
        yield Reason("no_gain", HOLD, says, None if effect.low is None else low, 0.0)
        grave = True
    if not grave:
        says = f"{name} is no worse than allowed: {_ends(effect)}."
        yield Reason("relevance_held", PROMOTE, says, value, bound)


def _slices(
    candidate: Evidence, incumbent: Evidence, metric: str, rules: GateRules
) -> tuple[list[tuple[EffectLine | None, list[Reason]]], list[tuple[str, int]]]:
    """(effect, reasons) of every judged slice, and the names and sizes of those too small."""
    enough = {
        name: part
        for name, part in incumbent.slices.items()
        if part.num_users >= rules.slice_min_users
    }
    small = [
        (name, part.num_users) for name, part in incumbent.slices.items() if name not in enough
    ]
    level = 1 - (1 - rules.level) / max(1, len(enough))  # Bonferroni
    found: list[tuple[EffectLine | None, list[Reason]]] = []
    for name, theirs in enough.items():
        ours = candidate.slices.get(name)
        if ours is None or set(ours.user_id.tolist()) != set(theirs.user_id.tolist()):
            says = f"{name} were not measured for the candidate on the users of the incumbent."
            found.append((None, [Reason("slice_missing", HOLD, says, slice=name)]))
            continue
        effect = replace(_difference(metric, ours, theirs, level), name=name)
        base = float(theirs.values[metric].mean())
        bound = -rules.slice_margin * base
        lost = effect.value < bound and effect.high is not None and effect.high < 0
        says = (
            f"{name} lose: {metric} {_ends(effect)} over {theirs.num_users} users, more than "
            f"{rules.slice_margin:.0%} of the incumbent's {base:.4f}."
        )
        reasons = [Reason("slice_drop", HOLD, says, effect.value, bound, name)] if lost else []
        found.append((effect, reasons))
    return found, small


def _guardrails(candidate: Evidence, incumbent: Evidence, rules: GateRules) -> Iterator[Reason]:
    table = (  # rule, field of the evidence, words, factor and addend of the bound, worse is higher
        ("coverage_drop", "coverage", "The recommended share of the catalogue",
         1 - rules.max_coverage_drop, 0.0, False),
        ("head_share_rise", "head_share", "The share of places that the most popular items take",
         1.0, rules.max_head_share_rise, True),
        ("exposure_gap_rise", "exposure_gap", "The distance of recommended from wanted popularity",
         1.0, rules.max_exposure_gap_rise, True),
        ("calibration_rise", "calibration_error", "The calibration error of the scores",
         1.0, rules.max_calibration_rise, True),
        ("latency_rise", "latency_p99_ms", "The 99th percentile of the latency (ms)",
         1 + rules.max_latency_rise, 0.0, True),
    )  # fmt: skip
    for rule, name, words, factor, addend, worse_is_higher in table:
        ours, theirs = getattr(candidate, name), getattr(incumbent, name)
        if theirs is None:
            continue
        bound = theirs * factor + addend
        if ours is None:
            says = f"{words} is known for the incumbent ({theirs:.4g}), not for the candidate."
            yield Reason(rule, HOLD, says, None, bound)
        elif (ours > bound) if worse_is_higher else (ours < bound):
            direction = "rose" if worse_is_higher else "fell"
            says = f"{words} {direction} from {theirs:.4g} to {ours:.4g}; allowed is {bound:.4g}."
            yield Reason(rule, HOLD, says, ours, bound)


def _same_lists(candidate: Evidence, incumbent: Evidence, rules: GateRules) -> Iterator[Reason]:
    if candidate.lists is None or incumbent.lists is None:
        return
    theirs = dict(zip(incumbent.users.user_id.tolist(), incumbent.lists.tolist(), strict=True))
    pairs = zip(candidate.users.user_id.tolist(), candidate.lists.tolist(), strict=True)
    same = float(np.mean([theirs[user] == found for user, found in pairs]))
    if same > rules.max_same_lists:
        says = (
            f"{same:.1%} of the users get the very same list from both: the change did not "
            "arrive, or one bundle was measured twice."
        )
        yield Reason("same_lists", SUSPICIOUS, says, same, rules.max_same_lists)


def _difference(metric: str, ours: UserValues, theirs: UserValues, level: float) -> EffectLine:
    """Mean of candidate minus incumbent over the same users, whatever their order."""
    a = ours.values[metric][np.argsort(ours.user_id)]
    b = theirs.values[metric][np.argsort(theirs.user_id)]
    found = from_contributions(metric, a - b, level=level)
    low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
    return EffectLine(metric, found.value, low, high, found.num_rounds)


def _ends(effect: EffectLine) -> str:
    if effect.low is None or effect.high is None:
        return f"{effect.value:+.4f}"
    return f"{effect.value:+.4f} [{effect.low:+.4f}, {effect.high:+.4f}]"


def _with_cutoff(metric: str, k: int) -> str:
    return metric if "@" in metric else f"{metric}@{k}"
