from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.retrieval.towers.pooling import AttentionPooling, pool_events
from recsys.retrieval.towers.windows import pool_weights

HALF_LIVES = (math.inf, 2.0)
DIM = 4


def windows(rows: list[list[int]], length: int) -> Tensor:
    return torch.tensor([[0] * (length - len(row)) + row for row in rows])


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def made_attention(*, learned: bool = False) -> AttentionPooling:
    pooling = AttentionPooling(
        DIM, HALF_LIVES, history_length=6, generator=torch.Generator().manual_seed(0)
    )
    if learned:
        pooling.head.data = drawn(2, DIM, seed=1)
        pooling.age_bias.data = drawn(*pooling.age_bias.shape, seed=2)
    return pooling


@given(
    st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=4), st.integers(0, 99)
)
def test_pools_by_plain_loops(rows: list[list[int]], seed: int) -> None:
    place = windows(rows, 5)  # holes too: hidden events are zeros inside a window
    vector, weight = drawn(7, DIM, seed=seed), drawn(2, len(rows), 5, seed=seed + 1)
    found = pool_events(vector, place, weight)
    for p in range(2):
        for b in range(len(rows)):
            wanted = torch.zeros(DIM)
            for t in range(5):
                if place[b, t]:
                    wanted = wanted + weight[p, b, t] * vector[place[b, t]]
            torch.testing.assert_close(found[p, b], wanted)


def test_gradients_of_vectors_and_weights() -> None:
    place = windows([[3, 1, 3], [], [2, 0, 3, 5]], 4)
    vector = drawn(6, 3, dtype=torch.float64).requires_grad_()
    weight = drawn(2, 3, 4, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, w: pool_events(v, place, w), (vector, weight))
    pool_events(vector, place, weight).sum().backward()
    assert vector.grad is not None
    assert not vector.grad[[0, 4]].any()  # padding, and an item nobody met


def test_nothing_but_empty_windows() -> None:
    vector = drawn(3, DIM).requires_grad_()
    for place in (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.int64)):
        pools = pool_events(vector, place, torch.zeros(1, *place.shape))
        assert pools.shape == (1, 2, DIM)
        assert not pools.any()
        pools.sum().backward()
    assert vector.grad is not None
    assert not vector.grad.any()


def test_weights_must_fit_the_windows() -> None:
    with pytest.raises(ValueError, match=r"weight must be \[P, B, T\].*\(1, 2, 4\).*\(2, 3\)"):
        pool_events(drawn(3, DIM), torch.ones(2, 3, dtype=torch.int64), torch.ones(1, 2, 4))


def test_untrained_attention_is_the_recency_pool() -> None:
    place = windows([[3, 1, 2, 0, 4], [], [5]], 6)
    found = made_attention()(drawn(6, DIM), place)
    torch.testing.assert_close(found, pool_weights(place, HALF_LIVES))


def test_attention_by_plain_loops() -> None:
    pooling = made_attention(learned=True)
    vector = drawn(7, DIM, seed=3)
    rows = [[3, 1, 2, 0, 4, 6], [5], [2, 2]]
    place = windows(rows, 6)
    found = pooling(vector, place)
    bucket = [0, 1, 2, 2, 3, 3]  # of the ages 0..5
    for h, half_life in enumerate(HALF_LIVES):
        for b in range(len(rows)):
            weight = torch.zeros(6)
            for t in range(6):
                age, item = 5 - t, int(place[b, t])
                if item:
                    key = torch.tanh(pooling.key_weight @ vector[item])
                    logit = pooling.head[h] @ key + pooling.age_bias[h, bucket[age]]
                    weight[t] = torch.exp(logit) * 0.5 ** (age / half_life)
            torch.testing.assert_close(found[h, b], weight / weight.sum())


def test_scores_by_event_and_by_item_agree() -> None:
    pooling = made_attention(learned=True)
    vector, place = drawn(7, DIM, seed=3), windows([[3, 1, 2], [6]], 3)
    more_events, fewer_events = pooling(vector, place.repeat(9, 1)), pooling(vector, place)
    torch.testing.assert_close(more_events[:, :2], fewer_events)


def test_padding_changes_no_weight() -> None:
    pooling = made_attention(learned=True)
    vector, rows = drawn(7, DIM, seed=3), [[3, 1], [6]]
    short, padded = (pooling(vector, windows(rows, length)) for length in (2, 6))
    torch.testing.assert_close(padded[:, :, 4:], short)
    assert not padded[:, :, :4].any()


def test_an_empty_window_is_never_nan() -> None:
    pooling = made_attention(learned=True)
    vector = drawn(7, DIM).requires_grad_()
    place = windows([[], [1, 2]], 3)
    weight = pooling(vector, place)
    pool_events(vector, place, weight).square().sum().backward()
    assert not weight[:, 0].any()
    for grad in (vector.grad, *(parameter.grad for parameter in pooling.parameters())):
        assert grad is not None
        assert torch.isfinite(grad).all()


def test_attention_finds_the_items_that_matter() -> None:
    """Only items with a positive first coordinate say what is wanted; the rest is noise."""
    generator = torch.Generator().manual_seed(5)
    pooling = made_attention()
    adam = torch.optim.Adam(pooling.parameters(), lr=0.05)
    for _ in range(150):
        vector = torch.randn(200, DIM, generator=generator)
        vector[0] = 0.0
        place = torch.randint(1, 200, (64, 6), generator=generator)
        matters = (vector[place][..., 0] > 0).float()  # [B, T]
        total = matters.sum(dim=1, keepdim=True)
        wanted = pool_events(vector, place, (matters / total.clamp(min=1.0))[None])
        pools = pool_events(vector, place, pooling(vector, place))
        loss = (pools - wanted).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    share = (pooling(vector, place).detach() * matters).sum(dim=2)  # [H, B]
    assert float(share[:, total[:, 0] > 0].mean()) > 0.85
