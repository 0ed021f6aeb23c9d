"""What a sample says of all: a value and its 95% interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Estimate", "mean_of", "share_of"]

_Z = 1.959963984540054


class Estimate(NamedTuple):
    """A value with its 95% interval.

    Attributes:
        value: of the sample.
        low: lower end; equal to ``value`` when the sample is everything.
        high: upper end.
        size: of the sample.
    """

    value: float
    low: float
    high: float
    size: int

    def to_text(self, form: str = "{:.3f}") -> str:
        """The value and, where it is uncertain, its interval.

        >>> share_of(5, 10, total=10).to_text()
        '0.500'
        """
        value = form.format(self.value)
        if self.low == self.high:
            return value
        return f"{value} ({form.format(self.low)} to {form.format(self.high)})"


def share_of(hits: int, count: int, *, total: int) -> Estimate | None:
    """The share of ``hits`` in a sample of ``count`` out of ``total``; None without a sample.

    Source: Wilson 1927, score interval.
    """
    if count == 0:
        return None
    share = hits / count
    if count >= total:
        return Estimate(share, share, share, count)
    from scipy.stats import binomtest

    low, high = binomtest(hits, count).proportion_ci(method="wilson")
    return Estimate(share, float(low), float(high), count)


def mean_of(values: Sequence[float] | np.ndarray, *, total: int) -> Estimate | None:
    """The mean of a sample out of ``total``, by the normal distribution; None without a sample.

    The interval of a single value out of several is unknown: infinite ends.
    """
    numbers = np.asarray(values, dtype=np.float64)
    count = numbers.size
    if count == 0:
        return None
    mean = float(numbers.mean())
    if count >= total:
        return Estimate(mean, mean, mean, count)
    half = _Z * float(numbers.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return Estimate(mean, mean - half, mean + half, count)
