from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from features.tables import Histories
from recsys.errors import ArtifactError
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower, table_specs
from recsys.topk import TopK

N, DIM = 9, 8
MakeHistories = Callable[[list[list[int]]], Histories]


def made(score: str = "cosine", **shape: object) -> TwoTowerRetriever:
    options = TowerOptions(
        dim=DIM, history_length=4, half_lives=(math.inf, 2.0), hidden_dim=8, **shape
    )
    generator = torch.Generator().manual_seed(0)
    tower = TwoTower(options, content_dim=0, generator=generator)
    tables = {}
    for spec in table_specs(options, num_items=N, num_users=3, num_prefix_tokens=0):
        tables[spec.name] = torch.randn(spec.num_embeddings, DIM, generator=generator)
        tables[spec.name][0] = 0.0
    return TwoTowerRetriever.from_tables(tower, tables, score=score, best_epoch=3)


@pytest.fixture
def histories(make_histories: MakeHistories) -> Histories:
    return make_histories([[1, 2, 3], [], [9], [4, 4, 5, 6, 7, 8]])


@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_retrieve_sorts_what_score_says(score: str, histories: Histories) -> None:
    retriever = made(score)
    everything = np.tile(np.arange(N + 1), (4, 1))
    scores = retriever.score(histories, everything)
    found = retriever.retrieve(histories, N)
    np.testing.assert_array_equal(found.item_index, np.argsort(-scores, axis=1)[:, :N])
    product = retriever.user_vectors(histories) @ retriever.item_vectors.T
    np.testing.assert_allclose(product[:, 1:], scores[:, 1:], atol=1e-5)
    length = np.linalg.norm(retriever.item_vectors[1:], axis=1)
    assert np.allclose(length, 1.0, atol=1e-5) == (score == "cosine")


def test_blocks_do_not_change_the_answer(histories: Histories) -> None:
    retriever = made()
    wanted = retriever.retrieve(histories, 3, excluded=histories.seen_mask(N))
    retriever.memory_mb = 0  # one query a block
    found = retriever.retrieve(histories, 3, excluded=histories.seen_mask(N))
    np.testing.assert_array_equal(found.item_index, wanted.item_index)
    np.testing.assert_allclose(found.score, wanted.score, atol=1e-6)


def test_nothing_at_or_after_the_moment_is_seen(
    histories: Histories, make_histories: MakeHistories
) -> None:
    retriever = made()
    moment = np.full(4, 3_000_000)  # events happen at 1 s, 2 s, ...
    cut = make_histories([[1, 2], [], [9], [4, 4]])
    np.testing.assert_array_equal(
        retriever.user_vectors(histories, moment), retriever.user_vectors(cut)
    )


class Recorder:
    def search(self, query: np.ndarray, k: int, *, excluded: np.ndarray | None = None) -> TopK:
        self.query, self.k, self.excluded = query, k, excluded
        shape = (len(query), k)
        return TopK(np.ones(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32))


def test_an_attached_index_answers(histories: Histories) -> None:
    retriever, index = made(), Recorder()
    retriever.index = index
    excluded = histories.seen_mask(N)
    found = retriever.retrieve(histories, 2, excluded=excluded)
    assert found.item_index.tolist() == [[1, 1]] * 4
    assert index.k == 2
    assert index.excluded is excluded
    np.testing.assert_array_equal(index.query, retriever.user_vectors(histories))


def test_int8_copy_serves_nearly_the_same(histories: Histories, tmp_path: Path) -> None:
    items = np.tile(np.arange(1, N + 1), (4, 1))
    exact = made().score(histories, items)
    retriever = made().quantize()
    np.testing.assert_allclose(retriever.score(histories, items), exact, atol=0.01)
    found = retriever.retrieve(histories, N)
    np.testing.assert_allclose(
        found.score, np.take_along_axis(exact, found.item_index - 1, axis=1), atol=0.01
    )
    assert not np.array_equal(retriever.score(histories, items), exact)
    retriever.save(tmp_path)
    loaded = TwoTowerRetriever.load(tmp_path)
    assert loaded.int8 is not None
    np.testing.assert_array_equal(loaded.score(histories, items), retriever.score(histories, items))


