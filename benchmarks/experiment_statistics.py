"""Do the statistics of an experiment keep what they promise?

Everything is simulated with a known answer: how often a test sounds an alarm where there is
nothing, how often it finds what it was planned for, what CUPED leaves of the variance, and how
many queries interleaving needs beside an A/B test.

    python benchmarks/experiment_statistics.py [--quick] [--seed 0]

A/A experiments: rate .05, 20 looks, 20,000 units an arm. "at the end": one fixed test at the last
look; "peeking": the same test at every look, stopped at the first alarm; "sequential": the mixture
test with tau from the planned end. Ratio: clicks per view of users with several sessions, once with
the delta method by user and once as if each view stood alone. Power: experiments of the planned
size, with the planned lift. Interleaving: 30 candidates, 10 places, clicks of the position-based
model (examination 1 / rank), two rankers of unequal noise, one-sided 2.5%; both tests get the same
number of queries in all. How much interleaving saves is no constant: it is shown in three worlds.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from experiment_interleaving import Z, interleaving
from reporting import Report

from recsys.simulation.experiment import (
    Design,
    RatioSums,
    Sums,
    choose_tau,
    confidence_sequence,
    cuped,
    dunnett,
    gap,
    log_likelihood_ratio,
    many_to_one_loadings,
    non_inferior,
    plan_mean,
    plan_proportion,
    power_at,
    sample_ratio_p,
    shrink,
    welch,
)

RATE, LOOKS, UNITS = 0.05, 20, 20_000


def arm(trials: int, rate: float, units: int, rng: np.random.Generator, looks: int = LOOKS) -> Sums:
    """Sums of 0 or 1 at each look, [trials, looks]."""
    step = units // looks
    total = rng.binomial(step, rate, size=(trials, looks)).cumsum(axis=1).astype(np.float64)
    count = np.broadcast_to(step * np.arange(1.0, looks + 1), total.shape)
    return Sums(count, total, total)


def rates(
    trials: int, rng: np.random.Generator, *, lift: float = 0.0, shares: tuple[int, int] = (1, 1)
) -> dict[str, float]:
    """Share of experiments in which each way of reading finds a difference."""
    sizes = [2 * UNITS * share // sum(shares) for share in shares]
    true = RATE * lift
    found = gap(arm(trials, RATE, sizes[0], rng), arm(trials, RATE + true, sizes[1], rng))
    z = np.abs(found.difference / found.standard_error)
    planned = (RATE * (1 - RATE) * sum(1 / size for size in sizes)) ** 0.5
    tau = choose_tau(planned)
    ratio = log_likelihood_ratio(found.difference, found.standard_error, tau=tau)
    low, high = confidence_sequence(found.difference, found.standard_error, tau=tau)
    return {
        "at the end": float((z[:, -1] > Z).mean()),
        "peeking": float((z > Z).any(axis=1).mean()),
        "Bonferroni over looks": float((z > 3.0233).any(axis=1).mean()),
        "sequential": float((ratio >= np.log(20)).any(axis=1).mean()),
        "intervals hold at all looks": float(((low <= true) & (true <= high)).all(axis=1).mean()),
    }


def ratio_rates(trials: int, rng: np.random.Generator, users: int = 1000) -> dict[str, float]:
    """False alarms for clicks per view of users with different rates; with looks."""
    step = users // LOOKS
    sums = []
    for _ in range(2):
        rows: list[np.ndarray] = []
        for _ in range(LOOKS):
            views = 1.0 + rng.poisson(rng.gamma(1.0, 8.0, size=(trials, step)))
            own = rng.beta(1.0, 9.0, size=(trials, step))
            clicks = rng.binomial(views.astype(np.int64), own).astype(np.float64)
            parts = (clicks, views, clicks**2, views**2, clicks * views)
            rows.append(np.stack([part.sum(axis=1) for part in parts]))
        table = np.cumsum(np.stack(rows, axis=-1), axis=-1)  # [5, trials, looks]
        count = np.broadcast_to(step * np.arange(1.0, LOOKS + 1), table.shape[1:])
        sums.append(RatioSums(count, *table))
    found = gap(*sums)
    z = np.abs(found.difference / found.standard_error)
    by_view = gap(*(Sums(one.denominator, one.numerator, one.numerator) for one in sums))
    # The planned error as a planner would have it, from other users: the median at the end.
    tau = choose_tau(float(np.median(found.standard_error[:, -1])))
    late = slice(1, None)  # from 100 users an arm on
    ratio = log_likelihood_ratio(found.difference, found.standard_error, tau=tau)[:, late]
    return {
        "by user": float((z[:, -1] > Z).mean()),
        "by view": float((np.abs(by_view.difference / by_view.standard_error)[:, -1] > Z).mean()),
        "sequential": float((ratio >= np.log(20)).any(axis=1).mean()),
    }


def planned_power(trials: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Experiments of planned size and lift: how many find it."""
    rows = []
    cases = [
        (0.05, 0.05, Design(), 1),
        (0.05, 0.10, Design(), 2),
        (0.05, 0.20, Design(power=0.9), 2),
        (0.0035, 0.43, Design(), 2),
        (0.02, 0.02, Design(), 1),
        (0.30, -0.05, Design(shares=(0.8, 0.2)), 2),
        (0.05, 0.10, Design(shares=(1, 1, 1, 1)), 2),
        (0.05, 0.10, Design(shares=(2, 1, 1), correction="bonferroni"), 2),
        (0.05, 0.10, Design(sides=1), 2),
    ]
    for base, lift, design, variances in cases:
        plan = plan_proportion(base, lift, design=design, variances=variances)
        control, other = plan.units[0], min(plan.units[1:])
        a = arm(trials, base, control, rng, looks=1)
        b = arm(trials, base * (1 + lift), other, rng, looks=1)
        found = gap(a, b)
        z = found.difference / found.standard_error
        passed = np.abs(z) > plan.critical if design.sides == 2 else z > plan.critical
        rows.append(
            {
                "baseline": base,
                "lift": lift,
                "units": list(plan.units),
                "planned": design.power,
                "measured": float(passed.mean()),
            }
        )
    # A mean, with CUPED: correlation .6 leaves 64% of the units.
    design = Design(covariate_correlation=0.6)
    plan = plan_mean(10.0, 4.0, 0.05, design=design)
    hits = 0
    num = plan.units[0]
    few = max(trials // 2, 200)
    labels = np.repeat([0, 1], num)
    for _ in range(few):
        x = rng.standard_normal(2 * num)
        noise = 0.6 * x + 0.8 * rng.standard_normal(2 * num)
        y = 10 + 4 * noise + 0.5 * labels
        values = cuped(y, x, arm=labels, measured_until=0.0, exposed_at=1.0).values
        hits += welch(values[:num], values[num:]).p < 0.05
    rows.append(
        {
            "baseline": 10.0,
            "lift": 0.05,
            "units": list(plan.units),
            "planned": 0.8,
            "measured": hits / few,
            "cuped": True,
        }
    )
    return rows


def cuped_ratios(rng: np.random.Generator, units: int = 20_000) -> list[dict[str, float]]:
    """Variance that CUPED leaves, and what it makes of an effect."""
    rows = []
    labels = np.arange(units) % 2
    for rho in (0.3, 0.5, 0.7, 0.9):
        x = rng.standard_normal(units)
        y = rho * x + (1 - rho**2) ** 0.5 * rng.standard_normal(units) + 0.1 * labels
        found = cuped(y, x, arm=labels, measured_until=0.0, exposed_at=1.0)
        effect = welch(found.values[labels == 0], found.values[labels == 1])
        rows.append(
            {
                "rho": rho,
                "theory": 1 - rho**2,
                "measured": found.variance_ratio,
                "effect of .1, in standard errors from it": (effect.difference - 0.1)
                / effect.standard_error,
            }
        )
    return rows


def sample_ratios(trials: int, rng: np.random.Generator) -> dict[str, float]:
    """Alarms of the sample-ratio check."""
    even = rng.binomial(100_000, 0.5, size=trials)
    three = rng.multinomial(60_000, [0.5, 0.3, 0.2], size=trials)
    lost = rng.binomial(100_000, 0.49, size=2000)
    return {
        "tables": trials,
        "two arms": float(
            (sample_ratio_p(np.stack([even, 100_000 - even], -1), np.array([1, 1])) < 1e-3).mean()
        ),
        "three arms": float((sample_ratio_p(three, np.array([5, 3, 2])) < 1e-3).mean()),
        "found when 2% of one arm's 50,000 are lost": float(
            (sample_ratio_p(np.stack([lost, 100_000 - lost], -1), np.array([1, 1])) < 1e-3).mean()
        ),
    }


def many_arms(trials: int, rng: np.random.Generator) -> dict[str, float]:
    """Family-wise false alarms of three arms against one control of other sizes."""
    variances = 1 / np.array([2.0, 1.0, 1.0, 0.5])
    means = rng.standard_normal((trials, 4)) * np.sqrt(variances)
    z = (means[:, 1:] - means[:, :1]) / np.sqrt(variances[1:] + variances[0])
    loadings = many_to_one_loadings(variances[0], variances[1:])
    top = np.abs(z).max(axis=1)
    which = dunnett(np.array([2.0, 2.3, 2.6]), loadings)
    alarms = {f"max |z| > {limit}": float((top > limit).mean()) for limit in (2.0, 2.3, 2.6)}
    error = max(abs(a - b) for a, b in zip(alarms.values(), which, strict=True))
    return {**alarms, "largest gap to the p-value": float(error)}


def guardrail_level(trials: int, rng: np.random.Generator) -> dict[str, float]:
    """How often an arm that loses exactly the margin is called safe, and one that loses nothing."""
    found: dict[str, float] = {}
    for name, loss in (("loses the margin", 0.02), ("loses nothing", 0.0)):
        safe = 0
        for _ in range(trials):
            a = rng.standard_normal(2000) * 0.3 + 1
            b = rng.standard_normal(2000) * 0.3 + 1 - loss
            safe += non_inferior(welch(a, b), margin=0.02).verdict == "safe"
        found[name] = safe / trials
    return found


def slice_rates(trials: int, rng: np.random.Generator) -> dict[str, float]:
    """Twelve slices: error and coverage of shrunken and of plain effects."""
    errors = np.linspace(0.5, 2.0, 12)
    shrunk, plain, held, best = [], [], [], []
    for _ in range(trials):
        true = 1.0 + 0.7 * rng.standard_normal(12)
        seen = true + errors * rng.standard_normal(12)
        found = shrink(seen, errors)
        shrunk.append((found.value - true) ** 2)
        plain.append((seen - true) ** 2)
        held.append((found.low <= true) & (true <= found.high))
        top = found.value.argmax()
        best.append((found.value[top] - true[top], seen.max() - true[seen.argmax()]))
    over = np.mean(best, axis=0)
    return {
        "RMSE shrunken": float(np.sqrt(np.mean(shrunk))),
        "RMSE plain": float(np.sqrt(np.mean(plain))),
        "coverage": float(np.mean(held)),
        "best slice said too high by, shrunken": float(over[0]),
        "best slice said too high by, plain": float(over[1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the trials")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report = Report("experiment_statistics", arguments, ("scipy",))
    rng = np.random.default_rng(arguments.seed)
    less = 10 if arguments.quick else 1
    trials = 2000 // less
    report.data(f"simulated, with a known answer: {trials:,} A/A experiments; one thread")

    none = rates(trials, rng)
    uneven = rates(trials, rng, shares=(1, 4))
    ratio = ratio_rates(trials, rng)
    print(f"\nno effect, {LOOKS} looks, {UNITS:,} units an arm: share of experiments with an alarm")
    for name, one in (("equal arms", none), ("arms 1 : 4", uneven), ("clicks per view", ratio)):
        print(f"  {name}: " + ", ".join(f"{key} {value:.3f}" for key, value in one.items()))
    lifts = {}
    print("\nlifts with 20,000 units an arm (planned power of the fixed test in brackets)")
    for lift in (0.05, 0.10, 0.20):
        lifts[lift] = rates(trials, rng, lift=lift)
        error = (RATE * (1 - RATE) * 2 / UNITS) ** 0.5
        lifts[lift]["planned"] = float(power_at(RATE * lift, error))
        one = lifts[lift]
        print(
            f"  {lift:.0%}: at the end {one['at the end']:.3f} [{one['planned']:.3f}], sequential "
            f"{one['sequential']:.3f}, intervals hold {one['intervals hold at all looks']:.3f}"
        )
    power = planned_power(2 * trials, rng)
    print("\npower at the planned size and lift")
    for row in power:
        print(
            f"  baseline {row['baseline']:g}, lift {row['lift']:+.0%}, units {row['units']}: "
            f"{row['measured']:.3f} [{row['planned']:.2f}]"
        )
    left = cuped_ratios(rng)
    print("\nCUPED, variance left")
    for one in left:
        print(f"  rho {one['rho']}: {one['measured']:.3f} [{one['theory']:.2f}]")
    tables = sample_ratios(400_000 // less, rng)
    arms = many_arms(400_000 // less, rng)
    guard = guardrail_level(trials, rng)
    parts = slice_rates(trials, rng)
    for name, one in (
        ("sample ratio, alarm at .001", tables),
        ("three arms and a control", arms),
        ("guardrail with a margin of 2%, called safe", guard),
        ("twelve slices", parts),
    ):
        print(f"\n{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in one.items()))
    merged = interleaving(1000 // less, rng)
    print("\ninterleaving, power (one-sided 2.5%)")
    for row in merged["power"]:
        print(f"  {row['queries']} queries: {row['team draft']:.3f} beside A/B {row['A/B']:.3f}")
    for name, one in merged["times fewer queries than A/B"].items():
        print(
            f"  {name}: team draft needs {one['team draft']:.1f} times fewer queries than A/B, "
            f"balanced {one['balanced']:.1f}"
        )
    print(f"  A/A preference {merged['A/A preference']:+.4f} +- {merged['A/A standard error']:.4f}")

    wide = 3 * (0.05 * 0.95 / trials) ** 0.5 if arguments.quick else 0.0
    rare = 4 * (0.001 * 0.999 / tables["tables"]) ** 0.5
    size = plan_proportion(0.05, 0.05).units[0]
    worst_power = max(abs(row["measured"] - row["planned"]) for row in power)
    worst_cuped = max(abs(one["measured"] - one["theory"]) for one in left)
    sequential = max(none["sequential"], uneven["sequential"], ratio["sequential"])
    held = min(one["intervals hold at all looks"] for one in (none, uneven, *lifts.values()))
    alarm = max(abs(tables[key] - 0.001) for key in ("two arms", "three arms"))
    ends = {"at_least": 0.035 - wide, "at_most": 0.065 + wide}
    report.bar("A/A at the end", none["at the end"], **ends)
    report.bar("A/A peeking", none["peeking"], above=0.15)
    report.bar("A/A sequential, worst", sequential, at_most=0.05 + wide)
    report.bar("intervals hold at all looks, worst", held, at_least=0.95 - wide)
    report.bar("ratio by user at the end", ratio["by user"], **ends)
    report.bar("planned size for .05 and 5%", size, equal_to=119_303)
    report.bar("power at planned lifts, worst gap", worst_power, at_most=0.03 + wide)
    report.bar("CUPED against 1 - rho^2, worst gap", worst_cuped, at_most=0.03)
    report.bar("sample-ratio alarm against .001, worst gap", alarm, at_most=rare)
    report.bar("Dunnett, worst gap", arms["largest gap to the p-value"], at_most=0.002 + wide / 5)
    # 2.5% and 3 standard errors
    report.bar("guardrail safe at the margin", guard["loses the margin"], at_most=0.035 + wide)
    report.bar("slices: interval coverage", parts["coverage"], at_least=0.94)
    lead = min(row["team draft"] - row["A/B"] for row in merged["power"])
    report.bar("team draft less A/B at 100, 300 and 1,000, least", lead, above=0)
    even = abs(merged["A/A preference"]) / merged["A/A standard error"]
    report.bar("team draft A/A, in standard errors", even, at_most=3)
    report.close(
        no_effect={"equal": none, "one_to_four": uneven, "ratio": ratio},
        lifts={str(lift): one for lift, one in lifts.items()},
        power=power,
        cuped=left,
        sample_ratio=tables,
        many_arms=arms,
        guardrail=guard,
        slices=parts,
        interleaving=merged,
    )


if __name__ == "__main__":
    main()
