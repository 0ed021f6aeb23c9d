"""A loss in strips equals the loss of the whole batch, value and gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recsys.retrieval.losses import ccl, in_strips, psl, sampled_softmax, strips

ROWS, NEGATIVES = 37, 11


def drawn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1).requires_grad_()


@pytest.fixture(params=[2**18, 200], ids=["one strip", "three strips"])
def entries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(strips, "_STRIP_ENTRIES", request.param)
    return int(request.param)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", [ccl, psl, sampled_softmax])
def test_equals_the_whole_batch(entries: int, loss: Callable[..., Tensor], weighted: bool) -> None:
    leaves = (drawn(ROWS, 5, seed=1), drawn(ROWS, 5, seed=2), drawn(NEGATIVES, 5, seed=3))
    generator = torch.Generator().manual_seed(4)
    known = torch.rand(ROWS, NEGATIVES, generator=generator) < 0.3
    weight = torch.rand(ROWS, generator=generator, dtype=torch.float64) if weighted else None
    if weight is not None:
        weight[:20] = 0.0  # a strip of nothing
    log_q = torch.rand(NEGATIVES, generator=generator, dtype=torch.float64).log()

    def strip(rows: slice, *vectors: Tensor) -> Tensor:
        *sides, part = vectors
        return loss(*sides, known_positive=known[rows], log_q=log_q, weight=part)

    whole = loss(*leaves, known_positive=known, log_q=log_q, weight=weight)
    ours = in_strips(strip, *leaves, weight=weight)
    torch.testing.assert_close(ours, whole)
    found = torch.autograd.grad(3.0 * ours, leaves)
    wanted = torch.autograd.grad(3.0 * whole, leaves)
    for got, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, expected)


def test_without_gradients_nothing_is_recorded() -> None:
    leaves = [drawn(ROWS, 5, seed=1), drawn(ROWS, 5, seed=2), drawn(NEGATIVES, 5, seed=3)]
    with torch.no_grad():
        found = in_strips(lambda _, q, p, n, w: psl(q, p, n, weight=w), *leaves)
    assert not found.requires_grad
    torch.testing.assert_close(found, psl(*leaves).detach())


def test_weights_of_nothing_give_nothing() -> None:
    leaves = [drawn(ROWS, 5, seed=1), drawn(ROWS, 5, seed=2), drawn(NEGATIVES, 5, seed=3)]
    weight = torch.zeros(ROWS, dtype=torch.float64)
    found = in_strips(lambda _, q, p, n, w: psl(q, p, n, weight=w), *leaves, weight=weight)
    assert found.item() == 0.0


def test_shapes_are_checked() -> None:
    query, negative = drawn(4, 5, seed=1), drawn(3, 5, seed=2)
    with pytest.raises(ValueError, match="query and candidate"):
        in_strips(lambda *_: query.sum(), query, query[:2], negative)
    with pytest.raises(ValueError, match="negative must be"):
        in_strips(lambda *_: query.sum(), query, query, negative[:, :2])
    with pytest.raises(ValueError, match="weight must have shape"):
        in_strips(lambda *_: query.sum(), query, query, negative, weight=torch.ones(3))
