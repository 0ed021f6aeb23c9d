"""What holds for every loss: the gradient, the order of the batch, padding, weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from recsys.retrieval.losses import (
    bpr,
    bsl,
    ccl,
    cm3,
    directau,
    in_batch_softmax,
    mann_whitney,
    mawu,
    psl,
    sampled_softmax,
    sl_at_k,
    weighted_mean,
)
from recsys.retrieval.training.objectives import OBJECTIVES

B, C, D = 6, 9, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Inputs(NamedTuple):
    """One batch; every field but the negatives, their log_q and margins has a row an example."""

    query: Tensor
    candidate: Tensor
    negative: Tensor
    log_q: Tensor
    known: Tensor
    weight: Tensor
    user: Tensor
    item: Tensor
    first: Tensor
    second: Tensor
    content: Tensor

    def rows(self, order: Tensor) -> Inputs:
        """The examples ``order``."""
        shared = ("negative", "log_q")
        return Inputs(
            **{
                name: value if name in shared else value[order]
                for name, value in self._asdict().items()
            }
        )


INPUTS = Inputs(
    query=drawn(B, D),
    candidate=drawn(B, D, seed=1),
    negative=drawn(C, D, seed=2),
    log_q=drawn(C, seed=4),
    known=drawn(B, C, seed=5) > 0.5,
    weight=drawn(B, seed=3).abs(),
    user=torch.tensor([4, 1, 4, 2, 1, 3]),
    item=torch.tensor([3, 1, 3, 2, 1, 5]),
    first=drawn(B, seed=6),
    second=drawn(B, seed=7),
    content=drawn(B, 3, seed=8),
)


def score(x: Inputs) -> Tensor:
    return (x.query * x.candidate).sum(dim=1)


CALLS: dict[str, Callable[[Inputs], Tensor]] = {
    "bpr": lambda x: bpr(score(x), x.query @ x.negative[0], weight=x.weight),
    "bsl": lambda x: bsl(
        x.query,
        x.candidate,
        x.negative,
        temperature=0.5,
        negative_weight=1.2,
        query_index=x.user,
        log_q=x.log_q,
        known_positive=x.known,
        weight=x.weight,
    ),
    "ccl": lambda x: ccl(
        x.query,
        x.candidate,
        x.negative,
        margin=0.2,
        negative_weight=3.0,
        log_q=x.log_q,
        known_positive=x.known,
        weight=x.weight,
    ),
    "cm3": lambda x: cm3(x.query, x.candidate, gamma=0.7, content=x.content, weight=x.weight),
    "directau": lambda x: directau(x.query, x.candidate, gamma=0.7, weight=x.weight),
    "in_batch_softmax": lambda x: in_batch_softmax(
        x.query,
        x.candidate,
        temperature=0.5,
        log_q=x.first,
        candidate_index=x.item,
        weight=x.weight,
    ),
    "mann_whitney": lambda x: mann_whitney(
        x.query,
        x.candidate,
        x.negative,
        temperature=0.5,
        known_positive=x.known,
        weight=x.weight,
    ),
    "mawu": lambda x: mawu(
        x.query,
        x.candidate,
        query_margin=x.first,
        candidate_margin=x.second,
        query_gamma=0.7,
        candidate_gamma=0.2,
        weight=x.weight,
    ),
    "psl": lambda x: psl(
        x.query,
        x.candidate,
        x.negative,
        sigma="tanh",
        temperature=0.5,
        log_q=x.log_q,
        known_positive=x.known,
        weight=x.weight,
    ),
    "sampled_softmax": lambda x: sampled_softmax(
        x.query,
        x.candidate,
        x.negative,
        temperature=0.5,
        log_q=x.log_q,
        known_positive=x.known,
        weight=x.weight,
    ),
    "sl_at_k": lambda x: sl_at_k(
        x.query,
        x.candidate,
        x.negative,
        threshold=x.first,
        temperature=0.5,
        threshold_temperature=0.8,
        log_q=x.log_q,
        known_positive=x.known,
        weight=x.weight,
    ),
}
WITH_SHARED_NEGATIVES = ["bsl", "ccl", "mann_whitney", "psl", "sampled_softmax", "sl_at_k"]


def test_every_loss_has_a_way_to_be_fed() -> None:
    assert set(OBJECTIVES) == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_gradient_is_the_slope(name: str) -> None:
    def call(query: Tensor, candidate: Tensor, negative: Tensor, first: Tensor) -> Tensor:
        return CALLS[name](
            INPUTS._replace(query=query, candidate=candidate, negative=negative, first=first)
        )

    given = (INPUTS.query, INPUTS.candidate, INPUTS.negative, INPUTS.first)
    assert torch.autograd.gradcheck(call, [value.clone().requires_grad_() for value in given])


@pytest.mark.parametrize("name", CALLS)
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    order = torch.randperm(B, generator=torch.Generator().manual_seed(0))
    wanted = float(CALLS[name](INPUTS))
    assert float(CALLS[name](INPUTS.rows(order))) == pytest.approx(wanted)


@pytest.mark.parametrize("name", CALLS)
def test_only_ratios_of_weights_matter(name: str) -> None:
    scaled = INPUTS._replace(weight=3.0 * INPUTS.weight)
    other = INPUTS._replace(weight=INPUTS.weight.flip(0))
    wanted = float(CALLS[name](INPUTS))
    assert float(CALLS[name](scaled)) == pytest.approx(wanted)
    assert float(CALLS[name](other)) != pytest.approx(wanted)


@pytest.mark.parametrize("name", CALLS)
def test_an_example_of_weight_zero_is_padding(name: str) -> None:
    padded = INPUTS.rows(torch.tensor([*range(B), 2]))
    padded = padded._replace(
        query=torch.cat([INPUTS.query, drawn(1, D, seed=20)]),
        weight=torch.cat([INPUTS.weight, torch.zeros(1, dtype=torch.float64)]),
        # an AUC has the negatives of all queries, and a batch all its candidates, but for a mask
        known=torch.cat([INPUTS.known, torch.ones(1, C, dtype=torch.bool)]),
    )
    if name == "in_batch_softmax":
        padded = padded._replace(first=torch.cat([INPUTS.first, torch.tensor([1e6])]))
    assert float(CALLS[name](padded)) == pytest.approx(float(CALLS[name](INPUTS)))


@pytest.mark.parametrize("name", CALLS)
def test_weights_that_are_all_zero_give_no_step(name: str) -> None:
    query = INPUTS.query.clone().requires_grad_()
    inputs = INPUTS._replace(query=query, weight=torch.zeros(B, dtype=torch.float64))
    loss = CALLS[name](inputs)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert query.grad is not None
    assert float(query.grad.abs().sum()) == 0.0


@pytest.mark.parametrize("name", WITH_SHARED_NEGATIVES)
def test_a_masked_negative_is_absent(name: str) -> None:
    """Its draw is not: counts have mean 1 over all that were drawn, so compare without log_q."""
    plain = INPUTS._replace(log_q=torch.zeros(C, dtype=torch.float64))
    padded = plain._replace(
        negative=torch.cat([plain.negative, torch.full((2, D), 50.0, dtype=torch.float64)]),
        log_q=torch.zeros(C + 2, dtype=torch.float64),
        known=torch.cat([plain.known, torch.ones(B, 2, dtype=torch.bool)], dim=1),
    )
    assert float(CALLS[name](padded)) == pytest.approx(float(CALLS[name](plain)))


@pytest.mark.parametrize("name", WITH_SHARED_NEGATIVES)
def test_a_query_without_negatives_has_a_finite_gradient(name: str) -> None:
    query = INPUTS.query.clone().requires_grad_()
    known = INPUTS.known.clone()
    known[2] = True
    loss = CALLS[name](INPUTS._replace(query=query, known=known))
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert query.grad is not None
    assert bool(torch.isfinite(query.grad).all())


@pytest.mark.parametrize("name", ["bsl", "ccl", "psl", "sampled_softmax", "sl_at_k"])
def test_only_differences_of_log_q_matter(name: str) -> None:
    wanted = float(CALLS[name](INPUTS))
    shifted = INPUTS._replace(log_q=INPUTS.log_q + 3.0)
    other = INPUTS._replace(log_q=2.0 * INPUTS.log_q)
    assert float(CALLS[name](shifted)) == pytest.approx(wanted)
    assert float(CALLS[name](other)) != pytest.approx(wanted)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("bpr", math.log(2)),
        ("bsl", 1.2 * math.log(C)),
        ("ccl", 1.0),
        ("in_batch_softmax", math.log(B)),
        ("mann_whitney", math.log(2)),
        ("psl", math.log(C)),
        ("sampled_softmax", math.log(1 + C)),
        ("sl_at_k", math.log(C) / 2),
    ],
)
def test_vectors_of_zeros_have_the_known_loss(name: str, wanted: float) -> None:
    inputs = Inputs(*(torch.zeros_like(value) for value in INPUTS))
    inputs = inputs._replace(weight=INPUTS.weight, item=torch.arange(B))
    assert float(CALLS[name](inputs)) == pytest.approx(wanted)


def test_float32_agrees_with_float64() -> None:
    single = Inputs(*(v.float() if v.is_floating_point() else v for v in INPUTS))
    for name, call in CALLS.items():
        assert call(single).dtype == torch.float32
        assert float(call(single)) == pytest.approx(float(call(INPUTS)), rel=1e-4), name


def test_a_weighted_mean_by_hand() -> None:
    assert float(weighted_mean(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0]))) == 2.0
    assert float(weighted_mean(torch.tensor([1.0, 5.0]), torch.zeros(2))) == 0.0
    with pytest.raises(ValueError, match="weight must have one entry per example"):
        weighted_mean(torch.ones(3), torch.ones(2))


@pytest.mark.parametrize("name", WITH_SHARED_NEGATIVES)
def test_wrong_shapes_are_named(name: str) -> None:
    for replaced, message in (
        ({"candidate": INPUTS.candidate[:2]}, "query and candidate must both be"),
        ({"negative": INPUTS.negative[:, :2]}, "negative must be"),
        ({"known": INPUTS.known[:2]}, "known_positive must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            CALLS[name](INPUTS._replace(**replaced))
