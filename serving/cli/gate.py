"""`recsys gate`: may the candidate take the incumbent's place?

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
from serving.cli.output import reporting

if TYPE_CHECKING:
    from serving.jobs.gate import Judgement

__all__ = ["EXIT_CODES", "gate"]

EXIT_CODES = {"PROMOTE": 0, "HOLD": 3, "SUSPICIOUS": 4}
"""Beside 1 (it failed) and 2 (the data or the configuration is wrong), as for every verb."""


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
        out.emit(found.record, _text(found))
        code = EXIT_CODES[found.decision.verdict]
        if code:
            raise typer.Exit(code)


def _text(found: Judgement) -> str:
    against = found.record["against"] or "nothing"
    lines = [f"{found.decision.verdict}: bundle {found.record['bundle']} against {against}"]
    for reason in found.decision.reasons:
        where = f" ({reason.slice})" if reason.slice else ""
        lines.append(f"  {reason.verdict:<10}  {reason.rule}{where}: {reason.says}")
    if found.report is not None:
        lines.append(f"report: {found.report}")
    return "\n".join(lines)
