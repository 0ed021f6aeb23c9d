from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from recsys.semantic_ids import ResidualKMeans, diagnose
from recsys.semantic_ids.diagnostics import perplexity


class Fixed:
    """Decodes every id to the same vector."""

    num_codes = 4

    def __init__(self, vector: list[float]) -> None:
        self.vector = vector

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return np.tile(np.array(self.vector), (len(codes), 1))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_perplexity_by_hand() -> None:
    assert perplexity(np.array([3, 3, 3, 3])) == pytest.approx(4)
    assert perplexity(np.array([7, 0, 0])) == pytest.approx(1)
    # p = 3/4, 1/4: exp(.75 ln(4/3) + .25 ln 4).
    assert perplexity(np.array([3, 1])) == pytest.approx((4 / 3) ** 0.75 * 4**0.25)


def test_all_figures_by_hand() -> None:
    vectors = np.array([[1.0, 0], [0, 1], [1, 0], [-1, 0]])
    codes = np.array([[0, 0], [0, 1], [0, 0], [1, 2]])
    found = diagnose(codes, vectors, Fixed([0, 0]), rng=rng(), labels=["x", "y", "x", "x"])  # type: ignore[arg-type]
    assert found.usage == (0.5, 0.75)
    assert found.perplexity == pytest.approx(((4 / 3) ** 0.75 * 4**0.25, 4**0.5 * 2**0.5))
    assert found.collision_rate == 0.25
    assert found.items_in_collision == 0.5
    assert found.max_group == 2
    # Mean (1/4, 1/4): variance 4 - 4 / 8; error of the zero vector 4.
    assert found.relative_error == pytest.approx(4 / 3.5)
    first, second = found.prefixes
    assert (first.depth, first.num_prefixes) == (1, 2)
    # Pairs of the first group: (1,0)(0,1), (1,0)(1,0), (0,1)(1,0): cosines 0, 1, 0.
    assert first.cosine == pytest.approx(1 / 3)
    assert first.purity == 0.75
    assert (second.cosine, second.purity) == (pytest.approx(1), 1)
    assert second.shuffled_purity is not None
    assert second.corrected_purity == 1


def test_random_codes_are_pure_only_by_chance() -> None:
    draw = rng()
    vectors = draw.normal(size=(300, 8)).astype(np.float32)
    labels = [str(v) for v in draw.integers(0, 3, 300)]
    codes = draw.integers(0, 16, (300, 2))
    model = Fixed([0.0] * 8)
    model.num_codes = 16
    second = diagnose(codes, vectors, model, rng=draw, labels=labels).prefixes[1]  # type: ignore[arg-type]
    assert second.purity is not None
    assert second.corrected_purity is not None
    assert second.purity > 0.7
    assert abs(second.corrected_purity) < 0.2
    assert abs(second.cosine - second.shuffled_cosine) < 0.1


def test_planted_clusters_are_pure(planted) -> None:
    vectors, cluster = planted
    quantizer = ResidualKMeans(num_codes=8)
    quantizer.fit(vectors, generator=torch.Generator().manual_seed(0))
    found = diagnose(
        quantizer.assign(vectors), vectors, quantizer, rng=rng(), labels=[str(c) for c in cluster]
    )
    cosine = [prefix.cosine for prefix in found.prefixes]
    assert cosine == sorted(cosine)
    assert found.prefixes[0].corrected_purity > 0.8
    assert found.prefixes[0].cosine > found.prefixes[0].shuffled_cosine + 0.5
    assert found.problems(max_collision_rate=1) == []


def test_one_crowded_code_is_a_problem_though_all_are_used() -> None:
    codes = np.zeros((400, 1), dtype=np.int64)
    codes[:3, 0] = [1, 2, 3]
    found = diagnose(codes, rng().normal(size=(400, 2)), Fixed([0, 0]), rng=rng())  # type: ignore[arg-type]
    assert found.usage == (1.0,)
    problems = found.problems(min_perplexity_share=0.5)
    assert len(problems) == 2
    assert "level 0 has collapsed: perplexity 1.1 of 4, want >= 2.0" in problems[0]
    assert "collision rate is 0.990, want <= 0.2" in problems[1]


def test_goes_into_json_without_nan() -> None:
    # Distinct codes: no pair shares a prefix, so there is no cosine.
    found = diagnose(np.array([[0], [1]]), np.eye(2), Fixed([0, 0]), rng=rng())  # type: ignore[arg-type]
    assert math.isnan(found.prefixes[0].cosine)
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert plain["prefixes"][0]["cosine"] is None
    assert plain["prefixes"][0]["purity"] is None
    assert plain["perplexity"] == [pytest.approx(2)]


def test_refuses_bad_input() -> None:
    codes, vectors = np.zeros((2, 1), dtype=np.int64), np.eye(2)
    with pytest.raises(ValueError, match="got 2 rows for 3 vectors"):
        diagnose(codes, np.eye(3), Fixed([0, 0]), rng=rng())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one: got 0 rows"):
        diagnose(codes[:0], vectors[:0], Fixed([0, 0]), rng=rng())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="labels must be one per item: got 1 for 2"):
        diagnose(codes, vectors, Fixed([0, 0]), rng=rng(), labels=["x"])  # type: ignore[arg-type]
