"""The forms of the item-item model, how one is chosen, and what two sources share."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.tables import Histories
from recsys.config import RetrievalConfig
from recsys.errors import ArtifactError, ConfigError
from recsys.pipeline.retrievers import fit_sources
from recsys.pipeline.towers import ItemInputs
from recsys.retrieval.choices import load_sources
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.retrieval.linear import sparse
from recsys.retrieval.options import CountingOptions
from tests.reference.item_item import dan_ease, neighbour_ease

MakeHistories = Callable[[list[list[int]]], Histories]
DAN = {"l2": 2.0, "dropout": 0.3, "item_power": 0.2, "user_power": 0.4}
N = 20


def drawn(make_histories: MakeHistories, num_users: int) -> Histories:
    rng = np.random.default_rng(0)
    rows = [list(1 + rng.permutation(N)[: rng.integers(1, 9)]) for _ in range(num_users)]
    return make_histories(rows)


def scores_of(model: ItemItemRetriever, weights: np.ndarray, asked: Histories) -> None:
    np.testing.assert_allclose(
        model.score_all(asked), asked.to_csr(N).toarray() @ weights, atol=2e-5
    )


@pytest.mark.parametrize(("num_users", "form"), [(12, "solved"), (60, "weights")])
@pytest.mark.parametrize(
    "settings", [{"l2": 2.0}, {"l2": 2.0, "dropout": 0.3}, {"l2": 2.0, "item_power": 0.2}, DAN]
)
def test_both_exact_forms_are_the_closed_form(
    make_histories: MakeHistories, num_users: int, form: str, settings: dict[str, float]
) -> None:
    log = drawn(make_histories, num_users)
    model = ItemItemRetriever.fit(log, N, half_life=None, **settings)
    assert form in model._tensors
    scores_of(model, dan_ease(log.to_csr(N).toarray().tolist(), **settings), log)


def test_weights_of_events_count_in_the_normalisation(make_histories: MakeHistories) -> None:
    log = drawn(make_histories, 60)
    weight = np.random.default_rng(1).uniform(0.5, 2.0, log.item_index.size).astype(np.float32)
    log = Histories(log.indptr, log.item_index, log.timestamp, weight)
    x = np.sqrt(log.to_csr(N, weight / weight.mean()).toarray())
    model = ItemItemRetriever.fit(log, N, half_life=None, **DAN)
    np.testing.assert_allclose(
        model.score_all(log),
        log.to_csr(N, "weight").toarray() @ dan_ease(x.tolist(), **DAN),
        atol=2e-5,
    )


def test_big_catalogues_are_explained_by_neighbours(make_histories: MakeHistories) -> None:
    log = drawn(make_histories, 60)
    model = ItemItemRetriever.fit(log, N, half_life=None, dense_items=N - 1, neighbours=4, **DAN)
    assert "data" in model._tensors
    scores_of(model, neighbour_ease(log.to_csr(N).toarray().tolist(), 4, **DAN), log)
    one = log.take([3])
    np.testing.assert_allclose(model.score_all(one)[0], model.score_all(log)[3], rtol=1e-5)


@pytest.mark.parametrize(
    ("num_users", "dense_items", "form"),
    [(60, N, "weights"), (60, N - 1, "data"), (5, N // 2, "solved"), (5, N // 2 - 1, "data")],
)
def test_the_larger_matrix_decides_on_the_form(
    make_histories: MakeHistories, num_users: int, dense_items: int, form: str
) -> None:
    """5 users and 20 items are 10 times 10 numbers."""
    log = drawn(make_histories, num_users)
    assert form in ItemItemRetriever.fit(log, N, dense_items=dense_items)._tensors


def test_of_a_long_history_the_newest_events_count(
    make_histories: MakeHistories, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = drawn(make_histories, 60)
    monkeypatch.setattr("recsys.retrieval.item_item.LONGEST", 3)
    with caplog.at_level(logging.INFO, logger=sparse.__name__):
        capped = ItemItemRetriever.fit(log, N, dense_items=0)
    assert f"sparse item-item model of {N} items" in caplog.text
    monkeypatch.undo()
    newest = ItemItemRetriever.fit(log.last(3), N, dense_items=0)
    whole = ItemItemRetriever.fit(log, N, dense_items=0)
    np.testing.assert_array_equal(capped.score_all(log), newest.score_all(log))
    assert not np.allclose(capped.score_all(log), whole.score_all(log))


def test_wrong_arguments_are_named(make_histories: MakeHistories) -> None:
    log = drawn(make_histories, 60)
    with pytest.raises(ValueError, match="dense_items must be >= 0, got -1; 0 solves none"):
        ItemItemRetriever.fit(log, N, dense_items=-1)
    with pytest.raises(ValueError, match="neighbours must be >= 1, got 0"):
        ItemItemRetriever.fit(log, N, dense_items=0, neighbours=0)
    with pytest.raises(ValueError, match="half_life must be > 0 events, got 0"):
        ItemItemRetriever.fit(log, N).asked_otherwise("item_item_all", 0.0)
    with pytest.raises(ValueError, match="tensors must be of 21 items, got 2"):
        ItemItemRetriever(
            name="x", num_items=N, half_life=None, tensors={"weights": np.zeros((2, 2))}
        )
    with pytest.raises(ConfigError, match="item_item_dropout must be"):
        CountingOptions(item_item_dropout=1.0)


@pytest.fixture
def fitted_once(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """The arguments of every call of `ItemItemRetriever.fit`."""
    calls: list[dict[str, float]] = []
    fit = ItemItemRetriever.fit.__func__  # type: ignore[attr-defined]

    def counted(cls: type, *arguments: object, **options: float) -> object:
        calls.append(options)
        return fit(cls, *arguments, **options)

    monkeypatch.setattr(ItemItemRetriever, "fit", classmethod(counted))
    return calls


INPUTS = ItemInputs(None, None, 0, np.zeros((N + 1, 0), dtype=np.int64), 0)


@pytest.mark.parametrize("users", [12, 60])
@pytest.mark.parametrize(
    "sources", [("item_item", "item_item_all"), ("item_item_all", "popularity", "item_item")]
)
def test_two_sources_are_solved_and_stored_once(
    make_histories: MakeHistories,
    fitted_once: list[dict[str, float]],
    tmp_path: Path,
    sources: tuple[str, ...],
    users: int,
) -> None:
    log = drawn(make_histories, users)
    settings = RetrievalConfig(
        sources=tuple(dict.fromkeys((*sources, "popularity"))),
        item_item_l2=2.0,
        item_item_dropout=0.3,
        item_item_item_power=0.2,
        item_item_user_power=0.4,
        item_item_dense_items=N + 5,
        item_item_neighbours=7,
        half_life=3.0,
    )
    fitted = fit_sources(log, INPUTS, settings, seed=0)
    fitted.save(tmp_path)
    assert fitted_once == [{**DAN, "dense_items": N + 5, "neighbours": 7}]
    own, shared = (name for name in sources if name != "popularity")
    assert (tmp_path / own / "model.safetensors").stat().st_size > 500
    assert (tmp_path / shared / "model.safetensors").stat().st_size < 100
    alone = {
        "item_item": ItemItemRetriever.fit(log, N, **DAN, half_life=3.0),
        "item_item_all": ItemItemRetriever.fit(log, N, **DAN, half_life=None),
    }
    loaded = load_sources(tmp_path, settings.sources)
    for retriever in (*fitted.retrievers, *loaded):
        if retriever.name in alone:
            assert isinstance(retriever, ItemItemRetriever)
            wanted = alone[retriever.name].score_all(log)
            np.testing.assert_array_equal(retriever.score_all(log), wanted)
    assert not np.allclose(alone["item_item"].score_all(log), alone["item_item_all"].score_all(log))


def test_models_that_share_nothing_keep_their_own_weights(
    make_histories: MakeHistories, tmp_path: Path
) -> None:
    """As bundles have them that were written before weights were shared."""
    log = drawn(make_histories, 60)
    models = [
        ItemItemRetriever.fit(log, N, l2=l2, name=name)
        for name, l2 in (("item_item", 2.0), ("item_item_all", 9.0))
    ]
    assert not models[0].has_weights_of(models[1])
    for model in models:
        model.save(tmp_path / model.name)
        settings = json.loads((tmp_path / model.name / "model.json").read_text())["settings"]
        assert sorted(settings) == ["half_life", "name", "num_items", "weighted"]
    for model, loaded in zip(models, load_sources(tmp_path, [m.name for m in models]), strict=True):
        assert isinstance(loaded, ItemItemRetriever)
        np.testing.assert_array_equal(loaded.score_all(log), model.score_all(log))


@pytest.mark.parametrize(
    ("owner", "message"),
    [("item_item", r"no item_item model in .*: model\.json is missing"), ("../x", "is damaged")],
)
def test_weights_that_are_not_beside_it_are_told(
    make_histories: MakeHistories, tmp_path: Path, owner: str, message: str
) -> None:
    model = ItemItemRetriever.fit(drawn(make_histories, 60), N)
    model.save(tmp_path / "item_item_all", weights_of=owner)
    with pytest.raises(ArtifactError, match=message):
        ItemItemRetriever.load(tmp_path / "item_item_all")
