"""A metric of an experiment in the slices of its units."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from recsys.simulation.experiment.effect import Effect, welch
from recsys.simulation.experiment.metric import Metric, unit_values
from recsys.simulation.experiment.multiple import holm
from recsys.simulation.experiment.report import SliceResult
from recsys.simulation.experiment.slices import shrink

__all__ = ["slice_effects"]


def slice_effects(
    units: pl.DataFrame,
    metric: Metric,
    column: str,
    named: np.ndarray,
    arm: np.ndarray,
    shares: Mapping[str, float],
    min_slice: int,
) -> list[SliceResult]:
    """One metric in the parts of one column; parts with few units are left out.

    Args:
        units: one row for each unit.
        metric: which.
        column: of the frame, known before exposure.
        named: [n] its values as text.
        arm: [n] names of arms.
        shares: planned share of each arm, the control first.
        min_slice: fewest units of an arm in a part.
    """
    control, *others = shares
    found: list[SliceResult] = []
    for one in others:
        lines: list[tuple[str, Effect]] = []
        for part in np.unique(named):
            rows = {
                which: np.flatnonzero((named == part) & (arm == which)) for which in (control, one)
            }
            if min(place.size for place in rows.values()) < max(min_slice, 2):
                continue
            if metric.denominator is not None and not all(
                units[metric.denominator].to_numpy()[place].sum() > 0 for place in rows.values()
            ):
                continue
            values = unit_values(units, metric, rows)
            effect = welch(values[rows[control]], values[rows[one]])
            if effect.standard_error > 0:
                lines.append((str(part), effect))
        if not lines:
            continue
        shrunk = shrink(
            np.array([effect.difference for _, effect in lines]),
            np.array([effect.standard_error for _, effect in lines]),
        )
        p = holm(np.array([effect.p for _, effect in lines]))
        found += [
            SliceResult(
                metric=metric.name,
                arm=one,
                slice=column,
                value=part,
                difference=effect.difference,
                standard_error=effect.standard_error,
                p=float(p[place]),
                shrunk=float(shrunk.value[place]),
                low=float(shrunk.low[place]),
                high=float(shrunk.high[place]),
                num_control=effect.num_control,
                num_arm=effect.num_arm,
                heterogeneity_p=shrunk.heterogeneity_p,
            )
            for place, (part, effect) in enumerate(lines)
        ]
    return found
