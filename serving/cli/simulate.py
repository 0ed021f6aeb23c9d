"""`recsys simulate`: what would these pipelines do with people whose tastes are known?

Heavy imports are inside the verb, as in `serving.cli.command`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    ShowProgress,
    progress_of,
    read_config,
)
from serving.cli.output import reporting

__all__ = ["parse_count", "simulate"]

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def parse_count(text: str | int) -> int:
    """A count such as 250000, "200k" or "1M".

    >>> parse_count("1.5M")
    1500000
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([km]?)", str(text).strip().lower().replace("_", ""))
    value = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if value < 1:
        raise typer.BadParameter(f"must be a count >= 1 such as 200k or 1M, got {text!r}")
    return value


def simulate(
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[ARM]...", help="Further arms.")
    ] = None,
    arms: Annotated[
        list[str] | None,
        typer.Option(
            "--arms",
            metavar="ARM",
            help="A configuration (its newest bundle), a bundle's directory, or one of popular, "
            "noop, shuffle, epsilon, softmax.  [default: popular, the newest bundle, shuffle, "
            "epsilon]",
        ),
    ] = None,
    sessions: Annotated[
        int,
        typer.Option(
            parser=parse_count,
            metavar="COUNT",
            show_default=False,
            help="Of all arms together, such as 200k.  [default: 1M]",
        ),
    ] = 1_000_000,
    log_sessions: Annotated[
        int,
        typer.Option(
            parser=parse_count,
            metavar="COUNT",
            show_default=False,
            help="Of the log that estimates are made from.  [default: 100k]",
        ),
    ] = 100_000,
    world: Annotated[
        str, typer.Option(help="Who looks where: position, cascade or dependent.")
    ] = "position",
    fatigue: Annotated[
        float, typer.Option(min=0, max=1, help="Attraction an item loses each time it is shown.")
    ] = 0.05,
    popularity: Annotated[
        float, typer.Option(help="Crowd effect on the log odds of a click, a standard deviation.")
    ] = 0.0,
    logging: Annotated[
        str | None, typer.Option("--logging", metavar="ARM", help="Arm whose log is judged.")
    ] = None,
    guardrail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOSS",
            help="Relative loss that a winner may have of conversions, no-click (0.05), coverage, "
            "head-share, new-items (0.2), diversity (0.5); repeat.",
        ),
    ] = None,
    rounds: Annotated[
        int,
        typer.Option(
            min=0,
            max=100,
            help="Also show what becomes of each arm that is trained on its own log, round by "
            "round.  [default: 0, not]",
            show_default=False,
        ),
    ] = 0,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="Places on a slate.")] = 10,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of all draws.  [default: that of the configuration]")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Page to write.  [default: simulation.html beside the bundles]"
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Run ARMs as an online experiment on simulated people; the first is the control.

    The world is fitted to the data of the configuration, so its truth is known, and what the log
    of one arm says of the others is shown beside it. Ends with the report's path and a verdict.
    """
    with reporting(as_json) as out:
        settings = read_config(config)
        from serving.cli.simulate_output import simulation_text
        from serving.jobs.simulate import SimulationOptions, run_simulation

        found = run_simulation(
            settings,
            [*(arms or []), *(more or [])],
            SimulationOptions(
                sessions=sessions,
                log_sessions=log_sessions,
                click_model=world,
                fatigue=fatigue,
                popularity=popularity,
                logging=logging,
                k=k,
                seed=settings.seed if seed is None else seed,
                report=report,
                guardrails=tuple(guardrail or ()),
                rounds=rounds,
            ),
            progress=progress_of(out, progress),
        )
        out.emit(found.to_dict(), simulation_text(found))
