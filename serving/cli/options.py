"""Options that verbs of the `recsys` command share, and those of `recsys train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AsJson",
    "BundleId",
    "CompatibleWith",
    "ConfigPath",
    "ExplainNoise",
    "Fresh",
    "K",
    "RefreshUsers",
    "ShowProgress",
    "StartFrom",
    "Workers",
]

ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="Configuration of the run.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
ShowProgress = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="Progress on stderr.  [default: on a terminal]"),
]
BundleId = Annotated[
    str | None, typer.Option("--bundle", metavar="ID", help="Which bundle.  [default: newest]")
]
K = Annotated[int, typer.Option("-k", min=1, max=500, help="How many items.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that share the id tables (TorchRec).")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Repeat finished stages.")]
StartFrom = Annotated[
    str | None, typer.Option("--from", metavar="BUNDLE", help="Begin from this bundle's weights.")
]
RefreshUsers = Annotated[
    str | None,
    typer.Option(
        "--refresh-users",
        metavar="BUNDLE",
        help="Train only what makes queries; keep this bundle's items, index and ranker.",
    ),
]
CompatibleWith = Annotated[
    str | None,
    typer.Option(
        "--compatible-with",
        metavar="BUNDLE",
        help="Keep new vectors comparable with this bundle's.",
    ),
]
ExplainNoise = Annotated[
    bool,
    typer.Option(
        "--explain-noise", help="Say of every training event how much it looks like noise."
    ),
]
