"""One call from a frame of units to what an experiment says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl

from recsys.simulation.experiment.cuped import cuped
from recsys.simulation.experiment.effect import Effect, normal_quantile, welch
from recsys.simulation.experiment.guardrails import NonInferiority, non_inferior
from recsys.simulation.experiment.metric import Metric, unit_values
from recsys.simulation.experiment.multiple import (
    dunnett,
    dunnett_critical,
    holm,
    many_to_one_loadings,
)
from recsys.simulation.experiment.report import ExperimentReport, MetricResult, SliceResult
from recsys.simulation.experiment.sequential import (
    MIN_UNITS,
    choose_tau,
    log_likelihood_ratio,
    margin,
)
from recsys.simulation.experiment.slice_effects import slice_effects
from recsys.simulation.experiment.srm import sample_ratio, sample_ratio_by_slice
from recsys.simulation.experiment.verdict import decide

__all__ = ["analyse"]

Reading = Literal["planned end", "running", "no plan"]

# A covariate that differs between arms beyond this is taken as measured after exposure.
BALANCE_LEVEL = 0.001


def analyse(
    units: pl.DataFrame,
    *,
    name: str,
    shares: Mapping[str, float],
    metrics: Sequence[Metric],
    planned_units: int | None = None,
    slices: Sequence[str] = (),
    alpha: float = 0.05,
    min_slice: int = MIN_UNITS,
) -> ExperimentReport:
    """Every number of an experiment, with intervals, and a plain decision.

    The number of units that was planned says how the experiment may be read. Before it is reached,
    intervals are those of the confidence sequence, which hold however often one looks; from then
    on those of the fixed test, to be read once. Several arms share alpha: by Dunnett at the end,
    by Bonferroni before. Without a plan it is read as if this number of units had been planned,
    and the report says so.

    Args:
        units: one row for each unit, with ``arm`` and the metrics' columns; for covariates also
            ``measured_until`` and ``exposed_at``, datetimes or seconds (`read_units`).
        name: of the experiment.
        shares: planned share of each arm, the control first.
        metrics: at least one of them primary.
        planned_units: of all arms together, as the plan said before the start. None: no plan.
        slices: columns known before exposure; the primary metrics are shown in each.
        alpha: chance of a false alarm, over all arms.
        min_slice: fewest units of an arm in a slice that is shown.

    Raises:
        LeakageError: a covariate counts something at or after a unit's exposure.
        ValueError: a column is missing, holds nulls, or an arm was not planned or has fewer than
            two units.
    """
    _check(units, shares, metrics, slices, planned_units, alpha)
    control, *others = shares
    arm = units["arm"].cast(pl.String).to_numpy()
    rows = {one: np.flatnonzero(arm == one) for one in shares}
    counts = {one: int(place.size) for one, place in rows.items()}
    ratio = sample_ratio(counts, shares)
    few = {one: count for one, count in counts.items() if count < 2}
    if few:
        raise ValueError(f"every arm must have at least two units, got {few}")
    reading: Reading = "no plan"
    if planned_units is not None:
        reading = "planned end" if units.height >= planned_units else "running"
    warnings: list[str] = []
    results: list[MetricResult] = []
    for metric in metrics:
        plain = unit_values(units, metric, rows)
        values, left = _adjusted(units, metric, plain, arm, rows, warnings)
        effects = [
            welch(values[rows[control]], values[rows[one]], level=1 - alpha) for one in others
        ]
        raw = [welch(plain[rows[control]], plain[rows[one]]) for one in others]
        results += _results(
            metric, others, effects, raw, left, reading, shares, planned_units, counts, alpha
        )
    results = _secondary_by_holm(results, metrics)
    parts: list[SliceResult] = []
    skewed: dict[str, list[str]] = {}
    for column in slices:
        named = units[column].cast(pl.String).fill_null("(unknown)").to_numpy()
        found = sample_ratio_by_slice(arm, named, shares)
        skewed[column] = [part for part, one in found.items() if one.alarm]
        for metric in metrics:
            if metric.role == "primary":
                parts += slice_effects(units, metric, column, named, arm, shares, min_slice)
    warnings += [
        f"units did not reach the arms as planned in {column} = {', '.join(which)}"
        for column, which in skewed.items()
        if which
    ]
    if reading == "no plan":
        warnings.append(
            "no number of units was planned: the intervals hold only if this many were meant from "
            "the start, not for the best of several looks"
        )
    verdict, decision, reasons = decide(
        results, ratio, reading=reading, num_units=units.height, planned_units=planned_units
    )
    return ExperimentReport(
        name=name,
        verdict=verdict,
        decision=decision,
        reasons=tuple(reasons),
        warnings=tuple(warnings),
        reading=reading,
        alpha=alpha,
        num_units=units.height,
        planned_units=planned_units,
        control=control,
        arms=counts,
        sample_ratio=ratio,
        metrics=tuple(results),
        slices=tuple(parts),
    )


def _check(
    units: pl.DataFrame,
    shares: Mapping[str, float],
    metrics: Sequence[Metric],
    slices: Sequence[str],
    planned_units: int | None,
    alpha: float,
) -> None:
    if len(shares) < 2:
        raise ValueError(f"shares must name the control and at least one arm, got {list(shares)}")
    if not any(metric.role == "primary" for metric in metrics):
        raise ValueError("metrics must hold a primary one, which decides")
    names = [metric.name for metric in metrics]
    if len(set(names)) != len(names):
        raise ValueError(f"metrics must have different names, got {', '.join(names)}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be above 0 and below 0.5, got {alpha}")
    if planned_units is not None and planned_units < 2 * len(shares):
        raise ValueError(f"planned_units must be >= {2 * len(shares)}, got {planned_units}")
    wanted = {"arm": "arm", **dict.fromkeys(slices, "slices")}
    measured: list[str] = []
    for metric in metrics:
        measured.append(metric.numerator)
        if metric.denominator is not None:
            measured.append(metric.denominator)
        if metric.covariates:
            wanted |= dict.fromkeys((*metric.covariates, "measured_until", "exposed_at"), "CUPED")
    wanted |= dict.fromkeys(measured, "metrics")
    missing = [f"{column} ({use})" for column, use in wanted.items() if column not in units.columns]
    if missing:
        raise ValueError(
            f"units must have the columns {', '.join(missing)}; got {', '.join(units.columns)}"
        )
    for column in ("arm", *measured):
        bad = units[column].null_count()
        if bad:
            raise ValueError(
                f"units must have no nulls in {column!r}: {bad} of {units.height} rows have; a "
                "unit that did nothing has 0"
            )
    unknown = sorted(set(units["arm"].cast(pl.String).unique()) - set(shares))
    if unknown:
        raise ValueError(
            f"arm must be one of {', '.join(shares)}, got {', '.join(unknown)} too; was the "
            "experiment changed while it ran?"
        )


def _adjusted(
    units: pl.DataFrame,
    metric: Metric,
    plain: np.ndarray,
    arm: np.ndarray,
    rows: Mapping[str, np.ndarray],
    warnings: list[str],
) -> tuple[np.ndarray, float]:
    """Values after CUPED and the share of the variance that is left."""
    used = []
    control, *others = rows.values()
    for column in metric.covariates:
        x = units[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        known = [x[place][~np.isnan(x[place])] for place in (control, *others)]
        # All comparisons of a covariate share the level.
        gaps = [welch(known[0], one).p for one in known[1:] if min(one.size, known[0].size) > 1]
        if gaps and min(gaps) * len(gaps) < BALANCE_LEVEL:
            warnings.append(
                f"{metric.name}: covariate {column} differs between arms (p "
                f"{min(gaps):.1g}), as one measured after exposure would; not used"
            )
        else:
            used.append(x)
    if not used:
        return plain, 1.0
    found = cuped(
        plain,
        np.stack(used, axis=1),
        arm=arm,
        measured_until=_seconds(units["measured_until"]),
        exposed_at=_seconds(units["exposed_at"]),
    )
    return found.values, found.variance_ratio


def _results(
    metric: Metric,
    others: Sequence[str],
    effects: Sequence[Effect],
    raw: Sequence[Effect],
    left: float,
    reading: Reading,
    shares: Mapping[str, float],
    planned_units: int | None,
    counts: Mapping[str, int],
    alpha: float,
) -> list[MetricResult]:
    errors = np.array([max(one.standard_error, 1e-300) for one in effects])
    z = np.array([one.difference for one in effects]) / errors
    variances = np.maximum(errors**2 - effects[0].control_error ** 2, 1e-300)
    loadings = np.minimum(
        many_to_one_loadings(max(effects[0].control_error ** 2, 1e-300), variances), 1 - 1e-9
    )
    several = len(others) > 1 and metric.role == "primary"
    found = []
    adjusted = dunnett(z, loadings) if several else np.array([one.p for one in effects])
    shared = dunnett_critical(loadings, alpha=alpha) if several else 0.0
    for place, (one, effect) in enumerate(zip(others, effects, strict=True)):
        passed, p = shared, float(adjusted[place])
        if not several:
            passed = float((effect.high - effect.difference) / errors[place])
        if reading == "running" and planned_units is not None:
            passed, p = _running(effect, shares, planned_units, one, counts, alpha, several)
        half = passed * effect.standard_error
        lift, lift_low, lift_high = _lift(effect, passed)
        kept: NonInferiority | None = None
        if metric.loss is not None and effect.control_mean > 0:
            kept = non_inferior(effect, margin=metric.loss, better=metric.better, critical=passed)
        found.append(
            MetricResult(
                metric=metric.name,
                role=metric.role,
                better=metric.better,
                arm=one,
                control_mean=effect.control_mean,
                arm_mean=effect.arm_mean,
                difference=effect.difference,
                standard_error=effect.standard_error,
                low=effect.difference - half,
                high=effect.difference + half,
                p=p,
                lift=lift,
                lift_low=lift_low,
                lift_high=lift_high,
                num_control=effect.num_control,
                num_arm=effect.num_arm,
                variance_ratio=left,
                unadjusted=raw[place].difference,
                unadjusted_error=raw[place].standard_error,
                loss=metric.loss,
                guardrail=None if kept is None else kept.verdict,
            )
        )
    return found


def _running(
    effect: Effect,
    shares: Mapping[str, float],
    planned_units: int,
    arm: str,
    counts: Mapping[str, int],
    alpha: float,
    several: bool,
) -> tuple[float, float]:
    """Standard errors to pass, and the p-value, while the experiment runs."""
    total, control = sum(shares.values()), next(iter(shares))
    arm_variance = max(effect.standard_error**2 - effect.control_error**2, 0.0) * effect.num_arm
    planned = math.sqrt(
        effect.control_error**2 * effect.num_control / (planned_units * shares[control] / total)
        + arm_variance / (planned_units * shares[arm] / total)
    )
    times = len(shares) - 1 if several else 1
    if not planned > 0 or min(counts[control], counts[arm]) < MIN_UNITS:
        return math.inf, 1.0
    tau = choose_tau(planned, alpha=alpha / times)
    error = effect.standard_error
    half = float(margin(error, tau=tau, alpha=alpha / times))
    log_ratio = float(log_likelihood_ratio(effect.difference, error, tau=tau))
    return half / error, min(1.0, times * math.exp(-max(log_ratio, 0.0)))


def _lift(effect: Effect, critical: float) -> tuple[float, float, float]:
    value, _, high = effect.lift(level=0.95)
    half = (high - value) / normal_quantile(0.975) * critical
    return value, value - half, value + half


def _secondary_by_holm(
    results: Sequence[MetricResult], metrics: Sequence[Metric]
) -> list[MetricResult]:
    """p-values of all secondary metrics and arms, adjusted together."""
    named = {metric.name for metric in metrics if metric.role == "secondary"}
    places = [place for place, one in enumerate(results) if one.metric in named]
    found = list(results)
    for place, p in zip(places, holm(np.array([results[i].p for i in places])), strict=True):
        found[place] = results[place]._replace(p=float(p))
    return found


def _seconds(times: pl.Series) -> np.ndarray:
    if times.dtype == pl.Datetime:
        times = times.dt.epoch("us").cast(pl.Float64) / 1e6
    seconds: np.ndarray = times.cast(pl.Float64).to_numpy()
    return seconds
