"""The bounds of the gate, each with its default and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import Field, field_validator

from recsys.settings import (
    Closed01,
    Count,
    NonNegative,
    Open01,
    Positive,
    Settings,
    check_distinct,
)

__all__ = ["GateRules", "RuleText", "Why", "rule_texts"]

MetricText = Annotated[str, Field(min_length=1, pattern=r"^[a-z_]+(@[1-9][0-9]*)?$")]


@dataclass(frozen=True)
class Why:
    """Why the default of a rule is what it is."""

    text: str


class RuleText(NamedTuple):
    """What stands in the documentation about one setting.

    Attributes:
        name: of the field of `GateRules` and of the setting ``gate.<name>``.
        default: its default.
        meaning: what it bounds.
        why: why the default is what it is.
    """

    name: str
    default: Any
    meaning: str
    why: str


class GateRules(Settings):
    """Bounds of `recsys gate`; `rule_texts` says what each one is for, and why."""

    metrics: Annotated[
        tuple[MetricText, ...],
        Why("order and presence of what people chose; the others follow these two"),
    ] = ("ndcg", "recall")
    """Relevance metrics that must hold, the main one first; at the cutoff of the evaluation where
    none is named."""
    level: Annotated[Open01, Why("one false alarm in forty on each side")] = 0.95
    """Level of the intervals; those of the slices are corrected for their number."""
    min_users: Annotated[
        Count,
        Why("below it a few people decide, and the interval of a mean is too short"),
    ] = 100
    """Fewest users judged by both."""
    max_drop: Annotated[
        NonNegative,
        Why(
            "smaller losses take tens of thousands of users to rule out; an experiment's "
            "guardrail catches them"
        ),
    ] = 0.1
    """HOLD when the interval of a metric reaches further below zero than this share of the
    incumbent's value."""
    require_gain: Annotated[
        bool,
        Why("a model trained on newer data is worth publishing when it is no worse"),
    ] = False
    """HOLD unless the whole interval of the main metric is above zero."""
    slice_margin: Annotated[
        NonNegative,
        Why("as max_drop; a loss that is not sure is no finding, for there are many slices"),
    ] = 0.1
    """HOLD when a slice surely loses, and by more than this share of the incumbent's value."""
    slice_min_users: Annotated[int, Field(ge=2), Why("fewer say nothing about a tenth")] = 50
    """Fewest users of a slice that is judged."""
    max_coverage_drop: Annotated[Closed01, Why("retraining alone moves it by a few percent")] = 0.2
    """HOLD when the recommended share of the catalogue falls by more than this share."""
    max_head_share_rise: Annotated[
        Closed01,
        Why("every tenth place taken from the rest feeds back into the next training"),
    ] = 0.1
    """HOLD when the share of places that the most popular tenth takes rises by more."""
    max_exposure_gap_rise: Annotated[
        Closed01,
        Why("as max_head_share_rise, over all tenths of the catalogue"),
    ] = 0.1
    """HOLD when the distance of recommended from wanted popularity rises by more."""
    max_calibration_rise: Annotated[
        Closed01,
        Why("two points of probability change what a bid or a threshold means"),
    ] = 0.02
    """HOLD when the calibration error of the scores rises by more."""
    max_latency_rise: Annotated[
        NonNegative,
        Why("runs of one system differ by about a tenth"),
    ] = 0.25
    """HOLD when the 99th percentile of the latency rises by more than this share."""
    max_value_drop: Annotated[
        NonNegative,
        Why("value is what counts, so the margin is half that of the metrics"),
    ] = 0.05
    """HOLD when an estimate from the log lies surely below this share under the incumbent's."""
    reward_window_s: Annotated[
        Positive,
        Why("people come back within a day; later events have other causes"),
    ] = 86_400.0
    """Seconds after it was shown in which an event on an item counts as its reward."""
    max_disagreement: Annotated[
        Positive,
        Why("the reward model or the propensities are wrong, and nobody knows which"),
    ] = 2.0
    """SUSPICIOUS when two usable estimates of one value are this many standard errors apart."""
    max_gain: Annotated[
        Positive,
        Why("one honest change brings a few percent; more is a leak or a broken incumbent"),
    ] = 0.3
    """SUSPICIOUS when a metric gains more than this share in one step."""
    max_ndcg: Annotated[
        Closed01,
        Why("nobody foresees people so well; the answer is among the inputs"),
    ] = 0.95
    """SUSPICIOUS when a relevance metric of the candidate is above it."""
    max_same_lists: Annotated[
        Closed01,
        Why("the change did not arrive, or one bundle was measured twice"),
    ] = 0.99
    """SUSPICIOUS when more than this share of the users get the very same list."""

    @field_validator("metrics")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_distinct(value, "metric")


def rule_texts() -> tuple[RuleText, ...]:
    """All settings, in order, with what they mean and why they are what they are."""
    from recsys.settings.reference import meanings  # for documentation alone

    texts, said = [], meanings(GateRules)
    for name, field in GateRules.model_fields.items():
        why = next(one.text for one in field.metadata if isinstance(one, Why))
        texts.append(RuleText(name, field.default, said[name], why))
    return tuple(texts)
