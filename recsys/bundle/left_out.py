"""What a run went on without, and why: it lies in the bundle and every report repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from recsys.files.headers import read_header, write_header

__all__ = ["LEFT_OUT", "LeftOut", "read_left_out", "write_left_out"]

LEFT_OUT = "left_out.json"
"""File of a bundle, and of a stage that found out while it ran."""
_FORMAT = 1


class LeftOut(NamedTuple):
    """A stage that a run went on without, or did less of.

    Attributes:
        stage: such as "two_tower".
        reason: what was done and why, in one sentence that may follow the stage and a colon.
    """

    stage: str
    reason: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


def write_left_out(directory: Path, left_out: Sequence[LeftOut]) -> None:
    """Write `LEFT_OUT` into an existing directory; nothing where nothing was left out."""
    if left_out:
        values = {"left_out": [one._asdict() for one in left_out]}
        write_header(directory / LEFT_OUT, _FORMAT, values)


def read_left_out(directory: Path) -> tuple[LeftOut, ...]:
    """What `write_left_out` wrote there; empty where it wrote nothing.

    Raises:
        ArtifactError: the file is damaged or of another format.
    """
    path = directory / LEFT_OUT
    if not path.is_file():
        return ()
    values = read_header(path, _FORMAT, remedy="train again")
    return tuple(LeftOut(str(one["stage"]), str(one["reason"])) for one in values["left_out"])
