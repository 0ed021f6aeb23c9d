"""BPR, the cosine contrastive loss and the AUC term: references, limits, what only they feel."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from recsys.retrieval.losses import bpr, ccl, mann_whitney, sampled_softmax

B, C, D = 6, 9, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain(value: Tensor | None) -> object:
    return None if value is None else value.tolist()


QUERY, CANDIDATE, NEGATIVE = drawn(B, D), drawn(B, D, seed=1), drawn(C, D, seed=2)
WEIGHT, LOG_Q = drawn(B, seed=3).abs(), drawn(C, seed=4)
KNOWN = drawn(B, C, seed=5) > 0.5
KNOWN[2] = True  # a query without any negative
VECTORS = (QUERY, CANDIDATE, NEGATIVE)
LISTS = tuple(vectors.tolist() for vectors in VECTORS)

masks = pytest.mark.parametrize("mask", [None, KNOWN])
weights = pytest.mark.parametrize("weight", [None, WEIGHT])


@weights
def test_bpr_is_the_reference(reference: ModuleType, weight: Tensor | None) -> None:
    wanted = reference.bpr(QUERY[:, 0].tolist(), CANDIDATE[:, 0].tolist(), plain(weight))
    assert float(bpr(QUERY[:, 0], CANDIDATE[:, 0], weight=weight)) == pytest.approx(wanted)


@masks
@weights
@pytest.mark.parametrize("log_q", [None, LOG_Q])
def test_ccl_is_the_reference(
    reference: ModuleType, mask: Tensor | None, weight: Tensor | None, log_q: Tensor | None
) -> None:
    for margin, negative_weight in ((0.9, 150.0), (-0.2, 0.5)):
        own = {"margin": margin, "negative_weight": negative_weight}
        found = ccl(*VECTORS, **own, log_q=log_q, known_positive=mask, weight=weight)
        wanted = reference.ccl(
            *LISTS, **own, log_q=plain(log_q), known_positive=plain(mask), weight=plain(weight)
        )
        assert float(found) == pytest.approx(wanted)


def test_ccl_pushes_only_what_is_above_the_margin() -> None:
    query, candidate = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    negative = torch.tensor([[0.8, 0.6], [0.5, 0.75**0.5]], requires_grad=True)
    loss = ccl(query, candidate, negative, margin=0.7, negative_weight=10.0)
    assert float(loss.detach()) == pytest.approx(0.4 + 10.0 * 0.1 / 2)
    loss.backward()
    assert negative.grad is not None
    assert negative.grad[:, 0].tolist() == [5.0, 0.0]


@masks
@weights
def test_mann_whitney_is_the_reference(
    reference: ModuleType, mask: Tensor | None, weight: Tensor | None
) -> None:
    found = mann_whitney(*VECTORS, temperature=0.3, known_positive=mask, weight=weight)
    wanted = reference.mann_whitney(
        *LISTS, temperature=0.3, known_positive=plain(mask), weight=plain(weight)
    )
    assert float(found) == pytest.approx(wanted)


def test_mann_whitney_bounds_the_pooled_auc() -> None:
    positive = (QUERY * CANDIDATE).sum(dim=1)
    above = (QUERY @ NEGATIVE.T).flatten()[None, :] > positive[:, None]
    for temperature in (2.0, 0.1):
        loss = mann_whitney(*VECTORS, temperature=temperature)
        assert float(above.double().mean()) <= float(loss) / math.log(2)


def test_mann_whitney_feels_an_offset_of_one_query_and_a_softmax_does_not() -> None:
    """A last coordinate of 1 for items adds the query's last coordinate to all of its scores."""

    def with_offset(offset: float) -> tuple[Tensor, ...]:
        shift = torch.zeros(B, 1, dtype=torch.float64)
        shift[0] = offset
        ones = [torch.ones(n, 1, dtype=torch.float64) for n in (B, C)]
        return (
            torch.cat([QUERY, shift], dim=1),
            torch.cat([CANDIDATE, ones[0]], dim=1),
            torch.cat([NEGATIVE, ones[1]], dim=1),
        )

    softmax = [float(sampled_softmax(*with_offset(offset))) for offset in (0.0, 5.0)]
    assert softmax[0] == pytest.approx(softmax[1])
    pooled = [float(mann_whitney(*with_offset(offset))) for offset in (0.0, 5.0)]
    assert pooled[1] > pooled[0] + 0.1


def test_drawn_scores_estimate_all_of_them() -> None:
    everything = float(mann_whitney(*VECTORS, known_positive=KNOWN))
    generator = torch.Generator().manual_seed(0)
    found = torch.stack(
        [
            mann_whitney(*VECTORS, known_positive=KNOWN, max_scores=20, generator=generator)
            for _ in range(400)
        ]
    )
    assert len(found.unique()) > 100
    error = float(found.std()) / math.sqrt(len(found))
    assert float(found.mean()) == pytest.approx(everything, abs=4 * error)
    again = [
        mann_whitney(*VECTORS, max_scores=20, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert float(again[0]) == float(again[1])


def test_no_negative_left_is_no_loss() -> None:
    query = QUERY.clone().requires_grad_()
    everything = torch.ones(B, C, dtype=torch.bool)
    loss = mann_whitney(query, CANDIDATE, NEGATIVE, known_positive=everything)
    loss.backward()
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bpr(QUERY[:, 0], QUERY[:2, 0]), "negative_score must have the shape"),
        (lambda: ccl(*VECTORS, margin=1.5), "margin must be a cosine"),
        (lambda: ccl(*VECTORS, negative_weight=-1.0), "negative_weight must be >= 0"),
        (lambda: ccl(*VECTORS, log_q=LOG_Q[:2]), "log_q must have shape"),
        (lambda: mann_whitney(*VECTORS, temperature=0.0), "temperature must be > 0"),
        (lambda: mann_whitney(*VECTORS, max_scores=0), "max_scores must be >= 1"),
        (lambda: mann_whitney(*VECTORS, max_scores=10), "generator must be given"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
