"""`recsys plan`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from serving.cli.options import AsJson
from serving.cli.output import reporting, table

__all__ = ["plan"]

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def _number(text: str) -> int:
    """A whole number, "k", "M" and "G" allowed: "10M" is ten million."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", text.replace(",", ""))
    if found is None:
        raise typer.BadParameter(f"must be a number such as 500k or 10M, got {text!r}")
    return round(float(found[1]) * _UNITS[found[2]])


Number = Annotated[str, typer.Option(metavar="N", help="How many; 500k and 10M are understood.")]


def plan(
    users: Number,
    items: Number = "1M",
    sessions: Annotated[
        str, typer.Option(metavar="N", help="Users who did something in the last days.")
    ] = "0",
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Candidates of a user.")] = 100,
    dim: Annotated[int, typer.Option(min=0, help="Numbers of the content vector.")] = 64,
    features: Annotated[int, typer.Option(min=0, help="Other numbers of an item's row.")] = 30,
    id_bytes: Annotated[int, typer.Option(min=1, help="Bytes of an id, on average.")] = 8,
    generations: Annotated[
        int, typer.Option(min=1, help="Kept at once; 3 while one is being published.")
    ] = 2,
    as_json: AsJson = False,
) -> None:
    """Print what the store will need before anything is computed."""
    num_users, num_items, num_sessions = map(_number, (users, items, sessions))
    with reporting(as_json) as out:
        from serving.store.memory_plan import plan_memory

        lines = plan_memory(
            num_users=num_users,
            num_items=num_items,
            k=k,
            dim=dim,
            num_features=features,
            id_bytes=id_bytes,
            generations=generations,
            num_sessions=num_sessions,
        )
        total = sum(line.total_bytes for line in lines)
        rows = [
            [line.what, f"{line.keys:,}", f"{line.bytes_each:,}", _shown(line.total_bytes)]
            for line in lines
        ]
        out.emit(
            {"lines": [line._asdict() for line in lines], "total_bytes": total},
            table(["what", "keys", "bytes each", f"of {generations} generations"], rows)
            + f"\n\n{_shown(total)} in all; leave the server a third more",
        )


def _shown(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} bytes"
