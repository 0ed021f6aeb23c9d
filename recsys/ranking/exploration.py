"""Slates drawn at random, with the probability of every draw.

The propensity of a place is ``P(item at this place | items above it)``. So

- that of the first place is the plain probability of its item there,
- the product over a slate is the propensity of the whole slate, and over its first places that of
  this beginning,
- a place that could not have held anything else has 1.

A longer slate drawn with the same seed begins as the shorter one, with the same propensities.

After `uniform_shuffle` every item has the same probability at every drawn place without regard to
the others, too: that of the first place, 1 / m.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

__all__ = ["Drawn", "epsilon_greedy", "plackett_luce", "seeded", "uniform_shuffle"]


class Drawn(NamedTuple):
    """A slate that was drawn.

    Attributes:
        position: [<= k] int64 positions into the candidates, first place first.
        propensity: as many float64 in (0, 1], see the module.
    """

    position: np.ndarray
    propensity: np.ndarray


def seeded(*parts: str) -> np.random.Generator:
    """A generator that is the same for the same parts, on every machine.

    Pages of one slate need one seed: draw it once, for the first page, and carry it in the cursor.
    It must not be the caller's to choose, or the propensities are not those of a draw.
    """
    digest = hashlib.blake2b("\x00".join(parts).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def uniform_shuffle(score: np.ndarray, k: int, rng: np.random.Generator, *, top: int) -> Drawn:
    """The best ``top`` candidates in any order, each order as likely as another.

    Where ``k`` is more than that, the rest follows by score.

    Args:
        score: [C] float, higher is better; entries that are not finite are no candidates. Ties go
            to the earlier candidate.
        k: most items on the slate, >= 1.
        rng: draws.
        top: m, how many candidates take part, >= 1.

    Raises:
        ValueError: a shape is wrong, or a number out of range.
    """
    ordered = _ordered(score, k, top)
    m = min(top, ordered.size)
    ordered[:m] = rng.permutation(ordered[:m])
    propensity = np.ones(ordered.size)
    propensity[:m] = 1.0 / np.arange(m, 0, -1)
    return Drawn(ordered[:k], propensity[:k])


def epsilon_greedy(
    score: np.ndarray, k: int, rng: np.random.Generator, *, epsilon: float, top: int
) -> Drawn:
    """For each place the best candidate left, or with probability ``epsilon`` any of those left.

    The best may be drawn either way, so its propensity is ``1 - epsilon + epsilon / left`` and any
    other's ``epsilon / left``. Only the best ``top`` candidates take part; where ``k`` is more
    than that, the rest follows by score.

    Args:
        score: [C] float, higher is better; entries that are not finite are no candidates. Ties go
            to the earlier candidate.
        k: most items on the slate, >= 1.
        rng: draws.
        epsilon: 0 (by score alone) to 1 (a uniform shuffle).
        top: m, how many candidates take part, >= 1.

    Raises:
        ValueError: a shape is wrong, or a number out of range.
    """
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon must be 0..1, got {epsilon}")
    ordered = _ordered(score, k, top)
    left = np.arange(min(top, ordered.size), 0, -1)  # [m] candidates left at each place
    explores = rng.random(left.size) < epsilon
    chosen = np.where(explores, rng.integers(left), 0)  # among those left, best first
    propensity = np.ones(ordered.size)
    propensity[: left.size] = epsilon / left + (1.0 - epsilon) * (chosen == 0)
    remaining = ordered.tolist()
    slate = [remaining.pop(place) for place in chosen.tolist()]
    position = np.asarray([*slate, *remaining], dtype=np.int64)
    return Drawn(position[:k], propensity[:k])


def plackett_luce(
    score: np.ndarray, k: int, rng: np.random.Generator, *, temperature: float, top: int
) -> Drawn:
    """Each place drawn from the softmax of ``score / temperature`` over the candidates left.

    Only the best ``top`` candidates take part; where ``k`` is more than that, the rest follows by
    score. Adding Gumbel noise to the logits and sorting draws the same slates as one draw a place.

    Args:
        score: [C] float, higher is better; entries that are not finite are no candidates. Ties go
            to the earlier candidate.
        k: most items on the slate, >= 1.
        rng: draws.
        temperature: logits are divided by it, > 0; near 0 the order is by score, large ones come
            close to a uniform shuffle.
        top: m, how many candidates take part, >= 1.

    Raises:
        ValueError: a shape is wrong, or a number out of range.

    Source: Kool et al., Stochastic Beams and Where to Find Them, ICML 2019, section 2.3 (Gumbel
    top-k), after Plackett (1975) and Luce (1959).
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    ordered = _ordered(score, k, top)
    m = min(top, ordered.size)
    logit = score[ordered[:m]].astype(np.float64) / temperature  # [m]
    drawn = np.argsort(-(logit + rng.gumbel(size=m)), kind="stable")
    logit = logit[drawn]
    # log of the sum of exp over a place and all below it
    below = np.logaddexp.accumulate(logit[::-1])[::-1]
    propensity = np.ones(ordered.size)
    propensity[:m] = np.exp(np.minimum(logit - below, 0.0))
    ordered[:m] = ordered[:m][drawn]
    return Drawn(ordered[:k], propensity[:k])


def _ordered(score: np.ndarray, k: int, top: int) -> np.ndarray:
    """Positions of the candidates, best first."""
    if score.ndim != 1:
        raise ValueError(f"score must be [C], got shape {score.shape}")
    if k < 1 or top < 1:
        raise ValueError(f"k and top must be >= 1, got {k} and {top}")
    usable = np.nonzero(np.isfinite(score))[0]
    return usable[np.argsort(-score[usable], kind="stable")].astype(np.int64)