@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_save_and_load_keep_every_score(score: str, histories: Histories, tmp_path: Path) -> None:
    retriever = made(score, use_user_id=True)
    retriever.save(tmp_path)
    loaded = TwoTowerRetriever.load(tmp_path)
    assert (loaded.score_kind, loaded.best_epoch, loaded.num_items) == (score, 3, N)
    assert loaded.tower.options == retriever.tower.options
    user = np.array([1, 0, 3, 2])
    for chosen in (user, None):
        before = retriever.retrieve(histories, 5, user_index=chosen)
        after = loaded.retrieve(histories, 5, user_index=chosen)
        np.testing.assert_array_equal(before.item_index, after.item_index)
        np.testing.assert_array_equal(before.score, after.score)
    items = np.tile(np.arange(1, 4), (4, 1))
    with_rows = loaded.score(histories, items, user_index=user)
    assert not np.array_equal(with_rows, loaded.score(histories, items))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def with_fields() -> tuple[TwoTowerRetriever, torch.Tensor]:
    retriever = made(use_user_id=True, pooling="attention")
    fields = torch.tensor([[0, 0]] + [[1 + item % 3, 4 + item % 2] for item in range(N)])
    tables = retriever.tables | {"field": torch.randn(6, DIM)}
    tables["field"][0] = 0.0
    return TwoTowerRetriever.from_tables(retriever.tower, tables, fields=fields), fields


def test_new_items_are_encoded_from_their_fields(histories: Histories, tmp_path: Path) -> None:
    retriever, fields = with_fields()
    retriever.save(tmp_path)
    loaded = TwoTowerRetriever.load(tmp_path)
    assert loaded.tower.options == retriever.tower.options
    np.testing.assert_array_equal(loaded.user_vectors(histories), retriever.user_vectors(histories))
    found = loaded.encode_items(fields=fields[1:].numpy())
    wanted = retriever.tables["field"][fields[1:]].sum(dim=1)
    wanted = torch.nn.functional.normalize(wanted, dim=1)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6)
    with_ids = retriever.tables["item"][1:] + retriever.tables["field"][fields[1:]].sum(dim=1)
    with_ids = torch.nn.functional.normalize(with_ids, dim=1)
    np.testing.assert_allclose(retriever.item_vectors[1:], with_ids.numpy(), atol=1e-6)


def test_fields_come_with_their_table() -> None:
    retriever, fields = with_fields()
    with pytest.raises(ValueError, match="fields are missing"):
        TwoTowerRetriever.from_tables(retriever.tower, retriever.tables)
    bare = made()
    with pytest.raises(ValueError, match="fields are given"):
        TwoTowerRetriever.from_tables(bare.tower, bare.tables, fields=fields)
    with pytest.raises(ValueError, match="without a table 'field'"):
        bare.encode_items(fields=fields.numpy())
    with pytest.raises(ValueError, match="without a table 'prefix'"):
        bare.encode_items(prefix_tokens=fields.numpy())


def test_without_pooling_only_the_user_row_counts(
    histories: Histories, make_histories: MakeHistories, tmp_path: Path
) -> None:
    retriever = made("dot", use_user_id=True, pooling="none")
    user = np.array([2, 0, 3, 1])
    found = retriever.user_vectors(histories, user_index=user)
    np.testing.assert_array_equal(found, retriever.tables["user"][user].numpy())
    assert not found[1].any()  # unknown: a model of ids alone has nothing to say
    other = make_histories([[], [5], [], [1]])
    moment = np.zeros(4, dtype=np.int64)
    np.testing.assert_array_equal(found, retriever.user_vectors(other, moment, user_index=user))
    assert not retriever.user_vectors(histories).any()
    retriever.save(tmp_path)
    loaded = TwoTowerRetriever.load(tmp_path)
    np.testing.assert_array_equal(found, loaded.user_vectors(other, user_index=user))


def test_settings_say_how_the_vectors_are_read() -> None:
    assert made().settings == {
        "score": "cosine",
        "dim": DIM,
        "pooling": "recency",
        "user_table": False,
    }
    assert made("dot", use_user_id=True, pooling="none").settings == {
        "score": "dot",
        "dim": DIM,
        "pooling": "none",
        "user_table": True,
    }


def test_damaged_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="two_tower"):
        TwoTowerRetriever.load(tmp_path)
    made().save(tmp_path)
    path = tmp_path / "model.json"
    header = json.loads(path.read_text())
    header["settings"]["towers"]["hidden_dim"] = 4
    path.write_text(json.dumps(header))
    with pytest.raises(ArtifactError, match="do not fit"):
        TwoTowerRetriever.load(tmp_path)
    header["format"] = 99
    path.write_text(json.dumps(header))
    with pytest.raises(ArtifactError, match="format"):
        TwoTowerRetriever.load(tmp_path)


def test_wrong_arguments_are_named() -> None:
    retriever = made()
    with pytest.raises(ValueError, match="to encode new items"):
        retriever.encode_items()
    with pytest.raises(ValueError, match="score must be"):
        made("euclid")
    with pytest.raises(ValueError, match="item_vector must be"):
        TwoTowerRetriever(retriever.tower, retriever.tables, torch.zeros(3, 2))
