"""An experiment in a simulated world: arms side by side, and one arm's log on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from recsys.lookup import lookup
from recsys.simulation.estimates.estimate import Estimate, ratio_estimate
from recsys.simulation.experiment.srm import SampleRatio, sample_ratio
from recsys.simulation.trial.guardrails import (
    GUARDRAILS,
    Guardrail,
    Kept,
    guarded_values,
    judge_guardrails,
)
from recsys.simulation.trial.log_estimates import LogEstimate, estimate_from_log
from recsys.simulation.trial.place_rewards import fit_place_rewards
from recsys.simulation.world.arms import SimulatedArm, tables_of
from recsys.simulation.world.fit import Honesty
from recsys.simulation.world.sessions import Behaviour, People, SessionLog, simulate_sessions
from recsys.simulation.world.slate_traits import SlateTraits
from recsys.simulation.world.world import World

__all__ = ["ArmResult", "Lift", "Trial", "TrialVerdict", "run_trial"]

TrialVerdict = Literal["PROMOTE", "HOLD", "SUSPICIOUS"]


class ArmResult(NamedTuple):
    """What happened in an arm; errors are clustered by person.

    Attributes:
        name: of the arm.
        num_people: who came.
        num_sessions: of theirs.
        clicks: per session.
        click_rate: per place shown.
        conversions: per session.
        returns: sessions per person who left for good.
        coverage: share of the catalogue on the first k places of any user's list.
        guarded: value of every guardrail, by its name.
    """

    name: str
    num_people: int
    num_sessions: int
    clicks: Estimate
    click_rate: Estimate
    conversions: Estimate
    returns: Estimate
    coverage: float
    guarded: Mapping[str, Estimate]


class Lift(NamedTuple):
    """Relative difference of an arm's value to another's, by the delta method.

    Attributes:
        arm: above 0 where this one is better.
        against: the other one.
        metric: "clicks" or "conversions", per session.
        value: .05 is five percent up.
        low: lower end of the interval.
        high: upper end.
    """

    arm: str
    against: str
    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Trial:
    """Everything a report says.

    Attributes:
        results: one an arm, the control first.
        lifts: all pairs, both metrics; each earlier arm is compared against.
        level: of a lift's interval: 95% over all comparisons with the control (Bonferroni).
        guardrails: of every arm but the control, which they are compared with.
        estimates: of all arms from the log of ``logging``.
        refused: of all arms from the log of the control, where that draws nothing.
        logging: name of the arm whose log is read.
        log: its sessions.
        honesty: of the world. None: not checked.
        split: people of the arms against equal shares.
        verdict: PROMOTE: an arm beats the control and all its guardrails are safe; HOLD: there is
            no such arm; SUSPICIOUS: a check failed, and no winner is named.
        winner: with PROMOTE.
        reasons: sentences.
    """

    results: tuple[ArmResult, ...]
    lifts: tuple[Lift, ...]
    level: float
    guardrails: tuple[Kept, ...]
    estimates: tuple[LogEstimate, ...]
    refused: tuple[LogEstimate, ...]
    logging: str
    log: SessionLog
    honesty: Honesty | None
    split: SampleRatio
    verdict: TrialVerdict
    winner: str | None
    reasons: tuple[str, ...]

    def result(self, name: str) -> ArmResult:
        """Of an arm."""
        return lookup({one.name: one for one in self.results}, name, "arm")

    def lift(self, arm: str, metric: str = "clicks") -> Lift:
        """Of an arm against the control."""
        control = self.results[0].name
        found = {
            one.arm: one for one in self.lifts if one.against == control and one.metric == metric
        }
        return lookup(found, arm, "arm")


def run_trial(
    world: World,
    arms: Sequence[SimulatedArm],
    *,
    sessions: int,
    rng: np.random.Generator,
    behaviour: Behaviour | None = None,
    k: int = 10,
    logging: str | None = None,
    log_sessions: int = 100_000,
    honesty: Honesty | None = None,
    popularity: float = 0.0,
    guardrails: tuple[Guardrail, ...] = GUARDRAILS,
) -> Trial:
    """Run the arms against each other, then read one arm's log.

    Args:
        world: the truth.
        arms: at least two, the control first.
        sessions: of all arms together.
        rng: all draws.
        behaviour: of people.
        k: places.
        logging: arm whose log is read. None: the first that shuffles, else the first that draws,
            else the control, whose log then says little of the others.
        log_sessions: size of that log, on top of ``sessions``.
        honesty: what the world was found to be worth; a decile that is off is a failed check.
        popularity: see `tables_of`.
        guardrails: what a winner must not make worse.

    Raises:
        ConfigError: ``logging`` is no arm.
        ValueError: fewer than two arms, or as in `tables_of` and `simulate_sessions`.
    """
    if len(arms) < 2:
        raise ValueError(f"arms must be at least two, got {len(arms)}; compare with something")
    numbers = {arm.name: number for number, arm in enumerate(arms)}
    number = _logging_arm(arms) if logging is None else lookup(numbers, logging, "arm")
    behaviour = behaviour or Behaviour()
    tables = tables_of(world, list(arms), popularity=popularity)
    people = simulate_sessions(
        tables, sessions=sessions, rng=rng, behaviour=behaviour, k=k, traits=SlateTraits.of(world)
    ).people
    results = tuple(_result(arm, people, n, k, world.num_items) for n, arm in enumerate(arms))
    level = 1.0 - 0.05 / (len(arms) - 1)
    lifts = tuple(
        _lift(getattr(b, metric), getattr(a, metric), (b.name, a.name, metric), level)
        for a, b in combinations(results, 2)
        for metric in ("clicks", "conversions")
    )

    kept = tuple(
        each
        for one in results[1:]
        for each in judge_guardrails(
            one.name, one.guarded, results[0].guarded, rules=guardrails, level=level
        )
    )

    def read(logger: int, size: int) -> tuple[SessionLog, tuple[LogEstimate, ...]]:
        log = simulate_sessions(
            tables,
            sessions=size,
            rng=rng,
            behaviour=behaviour,
            k=k,
            only=logger,
            logging_arm=logger,
            log_sessions=size,
            what_if=range(len(arms)),
        ).log
        if log is None:  # a simulation of one session at least logs one
            raise RuntimeError("nothing was logged")
        truth = log.truth.mean(axis=0)
        by_rank = [n for n, arm in enumerate(arms) if arm.settings.ranker != "softmax"]
        if arms[logger].settings.ranker == "softmax":
            return log, ()
        several = np.unique(log.person).size > 1
        rewards = fit_place_rewards(log, arms[logger], rng=rng) if several else None
        return log, tuple(
            estimate_from_log(log, arms[logger], arms[n], rewards=rewards, truth=float(truth[n]))
            for n in by_rank
        )

    log, estimates = read(number, log_sessions)
    refused: tuple[LogEstimate, ...] = ()
    if number != 0 and not arms[0].draws:
        refused = tuple(e for e in read(0, min(log_sessions, 20_000))[1] if e.arm != arms[0].name)
    split = sample_ratio(
        {one.name: one.num_people for one in results}, {arm.name: 1.0 for arm in arms}
    )
    problems = _problems(estimates, arms[number].name, honesty, split)
    verdict, winner, reasons = _verdict(results, lifts, kept, problems)
    return Trial(
        results,
        lifts,
        level,
        kept,
        estimates,
        refused,
        arms[number].name,
        log,
        honesty,
        split,
        verdict,
        winner,
        reasons,
    )


def _logging_arm(arms: Sequence[SimulatedArm]) -> int:
    for wanted in ("shuffle", "epsilon"):
        for number, arm in enumerate(arms):
            if arm.settings.ranker == wanted:
                return number
    return 0


def _result(arm: SimulatedArm, people: People, number: int, k: int, num_items: int) -> ArmResult:
    mine = people.arm == number
    if int(mine.sum()) < 2 or bool(people.stayed[mine].all()):
        raise ValueError(
            f"sessions must be enough for people to leave every arm, got {int(mine.sum())} people "
            f"in {arm.name!r}; simulate more"
        )
    own = People(*(column[mine] for column in people))
    sessions, clicks = own.sessions.astype(np.float64), own.clicks.astype(np.float64)
    coverage = float(np.unique(arm.item_index[:, :k]).size / num_items)
    guarded = guarded_values(own, k=k, coverage=coverage)
    # Who still comes has not said how often: those who left, and all sessions over who left.
    left = (~own.stayed).astype(np.float64)
    return ArmResult(
        arm.name,
        int(mine.sum()),
        int(sessions.sum()),
        ratio_estimate("clicks per session", clicks, sessions),
        ratio_estimate("clicks per place", clicks, sessions * k),
        guarded["conversions"]._replace(name="conversions per session"),
        ratio_estimate("sessions per person", sessions, left),
        coverage,
        guarded,
    )


def _lift(new: Estimate, old: Estimate, names: tuple[str, str, str], level: float) -> Lift:
    if old.value == 0.0:
        return Lift(*names, 0.0, float("-inf"), float("inf"))
    ratio = new.value / old.value
    relative = [one.standard_error / one.value if one.value else 0.0 for one in (new, old)]
    half = (
        float(ndtri((1.0 + level) / 2.0)) * abs(ratio) * float(np.hypot(relative[0], relative[1]))
    )
    return Lift(*names, ratio - 1.0, ratio - 1.0 - half, ratio - 1.0 + half)


def _problems(
    estimates: Sequence[LogEstimate], logging: str, honesty: Honesty | None, split: SampleRatio
) -> list[str]:
    found = []
    if split.alarm:
        found.append(f"people are not spread as planned over the arms (p {split.p:.2g})")
    if honesty is not None:
        off = [
            f"{kind} decile {number}"
            for kind, deciles in (("click", honesty.clicks), ("conversion", honesty.conversions))
            for number, one in enumerate(deciles, start=1)
            if not one.explained()
        ]
        # Of twenty intervals of two standard errors one is expected to miss.
        if len(off) > 3:
            found.append(f"simulated rates are not the logged ones: {', '.join(off)}")
    for one in estimates:
        away = one.errors_from_truth(one.ips)
        if one.arm == logging and away is not None and abs(away) > 4.0:
            found.append(f"the log of {logging} misses its own rate by {away:.1f} standard errors")
    return found


def _verdict(
    results: Sequence[ArmResult],
    lifts: Sequence[Lift],
    guardrails: Sequence[Kept],
    problems: list[str],
) -> tuple[TrialVerdict, str | None, tuple[str, ...]]:
    control = results[0].name
    mine = [one for one in lifts if one.against == control and one.metric == "clicks"]
    mine.sort(key=lambda one: one.value, reverse=True)

    def said(one: Lift) -> str:
        return (
            f"{one.arm} against {control}: clicks per session {one.value:+.1%} "
            f"[{one.low:+.1%}, {one.high:+.1%}]"
        )

    if problems:
        return "SUSPICIOUS", None, (*problems, said(mine[0]))
    better = [one for one in mine if one.low > 0]
    held: list[str] = []
    for one in better:
        broken = [each.says for each in guardrails if each.arm == one.arm and not each.safe]
        if not broken:
            return "PROMOTE", one.arm, (said(one), *held)
        held.append(f"not {one.arm}, for a guardrail is not safe: {'; '.join(broken)}")
    if held:
        return "HOLD", None, (*held, said(mine[0]))
    return "HOLD", None, (f"no arm surely beats {control}", said(mine[0]))
