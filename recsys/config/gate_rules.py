"""The bounds of the gate, each with its default and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

__all__ = ["GateRules", "RuleText", "rule_texts"]


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


def _rule(default: Any, meaning: str, why: str) -> Any:
    return field(default=default, metadata={"meaning": meaning, "why": why})


@dataclass(frozen=True)
class GateRules:
    """Bounds of `recsys.simulation.gate.decide.decide`; `rule_texts` says what each one is for."""

    metrics: tuple[str, ...] = _rule(
        ("ndcg", "recall"),
        "relevance metrics that must hold, the main one first; at the cutoff of the evaluation "
        "where none is named",
        "order and presence of what people chose; the others follow these two",
    )
    level: float = _rule(
        0.95,
        "level of the intervals; those of the slices are corrected for their number",
        "one false alarm in forty on each side",
    )
    min_users: int = _rule(
        100,
        "fewest users judged by both",
        "below it a few people decide, and the interval of a mean is too short",
    )
    max_drop: float = _rule(
        0.10,
        "HOLD when the interval of a metric reaches further below zero than this share of the "
        "incumbent's value",
        "smaller losses take tens of thousands of users to rule out; an experiment's guardrail "
        "catches them",
    )
    require_gain: bool = _rule(
        False,
        "HOLD unless the whole interval of the main metric is above zero",
        "a model trained on newer data is worth publishing when it is no worse",
    )
    slice_margin: float = _rule(
        0.10,
        "HOLD when a slice surely loses, and by more than this share of the incumbent's value",
        "as max_drop; a loss that is not sure is no finding, for there are many slices",
    )
    slice_min_users: int = _rule(
        50, "fewest users of a slice that is judged", "fewer say nothing about a tenth"
    )
    max_coverage_drop: float = _rule(
        0.20,
        "HOLD when the recommended share of the catalogue falls by more than this share",
        "retraining alone moves it by a few percent",
    )
    max_head_share_rise: float = _rule(
        0.10,
        "HOLD when the share of places that the most popular tenth takes rises by more",
        "every tenth place taken from the rest feeds back into the next training",
    )
    max_exposure_gap_rise: float = _rule(
        0.10,
        "HOLD when the distance of recommended from wanted popularity rises by more",
        "as max_head_share_rise, over all tenths of the catalogue",
    )
    max_calibration_rise: float = _rule(
        0.02,
        "HOLD when the calibration error of the scores rises by more",
        "two points of probability change what a bid or a threshold means",
    )
    max_latency_rise: float = _rule(
        0.25,
        "HOLD when the 99th percentile of the latency rises by more than this share",
        "runs of one system differ by about a tenth",
    )
    max_value_drop: float = _rule(
        0.05,
        "HOLD when an estimate from the log lies surely below this share under the incumbent's",
        "value is what counts, so the margin is half that of the metrics",
    )
    reward_window_s: float = _rule(
        86_400.0,
        "seconds after it was shown in which an event on an item counts as its reward",
        "people come back within a day; later events have other causes",
    )
    max_disagreement: float = _rule(
        2.0,
        "SUSPICIOUS when two usable estimates of one value are this many standard errors apart",
        "the reward model or the propensities are wrong, and nobody knows which",
    )
    max_gain: float = _rule(
        0.30,
        "SUSPICIOUS when a metric gains more than this share in one step",
        "one honest change brings a few percent; more is a leak or a broken incumbent",
    )
    max_ndcg: float = _rule(
        0.95,
        "SUSPICIOUS when a relevance metric of the candidate is above it",
        "nobody foresees people so well; the answer is among the inputs",
    )
    max_same_lists: float = _rule(
        0.99,
        "SUSPICIOUS when more than this share of the users get the very same list",
        "the change did not arrive, or one bundle was measured twice",
    )


def rule_texts() -> tuple[RuleText, ...]:
    """All settings, in order, with what they mean and why they are what they are."""
    return tuple(
        RuleText(one.name, one.default, one.metadata["meaning"], one.metadata["why"])
        for one in fields(GateRules)
    )
