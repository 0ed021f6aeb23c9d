"""`recsys experiments plan` and `recsys experiments analyse`: before an experiment, and after.

Heavy imports are inside the verbs, as in `serving.cli.command`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, read_config
from serving.cli.output import reporting, table

if TYPE_CHECKING:
    from recsys.config import Config
    from recsys.config.experiments import ExperimentConfig
    from recsys.simulation.experiment import ExperimentReport, Metric, Plan

__all__ = ["add_statistics"]

LIFTS = (0.5, 0.75, 1.0, 1.5, 2.0)
DAY_S = 86_400.0


def add_statistics(app: typer.Typer) -> None:
    """Add both verbs.

    Args:
        app: `recsys experiments`.
    """
    app.command("plan")(plan)
    app.command("analyse")(analyse)


def plan(
    baseline: Annotated[float, typer.Option(help="Rate, or mean, of the control.")],
    lift: Annotated[float, typer.Option(help="Relative change to find: 0.05 is 5% up.")],
    deviation: Annotated[
        float | None,
        typer.Option(help="Standard deviation of one user: a mean.  [default: a rate]"),
    ] = None,
    share: Annotated[
        list[float] | None,
        typer.Option(help="Part of each arm, control first; repeat.  [default: two equal]"),
    ] = None,
    power: Annotated[float, typer.Option(help="Chance to find it.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Chance of a false alarm, over all arms.")] = 0.05,
    sides: Annotated[int, typer.Option(min=1, max=2, help="1: up alone counts.")] = 2,
    correction: Annotated[
        str, typer.Option(help="Of several arms: dunnett, bonferroni or none.")
    ] = "dunnett",
    correlation: Annotated[
        float, typer.Option(help="Of the metric with the same before exposure (CUPED).")
    ] = 0.0,
    variances: Annotated[
        int, typer.Option(min=1, max=2, help="Of a rate: 1, the baseline's, or 2, each arm's.")
    ] = 1,
    per_day: Annotated[
        float | None, typer.Option("--per-day", help="New users a day; also prints the days.")
    ] = None,
    traffic: Annotated[float, typer.Option(help="Share of them that takes part.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Print how many users, and days, an experiment needs before it is worth starting."""
    with reporting(as_json) as out:
        from recsys.errors import ConfigError
        from recsys.simulation.experiment import (
            Design,
            days_needed,
            plan_mean,
            plan_proportion,
        )

        try:
            design = Design(
                shares=tuple(share) if share else (0.5, 0.5),
                alpha=alpha,
                power=power,
                sides=sides,
                correction=correction,  # type: ignore[arg-type]  # checked by the design
                covariate_correlation=correlation,
            )
            if deviation is None:
                found = plan_proportion(baseline, lift, design=design, variances=variances)
            else:
                found = plan_mean(baseline, deviation, lift, design=design)
            days = None if per_day is None else days_needed(found.total, per_day, traffic=traffic)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        powers = {factor * lift: found.power_for(factor * found.effect) for factor in LIFTS}
        out.emit(
            {
                "baseline": baseline,
                "lift": lift,
                "effect": found.effect,
                "units": list(found.units),
                "total": found.total,
                "sequential_units": list(found.sequential_units),
                "critical": found.critical,
                "days": days,
                "power": [{"lift": one, "power": chance} for one, chance in powers.items()],
            },
            _plan_text(found, powers, days),
        )


