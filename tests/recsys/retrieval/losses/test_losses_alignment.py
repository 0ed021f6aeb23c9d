"""Alignment and uniformity: references, closed forms, content that must not be moved."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.retrieval.losses import calibrated_uniformity, cm3, directau, mawu, uniformity

B, C, D = 6, 9, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain(value: Tensor | None) -> object:
    return None if value is None else value.tolist()


QUERY, CANDIDATE, NEGATIVE = drawn(B, D), drawn(B, D, seed=1), drawn(C, D, seed=2)
CONTENT = drawn(B, 3, seed=8)
WEIGHT = drawn(B, seed=3).abs()
MARGINS = drawn(B, seed=6), drawn(B, seed=7)

weights = pytest.mark.parametrize("weight", [None, WEIGHT])


@weights
@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
def test_directau_and_cm3_are_the_reference(
    reference: ModuleType, gamma: float, weight: Tensor | None
) -> None:
    pair = QUERY.tolist(), CANDIDATE.tolist()
    wanted = reference.directau(*pair, gamma, plain(weight))
    assert float(directau(QUERY, CANDIDATE, gamma=gamma, weight=weight)) == pytest.approx(wanted)
    own = {"gamma": gamma, "max_sim": 0.6}
    wanted = reference.cm3(*pair, CONTENT.tolist(), **own, weight=plain(weight))
    found = cm3(QUERY, CANDIDATE, content=CONTENT, **own, weight=weight)
    assert float(found) == pytest.approx(wanted)


@weights
def test_uniformities_are_the_reference(reference: ModuleType, weight: Tensor | None) -> None:
    for t in (0.5, 2.0):
        wanted = reference.uniformity(QUERY.tolist(), t, plain(weight))
        assert float(uniformity(QUERY, t=t, weight=weight)) == pytest.approx(wanted)
        for max_sim in (1.0, 0.3, 0.0):
            own = {"t": t, "max_sim": max_sim}
            found = calibrated_uniformity(QUERY, content=CONTENT, **own, weight=weight)
            wanted = reference.calibrated_uniformity(
                QUERY.tolist(), CONTENT.tolist(), **own, weight=plain(weight)
            )
            assert float(found) == pytest.approx(wanted)


@weights
def test_mawu_is_the_reference(reference: ModuleType, weight: Tensor | None) -> None:
    for shift in (-4.0, 0.0, 4.0):
        own = {"query_gamma": 0.7, "candidate_gamma": 0.2}
        found = mawu(
            QUERY,
            CANDIDATE,
            query_margin=MARGINS[0] + shift,
            candidate_margin=MARGINS[1],
            **own,
            weight=weight,
        )
        wanted = reference.mawu(
            QUERY.tolist(),
            CANDIDATE.tolist(),
            query_margin=(MARGINS[0] + shift).tolist(),
            candidate_margin=MARGINS[1].tolist(),
            **own,
            weight=plain(weight),
        )
        assert float(found) == pytest.approx(wanted)


def test_numbers_worked_out_by_hand() -> None:
    # Two orthogonal directions: distance^2 = 2, so exp(-2 * 2).
    assert float(uniformity(torch.eye(2))) == pytest.approx(-4.0)
    assert float(uniformity(torch.eye(2), t=1.0)) == pytest.approx(-2.0)
    assert float(uniformity(torch.ones(4, 3))) == pytest.approx(0.0, abs=1e-6)
    # Aligned pairs, orthogonal to each other: 0 + gamma * (-4 - 4) / 2.
    assert float(directau(torch.eye(2), torch.eye(2), gamma=0.5)) == pytest.approx(-2.0)
    # 60 degrees apart, margins of 0 widen the angle by a half.
    tilted = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5]])
    zero = torch.zeros(2)
    found = mawu(
        torch.eye(2)[[0, 0]],
        tilted,
        query_margin=zero,
        candidate_margin=zero,
        query_gamma=0.0,
        candidate_gamma=0.0,
    )
    wanted = -(math.cos(0.5) + math.cos(math.pi / 3 + 0.5)) / 2
    assert float(found) == pytest.approx(wanted, abs=1e-3)


def test_isotropic_vectors_have_the_known_uniformity() -> None:
    vectors = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert float(uniformity(vectors)) == pytest.approx(-3.875, abs=0.01)


@given(rows=st.integers(2, 8), t=st.floats(0.1, 5.0), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_calibration_has_its_closed_forms(rows: int, t: float, seed: int) -> None:
    vector = drawn(rows, D, seed=seed)
    apart = torch.zeros(rows, rows, dtype=torch.float64)
    plain_form = float(uniformity(vector, t=t)) + 2 * t
    assert float(calibrated_uniformity(vector, similarity=apart, t=t)) == pytest.approx(plain_form)
    # Cosines of vectors without negative entries are within [0, 1]; content like the vectors.
    positive = vector.abs()
    assert float(calibrated_uniformity(positive, content=3 * positive, t=t)) == pytest.approx(
        0.0, abs=1e-12
    )


@pytest.mark.parametrize("scaled", [0.1, 25.0])
def test_lengths_do_not_matter(scaled: float) -> None:
    margins = {"query_margin": MARGINS[0], "candidate_margin": MARGINS[1]}
    for loss in (
        lambda q, c: directau(q, c, gamma=0.7),
        lambda q, c: cm3(q, c, gamma=0.7, content=CONTENT),
        lambda q, c: mawu(q, c, **margins, query_gamma=0.7, candidate_gamma=0.2),
    ):
        wanted = float(loss(QUERY, CANDIDATE))
        assert float(loss(scaled * QUERY, CANDIDATE)) == pytest.approx(wanted)


def test_content_gets_no_gradient_and_more_of_it_weaker_repulsion() -> None:
    content = CONTENT.clone().requires_grad_()
    vector = QUERY.clone().requires_grad_()
    calibrated_uniformity(vector, content=content).backward()
    assert content.grad is None
    assert vector.grad is not None
    # Two look-alikes and a stranger: the stranger is pushed, the look-alikes hardly.
    pushed = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]], requires_grad=True)
    alike = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    calibrated_uniformity(pushed, similarity=alike).backward()
    assert pushed.grad is not None
    assert float(pushed.grad[2].norm()) > 1.2 * float(pushed.grad[1].norm())


def test_cm3_spreads_the_catalogue_if_it_is_given() -> None:
    content = drawn(C, 3, seed=9)
    found = cm3(QUERY, CANDIDATE, gamma=0.8, content=content, catalogue=NEGATIVE, weight=WEIGHT)
    aligned = directau(QUERY, CANDIDATE, gamma=0.0, weight=WEIGHT)
    spread = uniformity(QUERY, weight=WEIGHT) + calibrated_uniformity(NEGATIVE, content=content)
    assert float(found) == pytest.approx(float(aligned + 0.4 * spread))


def test_distinct_items_are_spread_once_each() -> None:
    item = torch.tensor([3, 1, 3, 2, 1, 5])
    candidate = CANDIDATE[torch.tensor([0, 1, 0, 3, 1, 5])]  # equal items, equal vectors
    aligned = directau(QUERY, candidate, gamma=0.0)
    spread = uniformity(QUERY) + uniformity(candidate[[0, 1, 3, 5]])
    found = directau(QUERY, candidate, gamma=0.6, candidate_index=item)
    assert float(found) == pytest.approx(float(aligned + 0.3 * spread))
    weight = torch.tensor([1.0, 2.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    aligned = directau(QUERY, candidate, gamma=0.0, weight=weight)
    spread = uniformity(QUERY, weight=weight) + uniformity(candidate[[0, 1, 5]])
    found = directau(QUERY, candidate, gamma=0.6, candidate_index=item, weight=weight)
    assert float(found) == pytest.approx(float(aligned + 0.3 * spread))
    # One item alone has nothing to be spread from.
    one = directau(QUERY, candidate, gamma=0.6, candidate_index=torch.full((B,), 7))
    wanted = directau(QUERY, candidate, gamma=0.0) + 0.3 * uniformity(QUERY)
    assert float(one) == pytest.approx(float(wanted))


def test_low_margins_pull_harder() -> None:
    """At the same angle, the pair whose margins are low has the steeper slope."""
    slope = []
    for margin in (0.0, 1.0):
        query = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
        margins = torch.full((2,), margin)
        mawu(
            query,
            torch.tensor([[0.9, 0.4], [0.4, 0.9]]),
            query_margin=margins,
            candidate_margin=margins,
            query_gamma=0.0,
            candidate_gamma=0.0,
        ).backward()
        assert query.grad is not None
        slope.append(float(query.grad.norm()))
    assert slope[0] > slope[1]


def test_matching_directions_have_finite_gradients() -> None:
    query = torch.randn(B, D, generator=torch.Generator().manual_seed(0)).requires_grad_()
    zero = torch.zeros(B)
    mawu(
        query,
        query.detach().clone(),
        query_margin=zero,
        candidate_margin=zero,
        query_gamma=0.5,
        candidate_gamma=0.5,
    ).backward()
    assert query.grad is not None
    assert bool(torch.isfinite(query.grad).all())


def call_mawu(**replaced: object) -> Tensor:
    given = {"query_margin": MARGINS[0], "candidate_margin": MARGINS[1]}
    given |= {"query_gamma": 1.0, "candidate_gamma": 1.0}
    return mawu(QUERY, CANDIDATE, **(given | replaced))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: directau(QUERY, CANDIDATE, gamma=-1.0), "gamma must be >= 0"),
        (lambda: directau(QUERY, CANDIDATE[:2], gamma=1.0), "must both be"),
        (lambda: directau(QUERY[:1], CANDIDATE[:1], gamma=1.0), "B >= 2"),
        (
            lambda: directau(QUERY, CANDIDATE, gamma=1.0, candidate_index=torch.arange(2)),
            "candidate_index must have shape",
        ),
        (lambda: uniformity(QUERY, t=0.0), "t must be > 0"),
        (lambda: uniformity(QUERY[:1]), r"vector must be \[B >= 2, D\], got shape \(1, "),
        (lambda: uniformity(QUERY[0]), r"vector must be \[B >= 2, D\], got shape"),
        (lambda: uniformity(QUERY, weight=WEIGHT[:2]), "weight must have shape"),
        (lambda: call_mawu(query_margin=WEIGHT[:2]), "query_margin must have shape"),
        (lambda: call_mawu(candidate_margin=WEIGHT[:2]), "candidate_margin must have shape"),
        (lambda: call_mawu(query_gamma=-1.0), "query_gamma must be >= 0"),
        (lambda: call_mawu(candidate_gamma=-1.0), "candidate_gamma must be >= 0"),
        (lambda: calibrated_uniformity(QUERY), "exactly one of content and similarity"),
        (
            lambda: calibrated_uniformity(QUERY, content=CONTENT, similarity=CONTENT),
            "exactly one of content and similarity",
        ),
        (lambda: calibrated_uniformity(QUERY, content=CONTENT[:2]), "content must be"),
        (lambda: calibrated_uniformity(QUERY, similarity=CONTENT), "similarity must have shape"),
        (lambda: calibrated_uniformity(QUERY, content=CONTENT, max_sim=2.0), "max_sim must be"),
        (lambda: calibrated_uniformity(QUERY, content=CONTENT, t=-1.0), "t must be > 0"),
        (lambda: cm3(QUERY, CANDIDATE, gamma=-1.0, content=CONTENT), "gamma must be >= 0"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
