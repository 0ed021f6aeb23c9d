"""The section of the configuration about what is logged of answers."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from recsys.settings import Count, Positive, Settings

__all__ = ["ImpressionsConfig", "RowLogLimits"]


class RowLogLimits(Settings):
    """How much a log of rows holds back, and how large its files become."""

    rotate_rows: Count = 1_000_000
    """A journal becomes a Parquet file after so many rows,"""
    rotate_minutes: Positive = 10.0
    """or so many minutes,"""
    rotate_mb: Positive = 64.0
    """or so many megabytes."""
    flush_s: Positive = 0.5
    """Rows wait at most so long in memory: a killed process loses no more than this."""
    queue_rows: Count = 100_000
    """Rows kept in memory while the disk is slow or full; more are dropped."""
    keep_days: Positive | None = None
    """Older files are deleted. Not said: none."""
    fsync: bool = False
    """Survive a power cut as well as a kill, at the price of waiting for the disk."""

    @property
    def rotate_s(self) -> float:
        """``rotate_minutes`` in seconds."""
        return self.rotate_minutes * 60

    @property
    def rotate_bytes(self) -> int:
        """``rotate_mb`` in bytes."""
        return round(self.rotate_mb * 1e6)


class ImpressionsConfig(RowLogLimits):
    """The log of what was shown, and of what users did with it."""

    enabled: bool = False
    """Whether there is one."""
    directory: Path | None = None
    """Of what was shown. Not said: impressions below output.directory."""
    feedback_directory: Path | None = None
    """Of what users did. Not said: feedback beside it."""

    def directories(self, output: Path) -> tuple[Path, Path]:
        """Of what was shown and of what users did.

        Args:
            output: the run's output directory.
        """
        shown = output / "impressions" if self.directory is None else self.directory
        done = self.feedback_directory
        return shown, shown.with_name("feedback") if done is None else done

    def below(self, directory: Path) -> Self:
        """Itself with the paths that are said taken from a directory."""
        names = ("directory", "feedback_directory")
        said = {name: getattr(self, name) for name in names}
        return self.model_copy(
            update={name: directory / path for name, path in said.items() if path is not None}
        )
