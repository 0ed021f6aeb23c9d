"""What is measured on every unit of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from recsys.simulation.experiment.guardrails import Better
from recsys.simulation.experiment.moments import linearised

__all__ = ["Metric", "Role", "unit_values"]

Role = Literal["primary", "secondary", "guardrail"]


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured on every unit.

    Attributes:
        name: in the report.
        numerator: column of the frame: the metric is its mean per unit,
        denominator: or, with this column, the ratio of the two sums.
        better: which values are good.
        role: "primary" decides; "secondary" explains; "guardrail" must not get worse.
        loss: relative loss that a guardrail accepts, > 0.
        covariates: columns from before exposure (CUPED).

    Raises:
        ValueError: a guardrail without a loss, or a loss of something else.
    """

    name: str
    numerator: str
    denominator: str | None = None
    better: Better = "higher"
    role: Role = "primary"
    loss: float | None = None
    covariates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.role == "guardrail") != (self.loss is not None):
            raise ValueError(
                f"metric {self.name!r}: loss must be given for a guardrail and for nothing else, "
                f"got {self.loss} for a {self.role}"
            )


def unit_values(units: pl.DataFrame, metric: Metric, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """One value for each unit; a ratio is linearised arm by arm.

    Args:
        units: one row for each unit.
        metric: which.
        rows: of each arm, [m] int64.

    Returns:
        [n] float64; for a ratio, not defined in rows of no arm.
    """
    top = units[metric.numerator].cast(pl.Float64).to_numpy()
    if metric.denominator is None:
        return np.array(top)
    below = units[metric.denominator].cast(pl.Float64).to_numpy()
    values = np.empty(top.size)
    for place in rows.values():
        values[place] = linearised(top[place], below[place])
    return values
