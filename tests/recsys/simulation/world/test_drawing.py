from __future__ import annotations

import numpy as np
import pytest

from recsys.config.experiment_design import ArmSettings
from recsys.ranking import epsilon_greedy, plackett_luce
from recsys.simulation.world.drawing import draw_slates, rank_marginals

SCORE = np.array([3.0, 2.0, 1.5, 1.0, 0.0])
DRAWING = [
    ArmSettings(ranker="shuffle", top=4),
    ArmSettings(ranker="epsilon", top=4, epsilon=0.3),
    ArmSettings(ranker="softmax", top=4, temperature=0.7),
]


def propensity(settings: ArmSettings, slate: list[int], width: int) -> list[float]:
    """P(place | above) as plain loops, by the definitions of `recsys.ranking.exploration`."""
    top = min(int(settings.drawn_with("top")), width)
    left, found = list(range(top)), []
    for item in slate:
        if item >= top:
            found.append(1.0)
            continue
        if settings.ranker == "shuffle":
            found.append(1 / len(left))
        elif settings.ranker == "epsilon":
            epsilon = settings.drawn_with("epsilon")
            found.append(epsilon / len(left) + (1 - epsilon) * (item == min(left)))
        else:
            weight = np.exp(SCORE / settings.drawn_with("temperature"))
            found.append(weight[item] / sum(weight[each] for each in left))
        left.remove(item)
    return found


@pytest.mark.parametrize("settings", DRAWING)
def test_propensities_are_those_of_the_draw(settings: ArmSettings) -> None:
    drawn = draw_slates(settings, np.tile(SCORE, (300, 1)), 5, np.random.default_rng(0))
    for slate, found in zip(drawn.rank.tolist(), drawn.propensity, strict=True):
        assert sorted(slate) == [0, 1, 2, 3, 4]
        np.testing.assert_allclose(found, propensity(settings, slate, 5), rtol=1e-12)


@pytest.mark.parametrize("settings", DRAWING[:2])
def test_marginals_are_the_shares_of_draws(settings: ArmSettings) -> None:
    n, k = 40_000, 3
    drawn = draw_slates(settings, np.tile(SCORE, (n, 1)), k, np.random.default_rng(1))
    found = rank_marginals(settings, 5, k)
    np.testing.assert_allclose(found.sum(axis=0), 1.0)
    shares = np.stack([(drawn.rank == rank).mean(axis=0) for rank in range(5)])
    assert np.abs(shares - found).max() < 4 * np.sqrt(0.25 / n)


def test_marginals_beyond_the_drawn_places() -> None:
    found = rank_marginals(ArmSettings(ranker="shuffle", top=2), 4, 4)
    np.testing.assert_allclose(
        found, [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    np.testing.assert_allclose(rank_marginals(ArmSettings(), 4, 2), np.eye(4)[:, :2])


def test_first_places_agree_with_the_draws_of_the_service() -> None:
    rng, n = np.random.default_rng(2), 3000
    one = [epsilon_greedy(SCORE, 2, rng, epsilon=0.3, top=4).position for _ in range(n)]
    shares = np.bincount([slate[1] for slate in one], minlength=5) / n
    assert np.abs(shares - rank_marginals(DRAWING[1], 5, 2)[:, 1]).max() < 4 * np.sqrt(0.25 / n)
    many = draw_slates(DRAWING[2], np.tile(SCORE, (n, 1)), 2, rng).rank[:, 0]
    single = [plackett_luce(SCORE, 1, rng, temperature=0.7, top=4).position[0] for _ in range(n)]
    gap = np.bincount(many, minlength=5) - np.bincount(single, minlength=5)
    assert np.abs(gap / n).max() < 4 * np.sqrt(0.5 / n)


def test_what_does_not_draw_shows_the_first() -> None:
    drawn = draw_slates(ArmSettings(), np.tile(SCORE, (2, 1)), 3, np.random.default_rng(0))
    assert drawn.rank.tolist() == [[0, 1, 2]] * 2
    assert (drawn.propensity == 1.0).all()


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"k must be in 1\.\.5"):
        draw_slates(ArmSettings(), SCORE[None], 6, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"k must be in 1\.\.5"):
        rank_marginals(ArmSettings(), 5, 0)
    with pytest.raises(ValueError, match="rank alone"):
        rank_marginals(DRAWING[2], 5, 2)
