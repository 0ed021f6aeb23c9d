"""Models judged before they serve: `recsys backtest` over past days, `recsys gate` on one another.

Heavy imports are inside the verb, as in `serving.cli.command`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    ShowProgress,
    progress_of,
    read_config,
)
from serving.cli.output import reporting, table

if TYPE_CHECKING:
    from recsys.backtest.run import Backtest
    from serving.jobs.gate import Judgement

__all__ = ["EXIT_CODES", "backtest", "gate"]

EXIT_CODES = {"PROMOTE": 0, "HOLD": 3, "SUSPICIOUS": 4}
"""Beside 1 (it failed) and 2 (the data or the configuration is wrong), as for every verb."""


def backtest(
    origins: Annotated[
        int, typer.Option("--origins", help="Past moments that a model is trained at, 2 or more.")
    ] = 4,
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="From one to the next: 7d, 12h, 2w.")
    ] = "7d",
    horizon: Annotated[
        str | None,
        typer.Option(
            "--horizon", metavar="TIME", help="What each is judged on.  [default: as --every]"
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Train at several past moments and measure what followed: spread, and loss by age.

    Writes models, backtest.json and backtest.html below backtest/ of the output directory; a
    re-run takes over what is finished.
    """
    with reporting(as_json) as out:
        settings = read_config(config)
        from recsys.backtest.report import as_dict, write_report
        from recsys.backtest.run import backtest as run

        found = run(
            settings,
            origins=origins,
            every=every,
            horizon=horizon,
            progress=progress_of(out, progress),
        )
        write_report(found)
        out.emit(as_dict(found), _backtest_text(found))


def gate(
    candidate: Annotated[
        str,
        typer.Argument(metavar="CANDIDATE", help="Bundle: an id, a path, or a word, see below."),
    ],
    against: Annotated[
        str, typer.Option("--against", metavar="INCUMBENT", help="What it must not fall behind.")
    ] = "served",
    log: Annotated[
        Path | None,
        typer.Option(
            "--log", metavar="DIR", help="Impression log, or a JSON file of estimates from a log."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide and print; write nothing into the bundle.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Judge CANDIDATE against INCUMBENT: PROMOTE, HOLD or SUSPICIOUS, with reasons.

    Both are bundles: an id, a path, "newest", "served" or "previous"; INCUMBENT may be "none"
    before the first publication. Writes gate.json, which publish can require, and gate.html into
    CANDIDATE. Exit codes: 0 PROMOTE, 3 HOLD, 4 SUSPICIOUS; 1 it failed, 2 wrong settings.
    """
    with reporting(as_json) as out:
        settings = read_config(config)
        from serving.jobs.gate import find, judge

        ours = find(settings, candidate)
        theirs = None if against == "none" else find(settings, against)
        found = judge(
            settings, ours, theirs, log=log, write=not dry_run, progress=progress_of(out, progress)
        )
        out.emit(found.record, _gate_text(found))
        code = EXIT_CODES[found.decision.verdict]
        if code:
            raise typer.Exit(code)


def _gate_text(found: Judgement) -> str:
    against = found.record["against"] or "nothing"
    lines = [f"{found.decision.verdict}: bundle {found.record['bundle']} against {against}"]
    for reason in found.decision.reasons:
        where = f" ({reason.slice})" if reason.slice else ""
        lines.append(f"  {reason.verdict:<10}  {reason.rule}{where}: {reason.says}")
    if found.report is not None:
        lines.append(f"report: {found.report}")
    return "\n".join(lines)


def _backtest_text(found: Backtest) -> str:
    from recsys.backtest.report import PAGE_FILE, notes, tables

    parts = [f"{one.title}\n{table(one.rows[0], one.rows[1:])}" for one in tables(found)]
    if told := notes(found):
        parts.append("\n".join(told))
    path, here = found.directory / PAGE_FILE, Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return "\n\n".join([*parts, f"report: {shown}\n{found.advice}"])
