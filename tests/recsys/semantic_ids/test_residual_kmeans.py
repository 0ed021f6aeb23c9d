from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from recsys.semantic_ids import ResidualKMeans
from recsys.semantic_ids.codebook import nearest_codes, squared_distances


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_two_levels_by_hand() -> None:
    # Two coarse places (0 and 100), each with a point 1 left and 1 right of it.
    vectors = np.array([[-1.0], [1], [99], [101]], dtype=np.float32)
    quantizer = ResidualKMeans(num_levels=2, num_codes=2).fit(vectors, generator=generator())
    codes = quantizer.assign(vectors)
    assert codes[0, 0] == codes[1, 0] != codes[2, 0] == codes[3, 0]
    assert codes[0, 1] == codes[2, 1] != codes[1, 1] == codes[3, 1]
    np.testing.assert_allclose(quantizer.decode(codes), vectors, atol=1e-5)
    # A new item keeps the codes of the place it is near.
    assert quantizer.assign(np.array([[103.0]])).tolist() == [codes[3].tolist()]


@pytest.mark.parametrize("by_direction", [True, False])
@pytest.mark.parametrize("reduced_dim", [None, 8])
def test_mean_residual_never_grows_with_levels(by_direction: bool, reduced_dim: int | None) -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 24)).astype(np.float32)
    quantizer = ResidualKMeans(
        num_levels=4, num_codes=16, by_direction=by_direction, reduced_dim=reduced_dim
    ).fit(vectors, generator=generator())
    codes = quantizer.assign(vectors)
    decoded = [ResidualKMeans.decode(_cut(quantizer, n), codes[:, :n]) for n in range(1, 5)]
    error = [float(((vectors - d) ** 2).sum(axis=1).mean()) for d in decoded]
    error.insert(0, float(((vectors - vectors.mean(axis=0)) ** 2).sum(axis=1).mean()))
    assert all(later < earlier for earlier, later in itertools.pairwise(error))


def _cut(quantizer: ResidualKMeans, num_levels: int) -> ResidualKMeans:
    """The same codebooks, fewer levels."""
    cut = ResidualKMeans(num_levels=num_levels, num_codes=quantizer.num_codes)
    cut._arrays = quantizer._arrays
    return cut


def test_directions_repair_the_degenerate_level() -> None:
    # Near-isotropic residuals in 128 dimensions: plain k-means makes one giant cluster.
    vectors = np.random.default_rng(0).normal(size=(1500, 128)).astype(np.float32)
    plain, repaired = (
        ResidualKMeans(num_levels=3, num_codes=64, reduced_dim=None, by_direction=by_direction)
        .fit(vectors, generator=generator())
        .assign(vectors)
        for by_direction in (False, True)
    )
    largest = [np.bincount(codes[:, 2], minlength=64).max() for codes in (plain, repaired)]
    assert largest[0] > 0.3 * 1500
    assert largest[1] < 0.1 * 1500


def test_nearest_code_is_the_least_squared_distance() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(5000, 6)).astype(np.float32)
    codebook = draw.normal(size=(9, 6)).astype(np.float32)
    loops = ((vectors[:, None].astype(float) - codebook[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(nearest_codes(vectors, codebook), loops.argmin(axis=1))
    np.testing.assert_allclose(squared_distances(vectors, codebook), loops, atol=1e-4)
    # Equal codes: the lower one.
    assert nearest_codes(np.zeros((1, 2)), np.zeros((3, 2))).tolist() == [0]


def test_refuses_bad_settings() -> None:
    with pytest.raises(ValueError, match="num_levels must be >= 1, got 0"):
        ResidualKMeans(num_levels=0)
    with pytest.raises(ValueError, match="num_codes must be >= 2, got 1"):
        ResidualKMeans(num_codes=1)
    with pytest.raises(ValueError, match="reduced_dim must be >= 1 or None, got 0"):
        ResidualKMeans(reduced_dim=0)
