from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.geometry import alignment, rankme, uniformity
from recsys.retrieval import losses


def isotropic(seed: int, rows: int = 4_000, dim: int = 64) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((rows, dim))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def rotation(seed: int, dim: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


@pytest.mark.parametrize("dim", [1, 2, 64])
def test_orthonormal_rows_have_full_rank(dim: int) -> None:
    assert rankme(rotation(0, dim)) == pytest.approx(dim, abs=1e-3)


def test_one_direction_has_rank_one(rng: np.random.Generator) -> None:
    line = np.outer(rng.standard_normal(100), rng.standard_normal(64))
    assert rankme(line) == pytest.approx(1.0, abs=1e-3)
    assert rankme(line.astype(np.float32)) == pytest.approx(1.0, abs=1e-3)
    assert rankme(np.zeros((3, 4))) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_isotropic_vectors(seed: int) -> None:
    vectors = isotropic(seed)
    assert uniformity(vectors) == pytest.approx(-3.875, abs=0.01)
    assert rankme(vectors) == pytest.approx(63.9, abs=0.1)


def test_rankme_of_two_unequal_directions() -> None:
    # Singular values 3 and 1: entropy of (3/4, 1/4).
    wanted = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert rankme(np.diag([3.0, 1.0])) == pytest.approx(wanted, rel=1e-6)


def test_eps_stands_outside_the_fraction() -> None:
    share = np.array([0.75, 0.25]) + 0.1
    wanted = np.exp(-(share * np.log(share)).sum())
    assert rankme(np.diag([3.0, 1.0]), eps=0.1) == pytest.approx(wanted, rel=1e-9)


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 6), st.floats(0.1, 50.0))
def test_rankme_stays_in_range_and_knows_no_scale_or_rotation(
    seed: int, rows: int, dim: int, scale: float
) -> None:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim))
    found = rankme(vectors)
    assert 1.0 - 1e-6 <= found <= min(rows, dim) + 1e-6
    assert rankme(scale * vectors @ rotation(seed, dim)) == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("rows", [2, 37, 600])  # 600: more than one block
@pytest.mark.parametrize("t", [2.0, 0.5])
def test_uniformity_is_the_loss(rng: np.random.Generator, rows: int, t: float) -> None:
    vectors = rng.standard_normal((rows, 5))
    wanted = losses.uniformity(torch.from_numpy(vectors), t=t)
    assert uniformity(vectors, t=t) == pytest.approx(float(wanted), rel=1e-9)


def test_uniformity_by_hand() -> None:
    assert uniformity(np.full((1_000, 8), 3.0)) == pytest.approx(0.0, abs=1e-9)
    assert uniformity(np.array([[2.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0)
    assert uniformity(np.array([[2.0, 0.0], [0.0, 1.0]]), t=1.0) == pytest.approx(-2.0)


def test_alignment_by_hand() -> None:
    query = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    candidate = np.array([[1.0, 0.0], [5.0, 0.0], [-4.0, 0.0]])
    for row, wanted in enumerate([0.0, 2.0, 4.0]):
        found = alignment(query[row : row + 1], candidate[row : row + 1])
        assert found == pytest.approx(wanted, abs=1e-12)
    assert alignment(query, candidate) == pytest.approx(2.0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"both be \[B >= 1, D\], got \(2, 3\) and \(2, 4\)"):
        alignment(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"both be \[B >= 1, D\], got \(0, 3\) and \(0, 3\)"):
        alignment(np.ones((0, 3)), np.ones((0, 3)))
    with pytest.raises(ValueError, match=r"vectors must be \[B >= 2, D\], got shape \(1, 3\)"):
        uniformity(np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"t must be > 0, got 0.0"):
        uniformity(np.ones((2, 3)), t=0.0)
    with pytest.raises(ValueError, match=r"\[B >= 1, D >= 1\], got shape \(0, 3\)"):
        rankme(np.ones((0, 3)))
