"""The section of the configuration that says what a bundle must fulfil to be promoted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from recsys.config.base import (
    Closed01,
    Count,
    NonNegative,
    Open01,
    Positive,
    Section,
    check_distinct,
)
from recsys.config.gate_rules import GateRules

__all__ = ["GateConfig"]

MetricText = Annotated[str, Field(min_length=1, pattern=r"^[a-z_]+(@[1-9][0-9]*)?$")]


class GateConfig(Section):
    """Bounds of `recsys gate`; `recsys.config.gate_rules` says what each is for and why."""

    metrics: tuple[MetricText, ...] = GateRules.metrics
    level: Open01 = GateRules.level
    min_users: Count = GateRules.min_users
    max_drop: NonNegative = GateRules.max_drop
    require_gain: bool = GateRules.require_gain
    slice_margin: NonNegative = GateRules.slice_margin
    slice_min_users: Annotated[int, Field(ge=2)] = GateRules.slice_min_users
    max_coverage_drop: Closed01 = GateRules.max_coverage_drop
    max_head_share_rise: Closed01 = GateRules.max_head_share_rise
    max_exposure_gap_rise: Closed01 = GateRules.max_exposure_gap_rise
    max_calibration_rise: Closed01 = GateRules.max_calibration_rise
    max_latency_rise: NonNegative = GateRules.max_latency_rise
    max_value_drop: NonNegative = GateRules.max_value_drop
    reward_window_s: Positive = GateRules.reward_window_s
    max_disagreement: Positive = GateRules.max_disagreement
    max_gain: Positive = GateRules.max_gain
    max_ndcg: Closed01 = GateRules.max_ndcg
    max_same_lists: Closed01 = GateRules.max_same_lists

    @field_validator("metrics")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_distinct(value, "metric")

    def rules(self) -> GateRules:
        """The bounds as the decision takes them."""
        return GateRules(**{name: getattr(self, name) for name in type(self).model_fields})
