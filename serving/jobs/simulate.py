"""The job behind `recsys simulate`: arms from names, a world, a trial and its report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.bundle import Bundle, latest
from recsys.config import Config, load_config
from recsys.config.experiment_design import RANKERS, ArmSettings
from recsys.errors import ConfigError
from recsys.lookup import lookup
from recsys.progress import Progress
from recsys.simulation.report.page import write_report
from recsys.simulation.trial import Trial, run_trial
from recsys.simulation.trial.guardrail_options import parse_guardrails
from recsys.simulation.trial.pipeline_arms import (
    Audience,
    pipeline_arm,
    popular_arm,
    read_audience,
    retrieved_arm,
    with_settings,
)
from recsys.simulation.trial.rounds import run_rounds
from recsys.simulation.world.arms import SimulatedArm
from recsys.simulation.world.clicks import CLICK_MODELS, ClickModel
from recsys.simulation.world.fit import fit_world
from recsys.simulation.world.sessions import Behaviour

if TYPE_CHECKING:
    import polars as pl

    from recsys.simulation.report.parts import ReportInput

__all__ = ["Simulation", "SimulationOptions", "run_simulation"]

DEFAULT_ARMS = ("popular", "default", "shuffle", "epsilon")
REPORT = "simulation.html"
ROUND_SESSIONS = 20_000
"""Most sessions of one retraining round; enough for a rate to a few percent."""


@dataclass(frozen=True)
class SimulationOptions:
    """What `recsys simulate` was asked for; see its help."""

    sessions: int
    log_sessions: int
    click_model: str
    fatigue: float
    popularity: float
    logging: str | None
    k: int
    seed: int
    report: Path | None
    guardrails: tuple[str, ...] = ()
    rounds: int = 0


@dataclass(frozen=True)
class Simulation:
    """What came out.

    Attributes:
        trial: the experiment.
        facts: of the data and the run, name to what to print.
        report_path: the page; the same as JSON stands beside it.
        report: what is on the page.
    """

    trial: Trial
    facts: Mapping[str, str | int | float]
    report_path: Path
    report: ReportInput

    def to_dict(self) -> dict[str, Any]:
        """Plain values: verdict, winner, path, and everything on the page."""
        return {
            "verdict": self.trial.verdict,
            "winner": self.trial.winner,
            "report": str(self.report_path),
            **self.report.to_dict(),
        }


def run_simulation(
    config: Config,
    names: Sequence[str],
    options: SimulationOptions,
    *,
    progress: Progress | None = None,
) -> Simulation:
    """Make the arms, fit the world, run the trial, write the report.

    Args:
        config: whose data the world is fitted to, and whose newest bundle named rankers use.
        names: of arms; none: `DEFAULT_ARMS`.
        options: see there.
        progress: shows a bar.

    Raises:
        ConfigError: an unknown arm, click model or guardrail, or an arm of other data.
        ArtifactError: there is no bundle, or it is damaged.
        DataError: the files break a rule.
    """
    from recsys.simulation.trial.report import simulation_report

    lookup(CLICK_MODELS, options.click_model, "click model")
    guardrails = parse_guardrails(options.guardrails)
    wanted = list(names) or list(DEFAULT_ARMS)
    if len(wanted) < 2:
        raise ConfigError(f"arms must be at least two, got {wanted}; add popular as a control")
    sources = {name: _source(name, config) for name in wanted}
    if len(sources) < len(wanted):
        raise ConfigError(f"arms must differ, got {', '.join(wanted)}")
    began = time.perf_counter()
    progress = progress or Progress()
    audience = read_audience(config)
    with progress.bar(len(wanted) + 2, "simulate", unit="step") as advance:
        arms, base = [], None
        for name, source in zip(_short(wanted), sources.values(), strict=True):
            if isinstance(source, ArmSettings) and source.ranker == "popular":
                arm = popular_arm(name, audience)
            elif isinstance(source, ArmSettings) and source.ranker == "noop":
                arm = retrieved_arm(name, latest(config.output.directory).path, audience)
            elif isinstance(source, ArmSettings):
                if base is None:
                    base = pipeline_arm(
                        name, config, latest(config.output.directory).path, audience
                    )
                arm = with_settings(base, name, source)
            else:
                arm = pipeline_arm(name, source[0], source[1].path, audience)
            arms.append(arm)
            advance(1)
        _check_width(arms, options.k)
        rng = np.random.default_rng(options.seed)
        histories, num_items = audience.data.histories(), audience.data.num_items
        world, honesty = fit_world(
            histories,
            num_items,
            rng=rng,
            dim=min(24, min(len(histories), num_items) - 1),
            held_out=1.0 - config.split.fraction,
        )
        advance(1)
        behaviour = Behaviour(
            clicks=ClickModel(options.click_model),  # type: ignore[arg-type]
            fatigue=options.fatigue,
        )
        before = time.perf_counter()
        trial = run_trial(
            world,
            arms,
            sessions=options.sessions,
            rng=rng,
            behaviour=behaviour,
            k=options.k,
            logging=options.logging,
            log_sessions=options.log_sessions,
            honesty=honesty,
            popularity=options.popularity,
            guardrails=guardrails,
        )
        seconds = time.perf_counter() - before
        rounds = None
        if options.rounds:
            rounds = run_rounds(
                world,
                arms,
                rounds=options.rounds,
                sessions=min(options.log_sessions, ROUND_SESSIONS),
                seed=options.seed,
                behaviour=behaviour,
                k=options.k,
            )
        advance(1)
    facts = _facts(config, audience, trial, options, seconds)
    facts["seconds in all"] = round(time.perf_counter() - began, 1)
    path = options.report or config.output.directory / REPORT
    report = simulation_report(trial, facts)
    if rounds is not None:
        report = replace(report, tables=(*report.tables, rounds.table()), curves=rounds.curves())
    return Simulation(trial, facts, write_report(path, report), report)


def _source(name: str, config: Config) -> ArmSettings | tuple[Config, Bundle]:
    if name in RANKERS:
        return ArmSettings(ranker=name)  # type: ignore[arg-type]
    path = Path(name)
    if path.suffix == ".toml":
        own = load_config(path)
        return own, latest(own.output.directory)
    if path.is_dir():
        return config, Bundle.load(path)
    known = ", ".join(RANKERS)
    raise ConfigError(
        f"arm {name!r} must be a configuration (.toml), a bundle's directory or one of {known}"
    )


def _short(names: Sequence[str]) -> list[str]:
    """Last parts of the names, where these differ; "default" is called pipeline."""
    short = ["pipeline" if name == "default" else Path(name).stem for name in names]
    return short if len(set(short)) == len(short) else list(names)


def _check_width(arms: Sequence[SimulatedArm], k: int) -> None:
    for arm in arms:
        if arm.item_index.shape[1] < k:
            raise ConfigError(
                f"k must be at most the candidates of every arm, got {k} for "
                f"{arm.item_index.shape[1]} of {arm.name!r}; raise ranking.candidates_per_source"
            )


def _end(moments: pl.Series, first: bool) -> str:
    return str(moments.min() if first else moments.max())


def _facts(
    config: Config, audience: Audience, trial: Trial, options: SimulationOptions, seconds: float
) -> dict[str, str | int | float]:
    split = audience.split
    log, train, test = (
        part.frame["timestamp"].dt.strftime("%Y-%m-%d %H:%M")
        for part in (audience.data.interactions, split.train, split.test)
    )
    simulated = sum(one.num_sessions for one in trial.results)
    return {
        "data": config.data.shown,
        "data window": f"{_end(log, True)} to {_end(log, False)}",
        "events": len(log),
        "users": len(audience.data.user_list),
        "items": audience.data.num_items,
        "training part": f"{train.len():,} events, up to {_end(train, False)}",
        "held-out part": f"{len(test):,} events, from {_end(test, True)}",
        "time split": "events held out of a user are later than its training events",
        "sessions": simulated,
        "people": sum(one.num_people for one in trial.results),
        "log of arm": trial.logging,
        "sessions in the log": len(trial.log),
        "places with an exact propensity": "100%",
        "click model": options.click_model,
        "fatigue": options.fatigue,
        "places": options.k,
        "seed": options.seed,
        "sessions a second, experiment and logs": round(
            (simulated + len(trial.log)) / max(seconds, 1e-9)
        ),
    }
