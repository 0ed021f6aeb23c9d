"""`recsys keys`: API keys of the HTTP interface."""

from __future__ import annotations

from typing import Annotated

import typer

from serving.cli.options import AsJson
from serving.cli.output import reporting

__all__ = ["app"]

app = typer.Typer(name="keys", help="API keys of the HTTP interface.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """API keys of the HTTP interface."""


@app.command()
def new(
    name: Annotated[str, typer.Option(help="Shown in the log of requests.")] = "client",
    scopes: Annotated[str, typer.Option(help="Of read, feedback and admin.")] = "read,feedback",
    as_json: AsJson = False,
) -> None:
    """Print a fresh random key for a client, and the line that lets the service know it.

    Nothing is stored: the key cannot be shown again.
    """
    with reporting(as_json) as out:
        from serving.http.api_keys import KEYS_FILE_VARIABLE, KEYS_VARIABLE, new_key

        secret, key = new_key(name, [one.strip() for one in scopes.split(",")])
        out.emit(
            {"name": key.name, "scopes": sorted(key.scopes), "key": secret, "line": key.to_line()},
            f"key for the client, shown once: {secret}\n"
            f"line for {KEYS_VARIABLE} or the file that {KEYS_FILE_VARIABLE} names:\n"
            f"{key.to_line()}",
        )
