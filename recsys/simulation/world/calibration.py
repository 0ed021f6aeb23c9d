"""From scores to rates: what share of logged pairs a score stands for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["DecileRate", "RateCurve", "decile_rates"]

_SMALLEST = 1e-7


class RateCurve(NamedTuple):
    """A never falling map from a score to a rate, linear in the logarithm between its knots.

    Attributes:
        score: [J] float64, rising.
        rate: [J] float64 in (0, 1), never falling.
    """

    score: np.ndarray
    rate: np.ndarray

    @classmethod
    def fit(cls, score: np.ndarray, label: np.ndarray, *, num_knots: int = 60) -> RateCurve:
        """Rates of equally filled bins, made monotone.

        Args:
            score: [n] float.
            label: [n] bool or 0/1.
            num_knots: bins of the middle eight tenths; both ends are cut finer.

        Raises:
            ValueError: no pair, shapes disagree, or all labels are equal.

        Source: Zadrozny and Elkan, Transforming classifier scores into accurate multiclass
        probability estimates, KDD 2002 (isotonic calibration), on bins.
        """
        if score.ndim != 1 or score.shape != label.shape or score.size == 0:
            raise ValueError(
                f"score and label must be [n >= 1], got shapes {score.shape} and {label.shape}"
            )
        if label.min() == label.max():
            raise ValueError("label must hold both kinds, got one; take more events")
        from sklearn.isotonic import IsotonicRegression

        tail = 1.0 - np.geomspace(0.1, 3e-4, num_knots * 2 // 3)
        lower = [0.0, *np.geomspace(0.003, 0.1, num_knots // 6)]
        middle = np.linspace(0.1, 0.9, num_knots)[1:]
        edges = np.unique(np.quantile(score, [*lower, *middle, *tail, 1.0]))
        which = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, max(edges.size - 2, 0))
        count = np.bincount(which, minlength=edges.size)
        total = np.bincount(which, weights=label, minlength=edges.size)
        centre: np.ndarray = np.bincount(which, weights=score, minlength=edges.size)
        used = count > 0
        count, total, centre = count[used], total[used], centre[used]
        centre = centre / count
        rate = IsotonicRegression().fit(centre, total / count, sample_weight=count).predict(centre)
        return cls(centre, np.clip(rate, _SMALLEST, 1.0 - _SMALLEST))

    def __call__(self, score: np.ndarray) -> np.ndarray:
        """Rates of ``score``, float64 of its shape; beyond the last knot its rate holds."""
        rates: np.ndarray = np.exp(np.interp(score, self.score, np.log(self.rate)))
        return rates


class DecileRate(NamedTuple):
    """Logged against simulated in one tenth of the pairs.

    Attributes:
        low: least score of the tenth.
        num_pairs: pairs in it.
        logged: share of them with the event in the log.
        simulated: the same share in the simulation.
        logged_error: standard error of ``logged``.
        simulated_error: of ``simulated``, by its own draws.
    """

    low: float
    num_pairs: int
    logged: float
    simulated: float
    logged_error: float
    simulated_error: float

    @property
    def ratio(self) -> float:
        """Simulated over logged; infinite where nothing was logged."""
        return self.simulated / self.logged if self.logged > 0 else float("inf")

    def within(self, tolerance: float = 0.1) -> bool:
        """Whether the two differ by at most ``tolerance`` of the logged rate."""
        return abs(self.simulated - self.logged) <= tolerance * self.logged

    def explained(self, tolerance: float = 0.1) -> bool:
        """As `within`, or closer than two standard errors where events are too few to tell."""
        error = float(np.hypot(self.logged_error, self.simulated_error))
        gap = abs(self.simulated - self.logged)
        return gap <= max(tolerance * self.logged, 2.0 * error)


def decile_rates(
    score: np.ndarray, logged: np.ndarray, simulated: np.ndarray, unit: np.ndarray | None = None
) -> list[DecileRate]:
    """Ten tenths by score, the lowest first.

    Args:
        score: [n] float.
        logged: [n] bool, the event is in the log.
        simulated: [n] bool, it came up in the simulation.
        unit: [n] int64 users; pairs of one depend on each other, and the errors of what is logged
            count users. None: each pair is its own.

    Raises:
        ValueError: shapes disagree or n < 10.
    """
    if score.ndim != 1 or score.size < 10 or not score.shape == logged.shape == simulated.shape:
        raise ValueError(
            "score, logged and simulated must be [n >= 10], got shapes "
            f"{score.shape}, {logged.shape} and {simulated.shape}"
        )
    order = np.argsort(score, kind="stable")
    found = []
    for rows in np.array_split(order, 10):
        n = rows.size
        rate, drawn = float(logged[rows].mean()), float(simulated[rows].mean())
        found.append(
            DecileRate(
                float(score[rows[0]]),
                n,
                rate,
                drawn,
                _error(logged[rows], rate, None if unit is None else unit[rows]),
                float(np.sqrt(drawn * (1.0 - drawn) / n)),
            )
        )
    return found


def _error(event: np.ndarray, rate: float, unit: np.ndarray | None) -> float:
    n = event.size
    if unit is None:
        return float(np.sqrt(rate * (1.0 - rate) / n))
    unit = unit - unit.min()
    # A constant rate has no error of its own; what it would have by single pairs is the least.
    total = np.bincount(unit, weights=event) - rate * np.bincount(unit)
    return float(max(np.sqrt(np.square(total).sum()), np.sqrt(n * rate * (1.0 - rate))) / n)
