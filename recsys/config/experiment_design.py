"""What an experiment is: its arms, what each arm changes, and whom it may meet.

Experiments of one layer exclude each other: a unit, such as a user, is in at most one of them.
Those of different layers are independent: a unit may be in one of each, so no two of them may
change the same thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Literal

from features.moments import utc

__all__ = [
    "DRAWING",
    "RANKERS",
    "Arm",
    "ArmSettings",
    "Experiment",
    "Ranker",
    "Span",
    "lay_out",
]

Ranker = Literal["default", "noop", "popular", "shuffle", "epsilon", "softmax"]
RANKERS: dict[str, str] = {
    "default": "as configured",
    "noop": "the list as retrieved or published: no second stage, no diversity",
    "popular": "popular items alone",
    "shuffle": "the best of the list in any order",
    "epsilon": "each place the best left, or with a small probability any of the best",
    "softmax": "each place drawn by its score",
}
"""Ranker of an arm -> what it does."""
DRAWING = ("shuffle", "epsilon", "softmax")
"""Rankers that draw, and so log a propensity below 1 (`recsys.ranking.exploration`)."""
NUM_BUCKETS = 10_000
"""Parts of a layer that experiments take; traffic is known to 0.01%."""

_DRAWING_DEFAULTS: dict[str, float] = {"top": 20, "epsilon": 0.1, "temperature": 1.0}
_OF_RANKER = {"top": DRAWING, "epsilon": ("epsilon",), "temperature": ("softmax",)}


@dataclass(frozen=True, slots=True)
class ArmSettings:
    """What an arm changes; None: as configured.

    Attributes:
        generation: serve this one instead of the head's.
        ranker: one of `RANKERS`.
        rerank: when the model ranks a user's list again: "never", "fresh" or "always".
        diversity: 0 (by score alone) to 1; goes before what the request says.
        slate_pool: candidates considered by a diverse slate.
        top: candidates that take part in a draw, the best ones. None: 20.
        epsilon: probability that a place is drawn at random. None: 0.1.
        temperature: of the softmax. None: 1.

    Raises:
        ValueError: a value is out of range, or two do not go together.
    """

    generation: str | None = None
    ranker: Ranker | None = None
    rerank: Literal["never", "fresh", "always"] | None = None
    diversity: float | None = None
    slate_pool: int | None = None
    top: int | None = None
    epsilon: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        ranker = self.ranker or "default"
        if ranker not in RANKERS:
            raise ValueError(f"ranker must be one of {', '.join(RANKERS)}, got {ranker!r}")
        for name, rankers in _OF_RANKER.items():
            if getattr(self, name) is not None and ranker not in rankers:
                raise ValueError(
                    f"{name} must stand beside ranker = {' or '.join(map(repr, rankers))}, "
                    f"got {ranker!r}"
                )
        if ranker != "default" and (self.diversity is not None or self.slate_pool is not None):
            raise ValueError(
                f"diversity and slate_pool must stand beside ranker = 'default', got {ranker!r}"
            )
        if ranker in ("noop", "popular") and self.rerank is not None:
            raise ValueError(f"rerank must not stand beside ranker = {ranker!r}, which never does")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")
        for name in ("diversity", "epsilon"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be in 0..1, got {value}")
        for name in ("slate_pool", "top"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")

    @property
    def policy(self) -> str:
        """What draws the slate, as the impression log names it."""
        return "ranker" if self.ranker in (None, "default") else str(self.ranker)

    def drawn_with(self, name: str) -> float:
        """``top``, ``epsilon`` or ``temperature``, its default where it is not said."""
        value: float | None = getattr(self, name)
        return _DRAWING_DEFAULTS[name] if value is None else value

    def with_those_of(self, other: ArmSettings) -> ArmSettings:
        """Both together.

        Raises:
            ValueError: both say something about one setting, or they do not go together.
        """
        said = other.said()
        if twice := sorted(self.said().keys() & said.keys()):
            raise ValueError(f"both set {', '.join(twice)}")
        return replace(self, **said)

    def said(self) -> dict[str, Any]:
        """The settings that are not left as configured."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant.

    Attributes:
        name: letters, digits, ".", "_" and "-".
        weight: its part of the experiment's units beside the other arms' weights.
        settings: what it changes; nothing makes it a control.
    """

    name: str
    weight: float = 1.0
    settings: ArmSettings = ArmSettings()


@dataclass(frozen=True, slots=True)
class Experiment:
    """One question asked of the users.

    Attributes:
        name: letters, digits, ".", "_" and "-"; in the log.
        arms: at least one, with different names.
        traffic: share of the units that take part, 0..1.
        layer: experiments that name one exclude each other. None: a layer of its own.
        offset: share of the layer's units where this experiment's begin. None: behind those
            above it in the same layer; give it where a traffic share will change, so that the
            others' units stay.
        salt: what units are assigned by; another one assigns all of them anew. None: the name.
        start: first moment, UTC where it has no zone. None: always was.
        end: first moment after it. None: none.

    Raises:
        ValueError: a value is out of range.
    """

    name: str
    arms: tuple[Arm, ...]
    traffic: float = 1.0
    layer: str | None = None
    offset: float | None = None
    salt: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        what = f"experiment {self.name!r}"
        if not self.arms:
            raise ValueError(f"{what} must have at least one arm, got none")
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"{what}: arms must have different names, got {', '.join(names)}")
        if any(arm.weight <= 0 for arm in self.arms):
            weights = ", ".join(f"{arm.weight:g}" for arm in self.arms)
            raise ValueError(f"{what}: weights must be > 0, got {weights}")
        if not 0 <= self.traffic <= 1:
            raise ValueError(f"{what}: traffic must be in 0..1, got {self.traffic}")
        if self.offset is not None and self.layer is None:
            raise ValueError(f"{what}: offset {self.offset} needs a layer; it is alone in its own")
        if self.offset is not None and not 0 <= self.offset <= 1:
            raise ValueError(f"{what}: offset must be in 0..1, got {self.offset}")
        if self.start is not None and self.end is not None and utc(self.start) >= utc(self.end):
            raise ValueError(f"{what}: start {self.start} must be before end {self.end}")

    @property
    def salted(self) -> str:
        """What units are assigned by."""
        return self.name if self.salt is None else self.salt

    def meets(self, other: Experiment) -> bool:
        """Whether there is a moment at which both run."""
        return _before(self.start, other.end) and _before(other.start, self.end)


@dataclass(frozen=True, slots=True)
class Span:
    """Buckets of a layer, ``first`` <= bucket < ``stop``, out of `NUM_BUCKETS`."""

    first: int
    stop: int


def lay_out(experiments: Sequence[Experiment]) -> list[Span]:
    """Part of its layer that each experiment takes.

    Returns:
        One span for each experiment, in their order.

    Raises:
        ValueError: two experiments have one name; two that can run at once take the same part of
            a layer, more than there is of it, have one salt in different layers, or change the
            same thing there.
    """
    spans: list[Span] = []
    for place, one in enumerate(experiments):
        earlier = list(zip(experiments[:place], spans, strict=True))
        if any(other.name == one.name for other, _ in earlier):
            raise ValueError(f"experiments must have different names, got {one.name!r} twice")
        met = [(other, span) for other, span in earlier if one.meets(other)]
        beside = [(other, span) for other, span in met if _share_layer(one, other)]
        first = (
            max([0, *(span.stop for _, span in beside)])
            if one.offset is None
            else round(one.offset * NUM_BUCKETS)
        )
        span = Span(first, first + round(one.traffic * NUM_BUCKETS))
        if span.stop > NUM_BUCKETS:
            raise ValueError(
                f"experiment {one.name!r} must fit into its layer {one.layer!r}: it begins at "
                f"{span.first / NUM_BUCKETS:g} and takes {one.traffic:g}, together more than 1"
            )
        for other, taken in beside:
            if span.first < taken.stop and taken.first < span.stop:
                raise ValueError(
                    f"experiments {other.name!r} and {one.name!r} must not take the same part of "
                    f"layer {one.layer!r}; give the second an offset of "
                    f"{taken.stop / NUM_BUCKETS:g} or more"
                )
        for other, _ in met:
            if not _share_layer(one, other):
                _check_together(other, one)
        spans.append(span)
    return spans


def _check_together(one: Experiment, other: Experiment) -> None:
    names = f"experiments {one.name!r} and {other.name!r}"
    if one.salted == other.salted:
        raise ValueError(
            f"{names} must have different salts, or their arms go together: both have "
            f"{one.salted!r}"
        )
    for first in one.arms:
        for second in other.arms:
            try:
                first.settings.with_those_of(second.settings)
            except ValueError as error:
                raise ValueError(
                    f"{names} can meet in one user and must not change the same thing: arms "
                    f"{first.name!r} and {second.name!r}: {error}; put them in one layer"
                ) from None


def _share_layer(one: Experiment, other: Experiment) -> bool:
    return one.layer is not None and one.layer == other.layer


def _before(start: datetime | None, end: datetime | None) -> bool:
    return start is None or end is None or utc(start) < utc(end)
