"""`recsys doctor`, `recsys doctor feast` and `recsys doctor store`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.cli.options import AsJson, ConfigPath
from serving.cli.output import Output, reporting

__all__ = ["app"]

app = typer.Typer(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def doctor(
    context: typer.Context, config: ConfigPath = Path("recsys.toml"), as_json: AsJson = False
) -> None:
    """Check installation, configuration, data, bundle and store; changes nothing."""
    if context.invoked_subcommand is not None:
        return
    with reporting(as_json) as out:
        from serving.doctor.installation import examine

        _emit(out, examine(config))


@app.command()
def feast(
    repository: Annotated[
        Path, typer.Argument(metavar="[REPO]", help="Directory of feature_store.yaml.")
    ] = Path("."),
    as_json: AsJson = False,
) -> None:
    """Check a Feast repository for what loses rows or serves other values; changes nothing."""
    with reporting(as_json) as out:
        from features.feast.doctor import examine

        _emit(out, examine(repository))


@app.command()
def store(
    config: ConfigPath = Path("recsys.toml"),
    role: Annotated[
        str, typer.Option(help="What the user is for: reader, service, publisher or follower.")
    ] = "reader",
    as_json: AsJson = False,
) -> None:
    """Check the store: kind, latency, memory, persistence, clock, rights; changes nothing."""
    with reporting(as_json) as out:
        from recsys.config import load_config
        from serving.doctor.store import examine_store

        _emit(out, examine_store(load_config(config), role))


def _emit(out: Output, findings: Sequence[Any]) -> None:
    failed = any(one.state == "FAIL" for one in findings)
    out.emit(
        {"healthy": not failed, "checks": [one._asdict() for one in findings]},
        "\n".join(str(one) for one in findings),
    )
    if failed:
        raise typer.Exit(1)
