from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from features.tables import Histories
from recsys.retrieval.towers import TowerOptions
from recsys.retrieval.towers.model import TwoTower, table_specs
from recsys.retrieval.towers.windows import (
    ends_before_own_time,
    latest_window,
    masked_softmax,
    pool_weights,
    recency_logits,
    window_before,
)


def test_window_shows_the_newest_events_before_the_end() -> None:
    item_index = np.array([4, 1, 7, 2, 7])
    start, end = np.array([0, 0, 3, 3]), np.array([2, 3, 3, 5])
    window = window_before(item_index, start, end, 2)
    assert window.tolist() == [[4, 1], [1, 7], [0, 0], [2, 7]]
    assert window_before(np.zeros(0, np.int64), start[:1], start[:1], 2).tolist() == [[0, 0]]


def test_latest_window_is_the_padded_history(make_histories: Callable[..., Histories]) -> None:
    histories = make_histories([[4, 1, 7], [], [2]])
    padded, _ = histories.padded(2)
    np.testing.assert_array_equal(latest_window(histories, 2).numpy(), padded)


@given(
    st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=5),
)
def test_an_example_sees_only_strictly_older_events_of_its_own_row(gaps: list[list[int]]) -> None:
    times = [np.cumsum(row).tolist() for row in gaps]
    counts = [len(row) for row in gaps]
    flat = np.array([t for row in times for t in row], dtype=np.int64)
    histories = Histories(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.arange(1, flat.size + 1, dtype=np.int64),  # every event is its own item
        flat,
        np.ones(flat.size, dtype=np.float32),
    )
    end = ends_before_own_time(histories)
    window = window_before(histories.item_index, histories.indptr[:-1][histories.rows], end, 99)
    for event in range(flat.size):
        row = histories.rows[event]
        seen = {int(item) - 1 for item in window[event] if item}
        wanted = {
            other
            for other in range(flat.size)
            if histories.rows[other] == row and flat[other] < flat[event]
        }
        assert seen == wanted


def test_pool_weights_by_hand() -> None:
    window = torch.tensor([[0, 5, 6], [0, 0, 0]])
    weight = pool_weights(window, (math.inf, 1.0))
    assert weight.shape == (2, 2, 3)
    torch.testing.assert_close(weight[0, 0], torch.tensor([0.0, 0.5, 0.5]))
    torch.testing.assert_close(weight[1, 0], torch.tensor([0.0, 1 / 3, 2 / 3]))
    assert not weight[:, 1].any()
    longer = pool_weights(torch.tensor([[0, 0, 0, 5, 6]]), (math.inf, 1.0))
    torch.testing.assert_close(longer[:, 0, 2:], weight[:, 0])


def test_recency_logits_by_hand() -> None:
    wanted = torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.5, 1.0]])
    wanted[0] = 1.0
    torch.testing.assert_close(recency_logits(3, (math.inf, 1.0)).exp(), wanted)


def test_old_events_alone_still_weigh_one_in_all() -> None:
    """0.5 ** (300 / 0.5) is no float, but the event is all there is."""
    window = torch.zeros(1, 300, dtype=torch.int64)
    window[0, 0] = 7
    weight = pool_weights(window, (0.5,))
    assert weight[0, 0, 0] == 1.0
    assert weight.sum() == 1.0


def test_masked_softmax_of_nothing_is_nothing() -> None:
    logit = torch.tensor([[[1.0, 2.0], [3.0, 500.0]]], requires_grad=True)  # [1, 2, 2]
    real = torch.tensor([[False, False], [True, False]])
    found = masked_softmax(logit, real)
    assert found.tolist() == [[[0.0, 0.0], [1.0, 0.0]]]
    found.sum().backward()
    assert logit.grad is not None
    assert not logit.grad.any()


N, DIM, CONTENT = 6, 4, 3
OPTIONS = TowerOptions(dim=DIM, history_length=5, half_lives=(math.inf, 2.0), hidden_dim=8)


