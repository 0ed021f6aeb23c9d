"""What is known about a system when the gate decides: `Evidence`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from recsys.simulation.report.parts import EstimateLine

__all__ = ["Evidence", "UserValues"]


@dataclass(frozen=True)
class UserValues:
    """Relevance metrics, user by user.

    Attributes:
        user_id: [U] text, every user once.
        values: metric such as "ndcg@20" to [U] float64, in the order of ``user_id``.
    """

    user_id: np.ndarray
    values: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        if np.unique(self.user_id).size != self.user_id.size:
            raise ValueError("user_id must hold every user once, got one twice")
        for name, value in self.values.items():
            if value.shape != self.user_id.shape or not np.isfinite(value).all():
                raise ValueError(
                    f"values[{name!r}] must be one finite number a user: got shape {value.shape} "
                    f"for {self.user_id.size} users"
                )

    @property
    def num_users(self) -> int:
        """U, how many users were judged."""
        return int(self.user_id.size)


@dataclass(frozen=True)
class Evidence:
    """What was measured of one system.

    Attributes:
        name: id of the bundle.
        data: fingerprint of the events it was judged on.
        split: what was held out, as text that is equal where the split is.
        k: cutoff of the metrics that are named without one.
        users: all judged users.
        slices: name of a slice to its users.
        lists: [U] text, the list of every user of ``users`` in one piece. None: not kept.
        coverage: share of the catalogue that is recommended to anybody. None: not measured, as
            for all numbers below.
        head_share: share of the places that the most popular tenth takes.
        exposure_gap: half the summed absolute difference of recommended and wanted shares over
            tenths of the catalogue, in [0, 1].
        calibration_error: mean distance of predicted from observed probability.
        latency_p99_ms: of one request, in milliseconds.
        leakage: what a check found that lets the answer into the inputs, one sentence each.
        estimates: values of this system from a log.
    """

    name: str
    data: str
    split: str
    k: int
    users: UserValues
    slices: Mapping[str, UserValues] = field(default_factory=dict)
    lists: np.ndarray | None = None
    coverage: float | None = None
    head_share: float | None = None
    exposure_gap: float | None = None
    calibration_error: float | None = None
    latency_p99_ms: float | None = None
    leakage: tuple[str, ...] = ()
    estimates: tuple[EstimateLine, ...] = ()
