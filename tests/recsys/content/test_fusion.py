from __future__ import annotations

import numpy as np
import pytest

from recsys.content.fusion import Fusion
from recsys.unit_rows import unit_rows


@pytest.fixture
def blocks() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    text = draw.normal(size=(200, 12)) + 5
    text[::4] = 0  # missing
    return [text, 100 * draw.normal(size=(200, 3))]


def test_unit_rows_keep_zero_rows() -> None:
    np.testing.assert_allclose(unit_rows(np.array([[3.0, 4.0], [0, 0]])), [[0.6, 0.8], [0, 0]])


def test_full_width_keeps_the_weighted_cosines(blocks: list[np.ndarray]) -> None:
    fused = Fusion(dim=15).fit(blocks, [2.0, 1.0]).transform(blocks)
    present = blocks[0].any(axis=1)
    text = np.where(present[:, None], blocks[0] - blocks[0][present].mean(axis=0), 0)
    number = blocks[1] - blocks[1].mean(axis=0)
    joined = [
        block * weight / np.sqrt((block**2).sum(axis=1).mean())
        for block, weight in ((text, 2.0), (number, 1.0))
    ]
    expected = unit_rows(np.concatenate(joined, axis=1))
    np.testing.assert_allclose(fused @ fused.T, expected @ expected.T, atol=1e-5)


def test_rows_are_unit_and_a_missing_block_is_neutral(blocks: list[np.ndarray]) -> None:
    fusion = Fusion(dim=8).fit(blocks, [1.0, 1.0])
    np.testing.assert_allclose(np.linalg.norm(fusion.transform(blocks), axis=1), 1, rtol=1e-5)
    nothing = [np.zeros((2, 12)), np.zeros((2, 3))]
    np.testing.assert_array_equal(fusion.transform(nothing), np.zeros((2, 8)))


def test_units_of_a_block_do_not_matter(blocks: list[np.ndarray]) -> None:
    one = Fusion(dim=8).fit(blocks, [1.0, 1.0]).transform(blocks)
    louder = [blocks[0], blocks[1] * 1000]
    other = Fusion(dim=8).fit(louder, [1.0, 1.0]).transform(louder)
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_weight_zero_removes_a_block(blocks: list[np.ndarray]) -> None:
    fusion = Fusion(dim=8).fit(blocks, [0.0, 1.0])
    changed = [blocks[0][::-1], blocks[1]]
    np.testing.assert_array_equal(fusion.transform(blocks), fusion.transform(changed))


def test_dimensions_beyond_the_rank_are_zero(blocks: list[np.ndarray]) -> None:
    fused = Fusion(dim=40).fit(blocks, [1.0, 1.0]).transform(blocks)
    assert fused.shape == (200, 40)
    assert not fused[:, 15:].any()
    assert fused[:, :15].any(axis=0).all()


def test_axes_are_sorted_and_signed(blocks: list[np.ndarray]) -> None:
    fusion = Fusion(dim=6).fit(blocks, [1.0, 1.0])
    basis = fusion.state()["basis"]
    assert (basis[np.abs(basis).argmax(axis=0), np.arange(6)] > 0).all()
    assert 0 < fusion.explained < 1
    assert Fusion(dim=15).fit(blocks, [1.0, 1.0]).explained == pytest.approx(1)


def test_refuses_bad_input(blocks: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="dim must be >= 1, got 0"):
        Fusion(dim=0)
    with pytest.raises(ValueError, match="got 1 weights for 2 blocks"):
        Fusion(dim=2).fit(blocks, [1.0])
    with pytest.raises(ValueError, match="weights must be finite and >= 0"):
        Fusion(dim=2).fit(blocks, [1.0, -1.0])
    with pytest.raises(ValueError, match="blocks must vary between items"):
        Fusion(dim=2).fit([np.ones((3, 2))], [1.0])