def analyse(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the experiment.")],
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Holds impressions/ and feedback/.  [default: configured]"
        ),
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(help="Kind of event; the first one decides; repeat.  [default: click]"),
    ] = None,
    per: Annotated[str, typer.Option(help="user, impressions or requests.")] = "user",
    planned: Annotated[
        int | None,
        typer.Option(
            min=1, help="Users of all arms as planned; before, intervals hold at any time."
        ),
    ] = None,
    guardrail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=LOSS",
            help="What must not get worse; repeat.  [default: requests=0.05]",
        ),
    ] = None,
    window_days: Annotated[
        float | None,
        typer.Option("--window-days", help="Days of each user that count.  [default: all]"),
    ] = None,
    history_days: Annotated[
        float, typer.Option("--history-days", help="Days before exposure that covariates count.")
    ] = 28.0,
    control: Annotated[
        str | None, typer.Option(metavar="ARM", help="The control.  [default: the first arm]")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(help="End of the log that is read, UTC.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Chance of a false alarm, over all arms.")] = 0.05,
    page: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write a page (.html) as well.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Say what an experiment says: effects with intervals, guardrails, and a decision."""
    with reporting(as_json) as out:
        settings = read_config(config)
        from features.errors import DataError
        from recsys.lookup import lookup

        one = lookup({each.name: each for each in settings.experiments}, name, "experiment")
        shares = _shares(one, control)
        try:
            report = _analysed(
                settings,
                one,
                shares,
                log=log,
                metrics=_metrics(event or ["click"], per, guardrail or ["requests=0.05"]),
                events=event or ["click"],
                planned=planned,
                window_s=None if window_days is None else window_days * DAY_S,
                history_s=history_days * DAY_S,
                until=until,
                alpha=alpha,
            )
            if page is not None:
                from recsys.simulation.experiment import report_input
                from recsys.simulation.report.page import write_report

                write_report(page, report_input(report))
        except ValueError as error:
            raise DataError(str(error)) from error
        text = report.to_text() if page is None else f"{report.to_text()}\n\nreport: {page}"
        out.emit({**report.to_dict(), "report": None if page is None else str(page)}, text)


def _analysed(
    settings: Config,
    one: ExperimentConfig,
    shares: dict[str, float],
    *,
    log: Path | None,
    metrics: list[Metric],
    events: list[str],
    planned: int | None,
    window_s: float | None,
    history_s: float,
    until: datetime | None,
    alpha: float,
) -> ExperimentReport:
    from dataclasses import replace

    import polars as pl

    from features.moments import utc
    from recsys.simulation.experiment import analyse as analyse_units
    from recsys.simulation.experiment import read_units
    from serving.impressions import read_feedback, read_impressions

    shown, done = settings.impressions.directories(settings.output.directory)
    if log is not None:
        shown, done = log / "impressions", log / "feedback"
    ends = [utc(moment) for moment in (one.end, until) if moment is not None]
    units = read_units(
        read_impressions(shown),
        read_feedback(done),
        one.name,
        events=events,
        since=one.start,
        until=min(ends, default=None),
        window_s=window_s,
        history_s=history_s,
    )
    rows = units.rows.filter(pl.col("arm").is_in(list(shares)))
    report = analyse_units(
        rows, name=one.name, shares=shares, metrics=metrics, planned_units=planned, alpha=alpha
    )
    left_out = {
        "users were seen in several arms and are left out": units.num_in_two_arms,
        "users were in an arm that is not configured and are left out": units.rows.height
        - rows.height,
        "impressions name no user and count nowhere": units.num_without_user,
    }
    notes = [f"{count:,} {what}" for what, count in left_out.items() if count]
    if report.reading == "running" and window_s is None:
        notes.append(
            "users' values still grow, for which intervals at any time are not exact: give "
            "--window-days, so that each user counts once and whole"
        )
    return replace(report, warnings=(*report.warnings, *notes))


def _metrics(events: list[str], per: str, guardrails: list[str]) -> list[Metric]:
    from recsys.errors import ConfigError
    from recsys.lookup import lookup
    from recsys.simulation.experiment import Metric

    below = lookup({"user": None, "impressions": "impressions", "requests": "requests"}, per, "per")
    found = [
        Metric(
            f"{kind}s per {per.removesuffix('s')}",
            kind,
            below,
            role="primary" if place == 0 else "secondary",
            covariates=(f"{kind}_before", "impressions_before"),
        )
        for place, kind in enumerate(dict.fromkeys(events))
    ]
    for text in guardrails:
        column, _, loss = text.partition("=")
        try:
            found.append(Metric(column, column, role="guardrail", loss=float(loss)))
        except ValueError:
            raise ConfigError(
                f"guardrail must be COLUMN=LOSS such as requests=0.05, got {text!r}"
            ) from None
    return found


def _shares(one: ExperimentConfig, control: str | None) -> dict[str, float]:
    """Weights of the arms, the control first."""
    from recsys.lookup import lookup

    weights = {arm.name: arm.weight for arm in one.arms}
    first = next(iter(weights)) if control is None else control
    return {first: lookup(weights, first, "arm"), **weights}


def _plan_text(found: Plan, powers: dict[float, float], days: int | None) -> str:
    design = found.design
    names = ["control", *(f"arm {place}" for place in range(1, len(found.units)))]
    rows: list[list[Any]] = [
        [arm, f"{units:,}", f"{longer:,}"]
        for arm, units, longer in zip(names, found.units, found.sequential_units, strict=True)
    ]
    rows.append(["together", f"{found.total:,}", f"{sum(found.sequential_units):,}"])
    lines = [
        f"to find {found.lift:+.2%} of {found.baseline:g} ({found.effect:+.4g}) with a chance of "
        f"{design.power:.0%}, alarms without an effect at most {design.alpha:.1%}, "
        f"{'two-sided' if design.sides == 2 else 'one-sided'}:",
        "",
        table(["users", "read once, at the end", "read while it runs"], rows),
    ]
    if days is not None:
        lines.append(f"\n{days} days until the end, in whole weeks")
    if design.covariate_correlation:
        lines.append(f"CUPED leaves {design.variance_left:.0%} of the variance; counted above")
    lines += ["", table(["lift", "found"], [[f"{a:+.2%}", f"{b:.0%}"] for a, b in powers.items()])]
    return "\n".join(lines)
