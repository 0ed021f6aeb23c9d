"""`recsys init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.cli.options import AsJson
from serving.cli.output import reporting

__all__ = ["init"]


def init(
    from_feast: Annotated[
        Path | None,
        typer.Option("--from-feast", metavar="REPO", help="Directory of feature_store.yaml."),
    ] = None,
    events: Annotated[
        str | None, typer.Option(metavar="FILE|VIEW", help="What happened.  [default: found]")
    ] = None,
    items: Annotated[
        str | None, typer.Option(metavar="FILE|VIEW", help="What describes the items.")
    ] = None,
    users: Annotated[
        str | None, typer.Option(metavar="FILE|VIEW", help="What describes the users.")
    ] = None,
    orders: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Whose an order is, where events are lines of orders."),
    ] = None,
    out_file: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Configuration to write.")
    ] = Path("recsys.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented recsys.toml for a Feast repository, or for two or three files."""
    with reporting(as_json) as out:
        from serving.first_run.configuration import first_config_of_feast, first_config_of_files

        if from_feast is not None:
            found = first_config_of_feast(
                from_feast, out_file, events=events, items=items, users=users
            )
        else:
            found = first_config_of_files(
                out_file, events=events, items=items, users=users, orders=orders
            )
        found.write(out_file, force=force)
        shown = "" if out_file == Path("recsys.toml") else f" -c {out_file}"
        out.emit(
            {"file": str(out_file), "choices": [list(one) for one in found.choices]},
            "\n".join(
                [
                    *(f"{setting}: {reason}" for setting, reason in found.choices),
                    f"wrote {out_file}; next: recsys validate{shown}, recsys train{shown}",
                ]
            ),
        )