def made_tower(
    options: TowerOptions = OPTIONS,
) -> tuple[TwoTower, Callable[..., dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    tower = TwoTower(options, content_dim=CONTENT, generator=generator)
    if options.hidden_dim:
        tower.output_weight.data = torch.randn(DIM, options.hidden_dim, generator=generator)
    specs = table_specs(options, num_items=N, num_users=2, num_prefix_tokens=5, num_field_tokens=7)
    table = {s.name: torch.randn(s.num_embeddings, DIM, generator=generator) for s in specs}
    for rows in table.values():
        rows[0] = 0.0

    def lookup(index: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: table[name][rows] for name, rows in index.items()}

    return tower, lookup


def item_inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    content = torch.randn(N + 1, CONTENT, generator=generator)
    tokens = torch.randint(1, 6, (N + 1, 2), generator=generator)
    content[0], tokens[0] = 0.0, 0
    return content, tokens


def test_item_vector_is_the_sum_of_its_parts() -> None:
    tower, lookup = made_tower()
    content, tokens = item_inputs()
    keep = torch.tensor([True, True, False, True, True, True, True])
    found = tower.items(
        lookup, torch.arange(N + 1), content=content, prefix_tokens=tokens, keep_id=keep
    )
    assert tower.content_weight is not None
    rows = lookup({"item": torch.arange(N + 1), "prefix": tokens})
    for item in range(N + 1):
        wanted = tower.content_weight @ content[item] + rows["prefix"][item].sum(0)
        if keep[item]:
            wanted = wanted + rows["item"][item]
        torch.testing.assert_close(found[item], wanted)
    assert not found[0].any()


def test_fields_are_added_and_can_be_left_out() -> None:
    tower, lookup = made_tower()
    content, _ = item_inputs()
    fields = torch.tensor([[0, 0]] + [[1 + item % 3, 4 + item % 4] for item in range(N)])
    keep = torch.tensor([[True, True]] * N + [[False, True]])
    every = torch.arange(N + 1)
    without = tower.items(lookup, every, content=content)
    rows = lookup({"field": fields})["field"]
    found = tower.items(lookup, every, content=content, fields=fields)
    torch.testing.assert_close(found, without + rows.sum(dim=1))
    masked = tower.items(lookup, every, content=content, fields=fields, keep_field=keep)
    torch.testing.assert_close(masked[:N], found[:N])
    torch.testing.assert_close(masked[N], without[N] + rows[N, 1])


def test_query_by_plain_loops() -> None:
    tower, _ = made_tower()
    vector = torch.randn(N + 1, DIM, generator=torch.Generator().manual_seed(2))
    vector[0] = 0.0
    place = torch.tensor([[0, 0, 3, 1, 3], [0, 0, 0, 0, 0]])
    weight = pool_weights(place, OPTIONS.half_lives)
    user = torch.randn(2, DIM, generator=torch.Generator().manual_seed(3))
    found = tower.queries(vector, place, user_vector=user)
    for b in range(2):
        pools = [
            sum((weight[p, b, t] * vector[place[b, t]] for t in range(5)), torch.zeros(DIM))
            for p in range(2)
        ]
        hidden = torch.nn.functional.gelu(
            tower.hidden_weight @ torch.cat(pools) + tower.hidden_bias
        )
        wanted = tower.start + tower.gate[0] * pools[0] + tower.gate[1] * pools[1]
        wanted = wanted + user[b] + tower.output_weight @ hidden
        torch.testing.assert_close(found[b], wanted)


def test_padding_and_old_events_beyond_the_window_change_nothing() -> None:
    tower, _ = made_tower()
    vector = torch.randn(N + 1, DIM, generator=torch.Generator().manual_seed(2))
    vector[0] = 0.0
    short = tower.queries(vector, torch.tensor([[2, 4]]))
    padded = tower.queries(vector, torch.tensor([[0, 0, 0, 2, 4]]))
    torch.testing.assert_close(short, padded)


def test_a_tower_without_its_residual_is_linear_in_the_pools() -> None:
    tower, _ = made_tower(TowerOptions(dim=DIM, half_lives=(math.inf,), hidden_dim=0))
    vector = torch.randn(N + 1, DIM, generator=torch.Generator().manual_seed(2))
    found = tower.queries(vector, torch.tensor([[2, 4]]))
    torch.testing.assert_close(found[0], tower.start + (vector[2] + vector[4]) / 2)


def test_attention_starts_as_recency_and_then_differs() -> None:
    recency, _ = made_tower()
    attention, _ = made_tower(OPTIONS.but(pooling="attention"))
    own = {name for name, _ in attention.named_parameters() if name.startswith("attention.")}
    assert own == {"attention.key_weight", "attention.head", "attention.age_bias"}
    shared = {n: v for n, v in attention.state_dict().items() if n not in own}
    recency.load_state_dict(shared)
    vector = torch.randn(N + 1, DIM, generator=torch.Generator().manual_seed(2))
    vector[0] = 0.0
    place = torch.tensor([[0, 0, 3, 1, 5], [0, 0, 0, 0, 0]])
    wanted = recency.queries(vector, place)
    torch.testing.assert_close(attention.queries(vector, place), wanted)
    attention.attention.head.data += 1.0
    found = attention.queries(vector, place)
    assert not torch.allclose(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1])  # an empty history: nothing to weigh


def test_without_pooling_a_query_is_the_user_row() -> None:
    options = TowerOptions(dim=DIM, pooling="none", use_user_id=True)
    tower = TwoTower(options, content_dim=0, generator=torch.Generator().manual_seed(0))
    assert [name for name, _ in tower.named_parameters()] == ["start"]
    nothing = torch.zeros(3, 0, dtype=torch.int64)
    assert not tower.queries(torch.zeros(N + 1, DIM), nothing).any()
    tower.start.data.fill_(2.0)
    user = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0] * DIM, [0.0, 0.0, 0.0, 3.0]])
    found = tower.queries(torch.zeros(N + 1, DIM), nothing, user_vector=user)
    assert found.tolist() == [user[0].tolist(), [2.0] * DIM, user[2].tolist()]
    assert tower.queries(torch.zeros(N + 1, DIM), nothing).tolist() == [[2.0] * DIM] * 3


