"""What several verbs of the command begin with; nothing heavy is imported before it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsys.bundle.bundle import Bundle
    from recsys.config.config import Config
    from recsys.progress import Progress
    from serving.cli.output import Output

__all__ = ["DEFAULT_CONFIG", "find_bundle", "progress_of", "read_config"]

DEFAULT_CONFIG = Path("recsys.toml")


def read_config(path: Path) -> Config:
    """The configuration of a run; see `recsys.config.config.load_config`."""
    from recsys.config.config import load_config

    return load_config(path)


def find_bundle(config: Config, bundle_id: str | None) -> Bundle:
    """A bundle of the run by its id; None: the newest."""
    from recsys.bundle.bundle import Bundle, latest

    if bundle_id is None:
        return latest(config.output.directory)
    return Bundle.load(config.output.directory / bundle_id)


def progress_of(out: Output, wanted: bool | None) -> Progress:
    """Progress as asked for; where it was not, on a terminal and not beside JSON."""
    from recsys.progress import Progress

    return Progress.on_terminal(False if out.as_json and wanted is None else wanted)
