"""Marginals of Plackett-Luce slates of any length, from a race of items."""

from __future__ import annotations

import numpy as np

__all__ = ["race_marginals"]

BLOCK_BYTES = 16 * 2**20
# The trapezoid rule in log time: the integrand is analytic for |Im| < pi / 2, so its error falls as
# exp(-pi^2 / step); what is left out before the start is about exp(-24).
STEP, EARLIEST, CERTAIN = 0.2, -24.0, 40.0


def race_marginals(logit: np.ndarray, slots: int) -> np.ndarray:
    """Probability that a place holds an item when each is drawn from the softmax of those left.

    Items that arrive at exponential times of rate ``v_a = exp(logit_a)`` arrive in this order::

        P(a at place k) = int v_a exp(-v_a t) P(k - 1 of the others arrived before t) dt

    The number of those that arrived is a sum of independent draws; its distribution without one
    item comes from the products over the items before and after it. Time grows with
    ``K * slots ** 2``, not with the number of sets.

    Args:
        logit: [n, K] float64, -inf for what takes no part.
        slots: L, >= 1.

    Returns:
        [n, L, K] float64, right to about 1e-9 up to 20 places, 1e-8 at 30. A place beyond the last
        item has 0 for all.

    Source: the race is Luce's, Individual choice behavior, 1959; trapezoid rule: Trefethen and
    Weideman, The exponentially convergent trapezoidal rule, SIAM Review 2014.
    """
    n, items = logit.shape
    highest = logit.max(axis=1, keepdims=True)
    logit = logit - np.where(np.isfinite(highest), highest, 0.0)  # the largest 0
    rate = np.exp(logit)  # [n, K]
    found = np.zeros((n, slots, items))
    lowest = float(logit.min(where=np.isfinite(logit), initial=0.0))
    steps = int((np.log(CERTAIN) - lowest - EARLIEST) / STEP) + 2
    block = max(1, BLOCK_BYTES // (8 * steps * items * slots))
    for start in range(0, n, block):
        part = rate[start : start + block]
        found[start : start + block] = _block(part, slots)
    return found


def _block(rate: np.ndarray, slots: int) -> np.ndarray:
    """[b, L, K] of rates [b, K]."""
    n, items = rate.shape
    # Nobody is awaited once more than L have surely come, or all.
    last = np.sort(np.where(rate > 0, rate, np.inf), axis=1)
    rank = np.maximum((rate > 0).sum(axis=1) - 1 - slots, 0)
    slowest = float(last[np.arange(n), rank].min(initial=1.0))
    y = np.arange(EARLIEST, np.log(CERTAIN / slowest) + STEP, STEP)
    time = np.exp(y)  # [T]
    stays = np.exp(-rate.T[:, :, None] * time)  # [K, b, T] not yet there
    comes = 1.0 - stays
    count = np.zeros((slots, n, time.size))  # [L, b, T] distribution of the number of arrivals
    count[0] = 1.0
    before = np.empty((items, *count.shape))
    running = count
    for item in range(items):
        before[item] = running
        running = _with(running, stays[item], comes[item])
    after = count
    found = np.empty((n, slots, items))
    for item in range(items - 1, -1, -1):
        arrives = STEP * rate[:, item, None] * time * stays[item]  # [b, T] dt = t dy
        weighted = after * arrives
        for slot in range(slots):
            others = np.einsum("jbt,jbt->b", before[item, : slot + 1], weighted[slot::-1])
            found[:, slot, item] = others
        after = _with(after, stays[item], comes[item])
    return found


def _with(count: np.ndarray, stays: np.ndarray, comes: np.ndarray) -> np.ndarray:
    """Distribution [L, b, T] of the number of arrivals with one item more."""
    more: np.ndarray = count * stays
    more[1:] += count[:-1] * comes
    return more
