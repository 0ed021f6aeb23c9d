from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.errors import ArtifactError
from recsys.ranking.gbdt import GbdtRanker
from recsys.ranking.listwise import ListwiseRanker, listnet
from recsys.ranking.options import GbdtOptions, ListwiseOptions
from recsys.ranking.ranker import Ranker, RankingRows, fit_ranker, lists_of

TREES = GbdtOptions(num_trees=30, min_data_in_leaf=5, learning_rate=0.1)
NETWORK = ListwiseOptions(dim=8, num_heads=2, epochs=3)


@pytest.fixture(scope="module")
def rows() -> RankingRows:
    """60 requests of 12 candidates; the wanted two have the largest hidden relevance."""
    rng = np.random.default_rng(0)
    relevance = rng.normal(size=(60, 12))
    label = np.zeros((60, 12), dtype=np.int64)
    np.put_along_axis(label, np.argsort(-relevance, axis=1)[:, :2], 1, axis=1)
    features = np.stack(
        [relevance + rng.normal(scale=0.5, size=relevance.shape), rng.normal(size=relevance.shape)],
        axis=-1,
    ).astype(np.float32)
    features[0, 0, 1] = np.nan
    return RankingRows(
        features.reshape(-1, 2), label.ravel(), np.repeat(np.arange(60), 12), ("signal", "noise")
    )


def hits_at_2(rows: RankingRows, score: np.ndarray) -> float:
    return float(rows.label[lists_of(score, rows.request_index, 2)].mean())


def test_lists_of_orders_each_request_and_pads() -> None:
    score = np.array([1.0, 3.0, 2.0, 5.0, 5.0])
    request_index = np.array([0, 0, 0, 4, 4])
    assert lists_of(score, request_index, 3).tolist() == [[1, 2, 0], [3, 4, -1]]


def test_one_request_is_listed_as_among_others() -> None:
    score = np.random.default_rng(0).integers(0, 5, 40).astype(float)  # with ties
    both = lists_of(np.append(score, 9.0), np.append(np.zeros(40, np.int64), 1), 60)
    alone = lists_of(score, np.zeros(40, np.int64), 60)
    assert alone.dtype == both.dtype
    assert alone.tolist() == both[:1].tolist()
    assert lists_of(score, np.zeros(40, np.int64), 3).tolist() == both[:1, :3].tolist()


def test_trees_find_the_signal_and_repeat_themselves(rows: RankingRows) -> None:
    def fit() -> GbdtRanker:
        return GbdtRanker.fit(
            rows.features,
            rows.label,
            rows.request_index,
            feature_names=rows.feature_names,
            options=TREES,
            seed=3,
        )

    first, second = fit(), fit()
    score = first.predict(rows.features)
    assert hits_at_2(rows, score) > 0.6
    assert np.array_equal(score, second.predict(rows.features))
    assert next(iter(first.importance())) == "signal"
    assert not np.array_equal(score, first.predict(rows.features, num_trees=2))
    with pytest.raises(ValueError, match=r"features must be \[R, \d+\], got shape"):
        first.predict(rows.features[:, 1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_names": ("one",)}, r"features must be \[R, F\] with F = 1"),
        ({"label": np.zeros(720, dtype=np.int64)}, "label must have a positive"),
        ({"label": np.zeros(3, dtype=np.int64)}, "label and request_index must be"),
        ({"request_index": np.arange(720)[::-1]}, "request_index must not fall"),
    ],
)
def test_trees_name_what_is_wrong(
    rows: RankingRows, change: dict[str, object], message: str
) -> None:
    values: dict[str, object] = {
        "features": rows.features,
        "label": rows.label,
        "request_index": rows.request_index,
        "feature_names": rows.feature_names,
    }
    with pytest.raises(ValueError, match=message):
        GbdtRanker.fit(**{**values, **change})  # type: ignore[arg-type]


def test_listnet_by_hand() -> None:
    score = torch.tensor([[0.0, 0.0, 9.0]])
    mask = torch.tensor([[True, True, False]])
    label = torch.tensor([[1.0, 0.0, 1.0]])
    assert listnet(score, label, mask).item() == pytest.approx(np.log(2))
    assert listnet(score, torch.zeros(1, 3), mask).item() == 0.0


def test_listnet_gradient_and_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    label = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 2, 0, 1, 0]], dtype=torch.float64)
    mask = torch.ones(3, 5, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda s: listnet(s, label, mask), (score,))
    padded = torch.nn.functional.pad(score, (0, 2), value=50.0)
    longer = torch.nn.functional.pad(label, (0, 2), value=1.0)
    wider = torch.nn.functional.pad(mask, (0, 2), value=False)
    assert torch.equal(listnet(padded, longer, wider), listnet(score, label, mask))


def lists_with_context() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The wanted candidate is the one whose feature is *least* like the list's mean."""
    rng = np.random.default_rng(4)
    feature = rng.normal(size=(300, 6)) + rng.normal(scale=3, size=(300, 1))
    odd = np.abs(feature - feature.mean(axis=1, keepdims=True)).argmax(axis=1)
    label = np.zeros((300, 6), dtype=np.float32)
    label[np.arange(300), odd] = 1
    mask = np.ones((300, 6), dtype=bool)
    first = rng.normal(size=(300, 6)).astype(np.float32)
    return feature[..., None].astype(np.float32), first, label, mask


