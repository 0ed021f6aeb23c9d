"""The section of the configuration about experiments."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import model_validator

from recsys.config.experiment_design import Arm, ArmSettings, Experiment, Ranker
from recsys.settings import Closed01, Count, Name, Positive, Settings

__all__ = ["ArmConfig", "ExperimentConfig"]


class ArmConfig(Settings):
    """One arm; what it does not say is as configured."""

    name: Name
    """Letters, digits, ".", "_" and "-"."""
    weight: Positive = 1.0
    """Its part of the experiment's users beside the other arms' weights."""
    generation: Name | None = None
    """Serve this one instead of the served one."""
    ranker: Ranker | None = None
    """What orders the slate; see `recsys.config.experiment_design.RANKERS`."""
    rerank: Literal["never", "fresh", "always"] | None = None
    """When the model ranks a user's list again."""
    diversity: Closed01 | None = None
    """0 (by score alone) to 1; goes before what the request says."""
    slate_pool: Count | None = None
    """Candidates considered by a diverse slate."""
    top: Count | None = None
    """Candidates that take part in a draw, the best ones. Not said: 20."""
    epsilon: Closed01 | None = None
    """Probability that a place is drawn at random. Not said: 0.1."""
    temperature: Positive | None = None
    """Of the softmax. Not said: 1."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        self.to_arm()
        return self

    def to_arm(self) -> Arm:
        """The value type of this arm."""
        said = self.model_dump(exclude={"name", "weight"})
        return Arm(self.name, self.weight, ArmSettings(**said))


class ExperimentConfig(Settings):
    """One experiment."""

    name: Name
    """Letters, digits, ".", "_" and "-"."""
    arms: tuple[ArmConfig, ...]
    """Two or more; one that changes nothing is a control."""
    traffic: Closed01 = 1.0
    """Share of the users that take part."""
    layer: Name | None = None
    """Experiments of one layer exclude each other. Not said: a layer of its own."""
    offset: Closed01 | None = None
    """Where its users begin in the layer. Not said: behind those above."""
    salt: str | None = None
    """Shuffles the users. Not said: the name."""
    start: datetime | None = None
    """When it begins; UTC where it has no zone."""
    end: datetime | None = None
    """When it ends."""

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
