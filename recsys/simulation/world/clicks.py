"""How people click on a slate: position-based, cascade and dependent click model.

``attraction`` is the probability that an item is clicked once it is looked at. What a model adds
is who looks where. All functions work on many slates at once and never loop over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from recsys.lookup import lookup

__all__ = ["CLICK_MODELS", "THETA", "ClickModel", "click_probability", "draw_clicks"]

ClickModelName = Literal["position", "cascade", "dependent"]
CLICK_MODELS: Mapping[str, str] = {
    "position": "each place is looked at with a probability of its own",
    "cascade": "from the top until the first click",
    "dependent": "from the top; after a click some go on",
}
"""Name of a click model -> who looks where."""

THETA = (0.68, 0.61, 0.48, 0.34, 0.28, 0.20, 0.11, 0.10, 0.08, 0.06)
"""Probability that a place is looked at, from the first; the last one holds for all below.

Source: Joachims et al., Accurately interpreting clickthrough data, SIGIR 2005 (eye tracking), as
used by Ai et al., Unbiased learning to rank with unbiased propensity estimation, SIGIR 2018.
"""


@dataclass(frozen=True)
class ClickModel:
    """A click model with its constants.

    ::

        position   P(look at j) = theta_j ** eta
        cascade    P(look at j) = prod_{i<j} (1 - a_i)
        dependent  P(look at j) = prod_{i<j} (1 - a_i * (1 - go_on_i))

    Under "position" a click depends on its place and item alone, which is what estimates from
    single places assume; the other two break that.

    Attributes:
        name: one of `CLICK_MODELS`.
        theta: of "position"; the last value holds for all deeper places. Each in [0, 1].
        eta: severity of the position effect, >= 0; 0: everything is looked at.
        go_on: of "dependent", probability to look on after a click at a place, as ``theta``.

    Raises:
        ConfigError: an unknown name.
        ValueError: a probability is outside [0, 1], none is given, or eta < 0.

    Source: Craswell et al., An experimental comparison of click position-bias models, WSDM 2008
    (position, cascade); Guo, Liu and Wang, Efficient multiple-click models, WSDM 2009 (dependent).
    """

    name: ClickModelName = "position"
    theta: Sequence[float] = THETA
    eta: float = 1.0
    go_on: Sequence[float] = field(default=(0.8, 0.7, 0.6, 0.5))

    def __post_init__(self) -> None:
        lookup(CLICK_MODELS, self.name, "click model")
        for name in ("theta", "go_on"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.ndim != 1 or values.size == 0 or not ((values >= 0) & (values <= 1)).all():
                raise ValueError(f"{name} must hold probabilities in [0, 1], got {values.tolist()}")
        if not self.eta >= 0:
            raise ValueError(f"eta must be >= 0, got {self.eta}")

    def examination(self, k: int) -> np.ndarray:
        """[k] float64 probabilities that the places are looked at; of "position" only."""
        values: np.ndarray = _to_length(self.theta, k) ** self.eta
        return values


def click_probability(model: ClickModel, attraction: np.ndarray) -> np.ndarray:
    """[n, k] float64 probability of a click at each place, the places above averaged over.

    Args:
        model: who looks where.
        attraction: [n, k] in [0, 1], first place first.
    """
    attraction = np.asarray(attraction, dtype=np.float64)
    chance: np.ndarray = attraction * _looked_at(model, attraction)
    return chance


def draw_clicks(model: ClickModel, attraction: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[n, k] bool clicks.

    Args:
        model: who looks where.
        attraction: [n, k] in [0, 1], first place first.
        rng: draws n * k numbers, twice that for "dependent".
    """
    n, k = attraction.shape
    if model.name == "position":
        # Looking and being attracted are independent: one draw against their product.
        clicked: np.ndarray = rng.random((n, k)) < attraction * model.examination(k)
        return clicked
    attracted = rng.random((n, k)) < attraction
    stops = attracted
    if model.name == "dependent":
        stops = attracted & (rng.random((n, k)) >= _to_length(model.go_on, k))
    before: np.ndarray = np.cumsum(stops, axis=1) - stops  # [n, k] stops above each place
    seen: np.ndarray = attracted & (before == 0)
    return seen


def _looked_at(model: ClickModel, attraction: np.ndarray) -> np.ndarray:
    k = attraction.shape[1]
    if model.name == "position":
        return np.broadcast_to(model.examination(k), attraction.shape)
    stop = attraction
    if model.name == "dependent":
        stop = attraction * (1.0 - _to_length(model.go_on, k))
    above = np.cumprod(1.0 - stop, axis=1)
    return np.concatenate([np.ones((len(above), 1)), above[:, :-1]], axis=1)


def _to_length(values: Sequence[float], k: int) -> np.ndarray:
    """[k] float64: ``values``, the last one repeated."""
    given = np.asarray(values, dtype=np.float64)
    return given[np.minimum(np.arange(k), given.size - 1)]
