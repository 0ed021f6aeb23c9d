"""Options that verbs of the `recsys` command share, and those of `recsys train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.bundle import Bundle
    from recsys.config import Config
    from recsys.progress import Progress
    from serving.cli.output import Output

__all__ = [
    "DEFAULT_CONFIG",
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
    "checked_text",
    "find_bundle",
    "progress_of",
    "read_config",
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


DEFAULT_CONFIG = Path("recsys.toml")


def read_config(path: Path) -> Config:
    """The configuration of a run; see `recsys.config.load_config`."""
    from recsys.config import load_config

    return load_config(path)


def checked_text(name: str, value: str) -> str:
    """An id as it was typed.

    Raises:
        ConfigError: it is no UTF-8 text, so nothing can be called so.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} must be UTF-8 text, got {value!a}") from None
    return value


def find_bundle(config: Config, bundle_id: str | None) -> Bundle:
    """A bundle of the run by its id; None: the newest."""
    from recsys.bundle import Bundle, latest

    if bundle_id is None:
        return latest(config.output.directory)
    return Bundle.load(config.output.directory / bundle_id)


def progress_of(out: Output, wanted: bool | None) -> Progress:
    """Progress as asked for; where it was not, on a terminal and not beside JSON."""
    from recsys.progress import Progress

    return Progress.on_terminal(False if out.as_json and wanted is None else wanted)
