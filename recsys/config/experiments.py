"""The sections of the configuration about what is logged of answers, and about experiments."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from recsys.config.base import Closed01, Count, Name, Positive, Section
from recsys.config.experiment_design import Arm, ArmSettings, Experiment, Ranker

__all__ = ["ArmConfig", "ExperimentConfig", "ImpressionsConfig"]


class ImpressionsConfig(Section):
    """The log of what was shown, and of what users did with it."""

    enabled: bool = False
    directory: Path | None = None  # of what was shown; not said: <output.directory>/impressions
    feedback_directory: Path | None = None  # of what users did; not said: "feedback" beside it
    rotate_minutes: Positive = 10.0  # then what was logged becomes a Parquet file,
    rotate_mb: Positive = 64.0  # or at this size
    flush_s: Positive = 0.5  # a killed process loses no more than this
    queue_rows: Count = 100_000  # in memory while the disk is slow or full; more are dropped
    keep_days: Positive | None = None  # older files are deleted; not said: none
    fsync: bool = False  # survive a power cut as well as a kill

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


class ArmConfig(Section):
    """One arm; what it does not say is as configured. See `ArmSettings`."""

    name: Name
    weight: Positive = 1.0
    generation: Name | None = None
    ranker: Ranker | None = None
    rerank: Literal["never", "fresh", "always"] | None = None
    diversity: Closed01 | None = None
    slate_pool: Count | None = None
    top: Count | None = None
    epsilon: Closed01 | None = None
    temperature: Positive | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        self.to_arm()
        return self

    def to_arm(self) -> Arm:
        """The value type of this arm."""
        said = self.model_dump(exclude={"name", "weight"})
        return Arm(self.name, self.weight, ArmSettings(**said))


class ExperimentConfig(Section):
    """One experiment. See `Experiment`."""

    name: Name
    arms: tuple[ArmConfig, ...]
    traffic: Closed01 = 1.0  # share of the users that take part
    layer: Name | None = None  # experiments of one layer exclude each other; not said: its own
    offset: Closed01 | None = None  # where its users begin; not said: behind those above
    salt: str | None = None  # not said: the name
    start: datetime | None = None  # UTC where it has no zone
    end: datetime | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        self.to_experiment()
        return self

    def to_experiment(self) -> Experiment:
        """The value type of this experiment."""
        return Experiment(
            name=self.name,
            arms=tuple(arm.to_arm() for arm in self.arms),
            traffic=self.traffic,
            layer=self.layer,
            offset=self.offset,
            salt=self.salt,
            start=self.start,
            end=self.end,
        )
