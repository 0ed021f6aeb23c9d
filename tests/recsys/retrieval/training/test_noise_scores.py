from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.tables import Histories, Vocabulary
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower
from recsys.retrieval.towers.options import Score
from recsys.retrieval.training.noise_scores import event_losses, noise_scores

MakeHistories = Callable[[list[list[int]]], Histories]
NUM_ITEMS = 40


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(
    item: torch.Tensor,
    *,
    user: torch.Tensor | None = None,
    history_length: int = 4,
    score: Score = "cosine",
) -> TwoTowerRetriever:
    options = TowerOptions(
        dim=item.shape[1],
        history_length=history_length,
        half_lives=(math.inf, 1.0),
        hidden_dim=0,
        use_user_id=user is not None,
    )
    tower = TwoTower(options, content_dim=0, generator=generator())
    tables = {"item": item} if user is None else {"item": item, "user": user}
    return TwoTowerRetriever.from_tables(tower, tables, score=score)


def drawn_items(dim: int = 8) -> torch.Tensor:
    item = torch.randn(NUM_ITEMS + 1, dim, generator=generator(1))
    item[0] = 0.0
    return item


def group_items() -> torch.Tensor:
    """Items of one of 4 groups of 10 look alike, as training would have it."""
    item = 0.1 * drawn_items()
    for index in range(1, NUM_ITEMS + 1):
        item[index, (index - 1) // 10] += 1.0
    return item


def plain(loss: list[list[float]], temperature: float) -> list[tuple[float, float, float, int]]:
    """usual_loss, noise, keep_ratio, rank_in_user of each event, one after another."""
    found = []
    for row in loss:
        total = sum(math.exp(-value / temperature) for value in row)
        for place, value in enumerate(row):
            usual = float(np.median(row))
            noise = 1 / (1 + math.exp(-(value - usual) / temperature))
            keep = len(row) * math.exp(-value / temperature) / total
            before = sum((other, p) < (value, place) for p, other in enumerate(row))
            found.append((usual, noise, keep, before + 1))
    return found


@given(
    loss=st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.25, 3.0, 7.5]), max_size=6), max_size=6),
    temperature=st.sampled_from([0.3, 1.0, 4.0]),
)
@settings(max_examples=60, deadline=None)
def test_scores_are_the_plain_loops(loss: list[list[float]], temperature: float) -> None:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in loss])]).astype(np.int64)
    flat = np.array([value for row in loss for value in row], dtype=np.float32)
    found = noise_scores(flat, indptr, temperature=temperature)
    columns = (found.usual_loss, found.noise, found.keep_ratio, found.rank_in_user)
    wanted = plain(loss, temperature)
    for place, expected in enumerate(wanted):
        assert [float(column[place]) for column in columns] == pytest.approx(expected, rel=1e-5)
    assert all(column.shape == (flat.size,) for column in columns)
    for start, stop in pairwise(indptr.tolist()):
        if stop > start:
            assert found.keep_ratio[start:stop].mean() == pytest.approx(1.0, rel=1e-5)


def test_a_lone_event_is_as_usual() -> None:
    found = noise_scores(np.array([9.0]), np.array([0, 0, 1]))
    assert (found.noise[0], found.keep_ratio[0], found.rank_in_user[0]) == (0.5, 1.0, 1)


def test_only_differences_within_a_user_count() -> None:
    loss, indptr = np.array([1.0, 2.0, 4.0, 1.0, 1.5]), np.array([0, 3, 5])
    plain_scores = noise_scores(loss, indptr)
    shifted = noise_scores(loss + np.array([0.0, 0.0, 0.0, 6.0, 6.0]), indptr)
    np.testing.assert_allclose(shifted.noise, plain_scores.noise, rtol=1e-6)
    np.testing.assert_allclose(shifted.keep_ratio, plain_scores.keep_ratio, rtol=1e-6)


