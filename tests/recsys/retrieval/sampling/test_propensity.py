"""Propensities and their weights: by hand, refused inputs, and relevance recovered from clicks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.retrieval.losses import sampled_softmax
from recsys.retrieval.sampling.frequency import item_counts
from recsys.retrieval.sampling.propensity import (
    exposure_propensities,
    inverse_propensity_weights,
    normalised,
)


def test_propensities_by_hand() -> None:
    counts = np.array([99, 16, 0, 4, 1])  # entry 0 is padding
    assert exposure_propensities(counts).tolist() == [0.0, 1.0, 0.0, 0.5, 0.25]
    assert exposure_propensities(counts, power=1.0).tolist() == [0.0, 1.0, 0.0, 0.25, 0.0625]
    assert exposure_propensities(counts, power=0.0).tolist() == [0.0, 1.0, 0.0, 1.0, 1.0]


def test_an_item_without_events_keeps_its_place() -> None:
    counts = item_counts(np.array([1, 3, 3, 3, 3]), 4)
    assert counts.tolist() == [0, 1, 0, 4, 0]
    assert exposure_propensities(counts).tolist() == [0.0, 0.5, 0.0, 1.0, 0.0]


def test_weights_by_hand() -> None:
    weight = inverse_propensity_weights(np.array([1.0, 0.5, 0.2, 0.1, 0.0]), clip=0.2)
    assert weight.dtype == np.float32
    assert weight.tolist() == [1.0, 2.0, 5.0, 5.0, 5.0]
    assert inverse_propensity_weights(np.zeros((2, 1))).tolist() == [[10.0], [10.0]]


@given(
    counts=st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any),
    power=st.floats(0.0, 2.0),
    clip=st.floats(0.01, 1.0),
)
def test_weights_are_capped_and_average_one(counts: list[int], power: float, clip: float) -> None:
    propensity = exposure_propensities(np.array([0, *counts]), power=power)
    weight = inverse_propensity_weights(propensity, clip=clip)
    assert weight.min() >= 1.0
    assert weight.max() <= np.float32(1 / clip)
    order = np.argsort(counts, kind="stable")
    assert (np.diff(weight[1:][order]) <= 0).all()  # rarer items never weigh less
    batch = normalised(torch.from_numpy(weight[1:]))
    assert float(batch.mean()) == pytest.approx(1.0, rel=1e-5)


def test_normalising_keeps_zeros_and_ratios() -> None:
    assert normalised(torch.tensor([1.0, 3.0, 0.0])).tolist() == pytest.approx([0.75, 2.25, 0.0])
    assert normalised(torch.zeros(3)).tolist() == [0.0] * 3


def test_weighted_clicks_are_relevance() -> None:
    """Clicks = exposure x relevance. The softmax's minimum is the share of (weighted) clicks.

    With one query and every item as a negative, the gradient vanishes at scores
    log(relevance) if and only if the clicks are weighted by the inverse exposure.
    """
    relevance = np.array([0.5, 0.2, 0.2, 0.1])
    exposures = np.array([0, 100, 1000, 50, 200])  # entry 0 is padding
    clicks = (exposures[1:] * relevance).astype(np.int64)
    item = np.repeat(np.arange(4), clicks)
    propensity = exposure_propensities(exposures, power=1.0)
    weights = {
        "inverse": inverse_propensity_weights(propensity[1:], clip=0.01)[item],
        "clipped": inverse_propensity_weights(propensity[1:], clip=0.5)[item],
        "none": np.ones(len(item), dtype=np.float32),
    }
    slope = {}
    for name, weight in weights.items():
        score = torch.from_numpy(np.log(relevance)).requires_grad_()
        loss = sampled_softmax(
            torch.ones(len(item), 1, dtype=torch.float64),
            score[item, None],
            score[:, None],
            include_positive=False,
            weight=torch.from_numpy(weight).double(),
        )
        (gradient,) = torch.autograd.grad(loss, score)
        slope[name] = float(gradient.norm())
    assert slope["inverse"] == pytest.approx(0.0, abs=1e-6)
    assert slope["inverse"] < 0.1 < slope["clipped"] < slope["none"]


@pytest.mark.parametrize(
    ("counts", "power", "message"),
    [
        (np.array([3]), 0.5, "N >= 1"),
        (np.zeros((2, 2)), 0.5, "N >= 1"),
        (np.array([0, -1, 2]), 0.5, "counts must be >= 0, got -1"),
        (np.array([5, 0, 0]), 0.5, "above 0 for at least one item"),
        (np.array([0, 1]), -0.5, "power must be >= 0"),
    ],
)
def test_propensities_refuse(counts: np.ndarray, power: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exposure_propensities(counts, power=power)


@pytest.mark.parametrize(
    ("propensity", "clip", "message"),
    [
        (np.array([0.5]), 0.0, "clip must be in"),
        (np.array([0.5]), 1.5, "clip must be in"),
        (np.array([0.5, 1.5]), 0.1, "propensity must be in"),
        (np.array([np.nan]), 0.1, "propensity must be in"),
    ],
)
def test_weights_refuse(propensity: np.ndarray, clip: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inverse_propensity_weights(propensity, clip=clip)
