from __future__ import annotations

import numpy as np
import pytest

from recsys.errors import ConfigError
from recsys.simulation.world.clicks import ClickModel, click_probability, draw_clicks

ATTRACTION = np.array([[0.5, 0.4, 0.2], [0.0, 1.0, 0.3]])


def test_position_by_hand() -> None:
    model = ClickModel("position", theta=(0.8, 0.5))
    found = click_probability(model, ATTRACTION)
    np.testing.assert_allclose(found, [[0.4, 0.2, 0.1], [0.0, 0.5, 0.15]])
    harder = ClickModel("position", theta=(0.8, 0.5), eta=2.0)
    np.testing.assert_allclose(harder.examination(3), [0.64, 0.25, 0.25])


def test_cascade_by_hand() -> None:
    found = click_probability(ClickModel("cascade"), ATTRACTION)
    np.testing.assert_allclose(found, [[0.5, 0.2, 0.06], [0.0, 1.0, 0.0]])


def test_dependent_by_hand() -> None:
    found = click_probability(ClickModel("dependent", go_on=(0.5, 0.25)), ATTRACTION)
    # Seen at place 3: (1 - .5 * .5) * (1 - .4 * .75), and (1 - 0) * (1 - 1 * .75).
    np.testing.assert_allclose(found, [[0.5, 0.3, 0.2 * 0.525], [0.0, 1.0, 0.3 * 0.25]])


@pytest.mark.parametrize("name", ["position", "cascade", "dependent"])
def test_draws_come_as_often_as_they_should(name: str) -> None:
    model = ClickModel(name)  # type: ignore[arg-type]
    n = 20_000
    drawn = draw_clicks(model, np.repeat(ATTRACTION[:1], n, axis=0), np.random.default_rng(0))
    wanted = click_probability(model, ATTRACTION[:1])[0]
    assert np.abs(drawn.mean(axis=0) - wanted).max() < 4 * np.sqrt(0.25 / n)


def test_a_cascade_has_one_click_and_a_dependent_model_may_have_more() -> None:
    sure = np.ones((2000, 4))
    assert (draw_clicks(ClickModel("cascade"), sure, np.random.default_rng(1)).sum(1) == 1).all()
    several = draw_clicks(ClickModel("dependent"), sure, np.random.default_rng(1)).sum(1)
    assert several.min() == 1
    assert several.max() == 4


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="click model"):
        ClickModel("casade")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="theta must hold probabilities"):
        ClickModel(theta=(0.5, 1.5))
    with pytest.raises(ValueError, match="go_on must hold probabilities"):
        ClickModel(go_on=())
    with pytest.raises(ValueError, match="eta must be >= 0"):
        ClickModel(eta=-1.0)