def test_scores_stay_in_bounds() -> None:
    found = noise_scores(np.array([0.0, 1.0, 1e9]), np.array([0, 3]), temperature=1e-3)
    assert found.noise.tolist() == [0.0, 0.5, 1.0]
    assert found.keep_ratio.tolist() == [3.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("loss", "indptr", "temperature", "message"),
    [
        ([1.0], [0, 1], 0.0, "temperature must be > 0"),
        ([1.0], [0, 2], 1.0, r"loss must be \[E\] with E = indptr\[-1\] = 2"),
        ([math.nan], [0, 1], 1.0, "loss must be finite"),
    ],
)
def test_scores_refuse(
    loss: list[float], indptr: list[int], temperature: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        noise_scores(np.array(loss), np.array(indptr), temperature=temperature)


@pytest.mark.parametrize("score", ["cosine", "dot"])
@pytest.mark.parametrize("user_rows", [False, True])
def test_losses_are_those_of_single_queries(score: Score, user_rows: bool) -> None:
    """Event by event through the public methods, with events at one moment among them."""
    rng = np.random.default_rng(0)
    counts = [3, 0, 9, 1, 6]
    second = [np.sort(rng.integers(1, 6, size=count)) for count in counts]
    histories = Histories(
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_index=rng.integers(1, NUM_ITEMS + 1, size=sum(counts)),
        timestamp=np.concatenate(second).astype(np.int64),
        weight=np.ones(sum(counts), dtype=np.float32),
    )
    user = torch.randn(6, 8, generator=generator(2)) if user_rows else None
    retriever = model(drawn_items(), user=user, score=score)
    user_index = np.array([1, 2, 0, 4, 5]) if user_rows else None
    found = event_losses(
        retriever,
        histories,
        temperature=0.3,
        generator=generator(3),
        num_negatives=30,
        user_index=user_index,
        block_events=4,
    )
    negatives = torch.randint(1, NUM_ITEMS + 1, (30,), generator=generator(3)).tolist()
    event = 0
    for row, count in enumerate(counts):
        own = histories.take([row])
        for _ in range(count):
            moment = histories.timestamp[event : event + 1]
            item = int(histories.item_index[event])
            kept = [j for j in negatives if j not in own.item_index]
            logit = retriever.score(
                own,
                np.array([[item, *kept]]),
                moment=moment,
                user_index=None if user_index is None else user_index[row : row + 1],
            )[0].astype(np.float64)
            wanted = math.log(np.exp(logit / 0.3).sum()) - logit[0] / 0.3
            assert float(found[event]) == pytest.approx(wanted, rel=1e-4, abs=1e-5)
            event += 1
    assert found.shape == (event,)


def test_planted_noise_stands_out(make_histories: MakeHistories) -> None:
    """Nine events of a group and one of another: noise ranks them, the pooled loss does worse."""
    rng = np.random.default_rng(0)
    rows, planted = [], []
    for user in range(60):
        group = user % 4
        row = list(1 + 10 * group + rng.permutation(10))
        place = int(rng.integers(2, 10))
        row[place] = 1 + (10 * (group + 1) + int(rng.integers(30))) % NUM_ITEMS
        rows.append(row)
        planted += [p == place for p in range(10)]
    histories = make_histories(rows)
    retriever = model(group_items(), history_length=10)
    loss = event_losses(retriever, histories, temperature=0.2, generator=generator())
    score = noise_scores(loss, histories.indptr)
    noisy = np.array(planted)
    first = np.tile(np.arange(10) == 0, 60)  # no history yet, so nothing to compare with
    found = score.noise[noisy & ~first]
    clean = score.noise[~noisy & ~first]
    assert (found[:, None] > clean[None, :]).mean() > 0.97
    assert np.median(found) > 0.9
    assert (score.rank_in_user[noisy] >= 9).mean() > 0.9
    again = event_losses(retriever, histories, temperature=0.2, generator=generator())
    np.testing.assert_array_equal(loss, again)


def test_losses_of_nothing_are_empty(make_histories: MakeHistories) -> None:
    retriever = model(drawn_items())
    loss = event_losses(retriever, make_histories([[], []]), temperature=1.0, generator=generator())
    assert loss.shape == (0,)
    assert noise_scores(loss, np.zeros(3, dtype=np.int64)).noise.shape == (0,)


def test_losses_refuse(make_histories: MakeHistories) -> None:
    retriever, histories = model(drawn_items()), make_histories([[1, 2]])
    for name in ("num_negatives", "block_events"):
        with pytest.raises(ValueError, match=f"{name} must be >= 1"):
            event_losses(retriever, histories, temperature=1.0, generator=generator(), **{name: 0})
    with pytest.raises(ValueError, match="temperature must be > 0"):
        event_losses(retriever, histories, temperature=0.0, generator=generator())
    with pytest.raises(ValueError, match="user_index must have one entry per row"):
        event_losses(
            retriever,
            histories,
            temperature=1.0,
            generator=generator(),
            user_index=np.array([1, 2]),
        )


def test_the_table_names_users_and_items(make_histories: MakeHistories) -> None:
    histories = make_histories([[2, 1], [], [3]])
    items = Vocabulary.from_ids(["a", "b", "c"])
    scores = noise_scores(np.array([1.0, 3.0, 2.0]), histories.indptr)
    frame = scores.to_frame(histories, ["u", "v", "w"], items)
    assert frame["user_id"].to_list() == ["u", "u", "w"]
    assert frame["item_id"].to_list() == ["b", "a", "c"]
    assert frame["timestamp"].dt.epoch("s").to_list() == [1, 2, 1]
    assert frame["loss"].to_list() == [1.0, 3.0, 2.0]
    assert frame["usual_loss"].to_list() == [2.0, 2.0, 2.0]
    assert frame["noise"].to_list() == pytest.approx([0.26894, 0.73106, 0.5], abs=1e-4)
    assert frame["rank_in_user"].to_list() == [1, 2, 1]
    assert frame["events_of_user"].to_list() == [2, 2, 1]
    assert frame.schema["timestamp"] == pl.Datetime("us")
    assert {frame.schema[name] for name in ("weight", "loss", "noise", "keep_ratio")} == {
        pl.Float32()
    }
    with pytest.raises(ValueError, match="user_ids must have one id per row: got 2 for 3"):
        scores.to_frame(histories, ["u", "v"], items)
    with pytest.raises(ValueError, match="histories must hold the events that were scored"):
        scores.to_frame(make_histories([[1]]), ["u"], items)