def test_the_network_learns_what_needs_the_whole_list() -> None:
    features, first, label, mask = lists_with_context()
    options = ListwiseOptions(dim=16, epochs=40, learning_rate=5e-3, dropout=0.0)
    ranker = ListwiseRanker.fit(
        features[:250],
        first[:250],
        label[:250],
        mask[:250],
        options=options,
        generator=torch.Generator().manual_seed(0),
    )
    score = ranker.predict(features[250:], first[250:], mask[250:], strength=1.0)
    found = (score.argmax(axis=1) == label[250:].argmax(axis=1)).mean()
    chance = (first[250:].argmax(axis=1) == label[250:].argmax(axis=1)).mean()
    assert found > chance + 0.2


def test_the_network_ignores_order_and_padding() -> None:
    features, first, label, mask = lists_with_context()
    ranker = ListwiseRanker.fit(
        features, first, label, mask, options=NETWORK, generator=torch.Generator().manual_seed(0)
    )
    score = ranker.predict(features[:4], first[:4], mask[:4])
    turned = ranker.predict(features[:4, ::-1], first[:4, ::-1], mask[:4])
    np.testing.assert_allclose(turned[:, ::-1], score, atol=1e-5)
    wide = ((0, 0), (0, 3))
    padded = ranker.predict(
        np.pad(features[:4], (*wide, (0, 0)), constant_values=99.0),
        np.pad(first[:4], wide, constant_values=99.0),
        np.pad(mask[:4], wide),
    )
    np.testing.assert_allclose(padded[:, :6], score, atol=1e-5)
    assert np.isneginf(padded[:, 6:]).all()
    assert np.array_equal(
        ranker.predict(features[:4], first[:4], mask[:4], strength=0.0).argsort(axis=1),
        first[:4].argsort(axis=1),
    )


def test_listwise_names_what_is_wrong() -> None:
    features, first, label, mask = lists_with_context()
    generator = torch.Generator()
    with pytest.raises(ValueError, match=r"features must be \[Q, C, F\]"):
        ListwiseRanker.fit(features, first[:, :2], label, mask, generator=generator)
    with pytest.raises(ValueError, match="label must have a positive"):
        ListwiseRanker.fit(features, first, label * 0, mask, generator=generator)


def test_both_stages_together(rows: RankingRows, tmp_path: Path) -> None:
    fold = rows.request_index % 3
    fitted = fit_ranker(
        rows,
        fold,
        lambda score: hits_at_2(rows, score),
        gbdt=TREES,
        listwise=NETWORK,
        top=6,
        seed=1,
    )
    again = fit_ranker(
        rows,
        fold,
        lambda score: hits_at_2(rows, score),
        gbdt=TREES,
        listwise=NETWORK,
        top=6,
        seed=1,
    )
    score = fitted.ranker.score(rows.features, rows.request_index)
    assert np.array_equal(score, again.ranker.score(rows.features, rows.request_index))
    assert hits_at_2(rows, fitted.held_out) == max(fitted.listwise_value.values())
    assert fitted.first_value[fitted.num_trees] == max(fitted.first_value.values())
    assert hits_at_2(rows, fitted.held_out_first) > 0.5  # 1/6 by chance

    fitted.ranker.listwise.strength = 1.0  # type: ignore[union-attr]
    score = fitted.ranker.score(rows.features, rows.request_index)
    first = fitted.ranker.gbdt.predict(rows.features)
    for request in range(60):
        own = rows.request_index == request
        assert sorted(score[own]) == pytest.approx(sorted(first[own]))
        below = np.argsort(-first[own], kind="stable")[6:]
        assert np.array_equal(score[own][below], first[own][below])

    fitted.ranker.save(tmp_path)
    loaded = Ranker.load(tmp_path)
    assert np.array_equal(loaded.score(rows.features, rows.request_index), score)


def test_one_fold_is_refused(rows: RankingRows) -> None:
    with pytest.raises(ValueError, match="at least two folds"):
        fit_ranker(rows, np.zeros(720, dtype=int), lambda score: 0.0)


def test_a_missing_ranker_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no ranker in"):
        Ranker.load(tmp_path)
    (tmp_path / "ranker.json").write_text('{"format": 9}')
    with pytest.raises(ArtifactError, match="must have format 1, got 9"):
        Ranker.load(tmp_path)
    with pytest.raises(ArtifactError, match=r"no trees in .*gbdt\.json is missing"):
        GbdtRanker.load(tmp_path)


def test_features_may_have_names_that_lightgbm_refuses(rows: RankingRows, tmp_path: Path) -> None:
    names = ('price, "net" [EUR]: {a}', "a b")
    plain = GbdtRanker.fit(
        rows.features, rows.label, rows.request_index, feature_names=("a", "b"), options=TREES
    )
    trees = GbdtRanker.fit(
        rows.features, rows.label, rows.request_index, feature_names=names, options=TREES
    )
    np.testing.assert_array_equal(trees.predict(rows.features), plain.predict(rows.features))
    trees.save(tmp_path)
    loaded = GbdtRanker.load(tmp_path)
    assert loaded.feature_names == names
    assert list(loaded.importance()) == list(trees.importance())
    np.testing.assert_array_equal(loaded.predict(rows.features), plain.predict(rows.features))