def test_hidden_users_train_what_an_unknown_one_gets() -> None:
    options = TowerOptions(dim=DIM, pooling="none", use_user_id=True, user_dropout=0.5)
    tower = TwoTower(options, content_dim=0, generator=torch.Generator().manual_seed(0))
    assert tower.start.any()  # a cosine has no gradient at zero
    user = torch.tensor([[1.0] * DIM, [0.0] * DIM])
    tower.queries(torch.zeros(1, DIM), torch.zeros(2, 0), user_vector=user).sum().backward()
    assert tower.start.grad is not None
    assert tower.start.grad.tolist() == [1.0] * DIM  # of the hidden one alone


def test_content_must_fit_the_tower() -> None:
    tower, lookup = made_tower()
    with pytest.raises(ValueError, match="content is missing"):
        tower.items(lookup, torch.arange(2))
    bare = TwoTower(OPTIONS, content_dim=0, generator=torch.Generator())
    with pytest.raises(ValueError, match="content is given"):
        bare.items(lookup, torch.arange(2), content=torch.zeros(2, CONTENT))


def test_only_tables_that_are_used_exist() -> None:
    names = {s.name: s for s in table_specs(OPTIONS, num_items=N, num_users=2, num_prefix_tokens=0)}
    assert set(names) == {"item"}
    assert names["item"].num_embeddings == N + 1
    with_users = TowerOptions(use_user_id=True)
    names = {
        s.name: s
        for s in table_specs(
            with_users, num_items=N, num_users=2, num_prefix_tokens=9, num_field_tokens=4
        )
    }
    assert {name: s.num_embeddings for name, s in names.items()} == {
        "item": N + 1,
        "prefix": 10,
        "field": 5,
        "user": 3,
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dim": 6}, "dim must be a multiple of 4, got 6"),
        ({"history_length": 0}, "history_length"),
        ({"half_lives": ()}, "half_lives"),
        ({"half_lives": (1.0, 0.0)}, "half_lives"),
        ({"hidden_dim": -1}, "hidden_dim"),
        ({"id_dropout": 1.5}, "id_dropout"),
        ({"pooling": "max"}, "pooling must be .* got 'max'"),
        ({"user_dropout": 1.0, "use_user_id": True}, "user_dropout must be"),
        ({"user_dropout": 0.5}, "use_user_id must be true"),
        ({"pooling": "none"}, "use_user_id must be true"),
    ],
)
def test_shapes_out_of_range_are_named(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TowerOptions(**changed)
