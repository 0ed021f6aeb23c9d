"""`recsys backtest`: models of several past days, judged on what followed each.

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

__all__ = ["backtest"]


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
        out.emit(as_dict(found), _text(found))


def _text(found: Backtest) -> str:
    from recsys.backtest.report import PAGE_FILE, notes, tables

    parts = [f"{one.title}\n{table(one.rows[0], one.rows[1:])}" for one in tables(found)]
    if told := notes(found):
        parts.append("\n".join(told))
    path, here = found.directory / PAGE_FILE, Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return "\n\n".join([*parts, f"report: {shown}\n{found.advice}"])
