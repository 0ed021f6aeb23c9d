"""A world in which it is known who saw what and who likes what: clicks come from both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from retrieval_data import K, histories_of, topk_lists
from scipy.optimize import brentq
from scipy.sparse.linalg import svds
from scipy.special import expit

from features.tables import Histories


@dataclass(frozen=True)
class ExposureWorld:
    """Clicks of users whose taste and whose chances to see an item are known.

    Attributes:
        clicks: U rows, what was seen and liked.
        relevance: [U, N + 1] float32 probability that the user likes the item once seen; column 0
            is 0.
        exposure: [N + 1] float64 probability that an item is seen, 0 in row 0.
    """

    clicks: Histories
    relevance: np.ndarray
    exposure: np.ndarray


def semi_synthetic_exposure(
    histories: Histories,
    num_items: int,
    *,
    power: float,
    clicks_per_user: float = 40.0,
    mean_relevance: float = 0.2,
    rank: int = 32,
    seed: int = 0,
) -> ExposureWorld:
    """A world with known exposure: clicks = Bernoulli(exposure of the item * relevance).

    Relevance is a real low-rank taste without popularity in it: the affinities of a truncated SVD
    of ``histories``, standardised within each user and then within each item, plus a quality of
    the item drawn on its own, through a logistic function. Exposure is the real popularity to
    ``power``, scaled to the wanted number of clicks. The same seed gives the same relevance for
    every ``power``; 0 exposes every item alike.

    Args:
        histories: U rows that taste and popularity are taken from.
        num_items: N.
        power: of popularity in the exposure, >= 0.
        clicks_per_user: expected clicks of a user, in the mean.
        mean_relevance: mean over all pairs, in (0, 1).
        rank: of the SVD.
        seed: of the qualities and the clicks.

    Raises:
        ValueError: so many clicks would need an exposure above 1.

    Source: the semi-synthetic protocol of Saito et al., WSDM 2020, section 5, with taste from
        implicit data.
    """
    quality_rng, click_rng = np.random.default_rng(seed).spawn(2)
    matrix = histories.to_csr(num_items)[:, 1:]
    start = quality_rng.standard_normal(min(matrix.shape), dtype=np.float32)
    left, values, right = svds(matrix, k=rank, v0=start)
    affinity = (left * values) @ right  # [U, N]
    for axis in (1, 0):
        affinity -= affinity.mean(axis=axis, keepdims=True)
        affinity /= affinity.std(axis=axis, keepdims=True) + 1e-12
    quality = quality_rng.standard_normal(num_items, dtype=np.float32)
    logit = np.float32(1.5) * affinity + np.float32(0.5) * quality
    some = logit[:: max(1, len(logit) // 500)]
    shift = brentq(lambda shift: expit(some + np.float32(shift)).mean() - mean_relevance, -20, 20)
    relevance = np.zeros((len(histories), num_items + 1), dtype=np.float32)
    relevance[:, 1:] = expit(logit + np.float32(shift))
    counts = np.bincount(histories.item_index, minlength=num_items + 1)[1:]
    exposure = np.zeros(num_items + 1)
    exposure[1:] = (np.maximum(counts, 1) / counts.max()) ** power
    expected = float((relevance @ exposure).mean())
    exposure *= clicks_per_user / expected
    if exposure.max() > 1.0:
        raise ValueError(
            f"clicks_per_user must be at most {expected / exposure.max() * clicks_per_user:.1f} "
            f"with power {power}, got {clicks_per_user}"
        )
    clicked = click_rng.random(relevance.shape, dtype=np.float32) < relevance * exposure
    row, item_index = np.nonzero(clicked)
    return ExposureWorld(histories_of(row, item_index, len(histories)), relevance, exposure)


class RankingError(NamedTuple):
    """How far a ranking is from the true relevance, per user; 0 is perfect.

    Attributes:
        top: [U] 1 - ndcg@k of the items not clicked yet, relevance as grade.
        pairs: [U] share of item pairs in the wrong order, .5 for a random ranking.
    """

    top: np.ndarray
    pairs: np.ndarray


def relevance_error(
    user_vectors: np.ndarray,
    item_vectors: np.ndarray,
    world: ExposureWorld,
    *,
    rng: np.random.Generator,
    k: int = K,
    num_pairs: int = 500,
) -> RankingError:
    """Compare the order by product with the order by `ExposureWorld.relevance`.

    Args:
        user_vectors: [U, D] float.
        item_vectors: [N + 1, D] float.
        world: what is true.
        rng: draws of the pairs, uniform over the catalogue.
        k: places of the list that is judged.
        num_pairs: pairs drawn for each user.
    """
    relevance = world.relevance
    lists = topk_lists(user_vectors, item_vectors, world.clicks, k=k)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    got = np.take_along_axis(relevance, np.maximum(lists, 0), axis=1)
    unseen = relevance.copy()
    unseen[world.clicks.rows, world.clicks.item_index] = 0.0
    ideal = -np.partition(-unseen, k, axis=1)[:, :k]
    ideal = -np.sort(-ideal, axis=1)
    top = 1.0 - (got @ discount) / (ideal @ discount)
    pairs = np.empty(len(relevance))
    for user in range(len(relevance)):
        item = rng.integers(1, relevance.shape[1], size=(2, num_pairs))
        score = item_vectors[item] @ user_vectors[user]
        truth = relevance[user, item]
        agreement = np.sign(score[0] - score[1]) * np.sign(truth[0] - truth[1])
        pairs[user] = 0.5 - 0.5 * agreement[item[0] != item[1]].mean()
    return RankingError(top, pairs)
