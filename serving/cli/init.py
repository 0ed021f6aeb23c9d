"""`recsys init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.options import AsJson
from serving.cli.output import reporting

if TYPE_CHECKING:
    from features.tables.preview import Preview

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
    """Write a commented recsys.toml for a Feast repository, or for a log and what describes it."""
    with reporting(as_json) as out:
        from serving.first_run.configuration import first_config_of_files
        from serving.first_run.feast_config import first_config_of_feast

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
        seen, notes, left = _checked(out_file)
        verdict = [f"left to do: {one}" for one in left] or ["no problems"]
        out.emit(
            {
                "file": str(out_file),
                "choices": [list(one) for one in found.choices],
                "problems": left,
                "notes": notes,
                "preview": None if seen is None else seen.as_dict(),
            },
            "\n".join(
                [
                    *(f"{setting}: {reason}" for setting, reason in found.choices),
                    *(seen.lines() if seen is not None else ()),
                    *notes,
                    *verdict,
                    f"wrote {out_file}; next: recsys validate{shown} && recsys train{shown}",
                ]
            ),
        )


def _checked(out_file: Path) -> tuple[Preview | None, list[str], list[str]]:
    """What the written configuration names, and the notes and problems that validate has of it."""
    from recsys.config import load_config
    from recsys.dataset.tables import open_tables
    from recsys.errors import ConfigError
    from serving.assembly import find_problems
    from serving.first_run.looking import look

    try:
        config = load_config(out_file)
    except ConfigError as error:
        return None, [], [str(error)]
    tables = open_tables(config)
    found = find_problems(config, tables)
    notes = [*found.notes, *(str(one) for one in found.left_out)]
    return look(tables), notes, [str(one) for one in found.problems]
