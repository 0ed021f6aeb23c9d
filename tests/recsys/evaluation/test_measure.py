from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.tables import Histories
from recsys.errors import ArtifactError, ConfigError
from recsys.evaluation import Evaluation, Interval, Truth, compare, evaluate
from recsys.topk import TopK

POPULARITY = np.array([0, 50, 4, 3, 2, 1, 0, 0, 0, 0, 0])  # N = 10: head is item 1, cold 6..10


def lists(item_index: list[list[int]]) -> TopK:
    found = np.array(item_index)
    return TopK(found, np.where(found >= 1, 0.0, -np.inf).astype(np.float32))


@pytest.fixture
def small(rng: np.random.Generator) -> Evaluation:
    """Three users judged, one left out."""
    return evaluate(
        lists([[1, 2, 3], [1, 6, 2], [5, 4, 3], [1, 2, 3]]),
        Truth.from_lists([[1, 9], [2], [], [2, 3]]),
        popularity=POPULARITY,
        rng=rng,
        ks=(1, 3),
        history_length=np.array([3, 5, 100, 9]),
        user_ids=["ann", "bob", "cy", "dee"],
    )


def test_numbers_by_hand(small: Evaluation) -> None:
    assert (small.users, small.left_out, small.num_items) == (3, 1, 10)
    assert small.per_user["user_id"].to_list() == ["ann", "bob", "dee"]
    assert small.per_user["num_relevant"].to_list() == [2, 1, 2]
    assert small.per_user["history_length"].to_list() == [3, 5, 9]
    assert small.per_user["recall@3"].to_list() == [0.5, 1.0, 1.0]
    assert small.per_user["recall@1"].to_list() == [0.5, 0.0, 0.0]
    assert small.metrics["recall@3"].mean == pytest.approx(2.5 / 3)
    assert small.metrics["recall@3"].users == 3
    assert small.metrics["mrr@3"].mean == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    assert small.list_metrics["coverage@3"] == pytest.approx(0.6)
    assert small.list_metrics["coverage@1"] == pytest.approx(0.2)
    assert small.headline_k == 3
    np.testing.assert_allclose(small.recall_curve, [0.5 / 3, 1.0 / 3, 2.5 / 3])


def test_every_mean_is_that_of_its_column_and_in_its_interval(small: Evaluation) -> None:
    for name, interval in small.metrics.items():
        assert interval.mean == pytest.approx(small.per_user[name].mean())
        assert interval.low <= interval.mean <= interval.high


def test_slices_by_hand(small: Evaluation) -> None:
    found = {part.name: part for part in small.slices}
    assert list(found) == [
        "head items",
        "tail items",
        "cold items",
        "short histories",
        "long histories",
    ]
    assert [(p.users, p.relevant) for p in small.slices] == [(1, 1), (2, 3), (1, 1), (2, 3), (1, 2)]
    assert found["head items"].metrics["recall@3"].mean == 1.0
    assert found["cold items"].metrics["recall@3"].mean == 0.0
    # dee wants 2 and 3 and gets them at ranks 2 and 3; bob wants 2 and gets it at rank 3
    assert found["tail items"].metrics["mrr@3"].mean == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert found["short histories"].metrics["recall@3"].mean == 0.75


def test_slice_without_users_has_no_numbers(rng: np.random.Generator) -> None:
    found = evaluate(
        lists([[1, 2]]), Truth.from_lists([[1]]), popularity=POPULARITY, rng=rng, ks=[2]
    )
    tail = found.slices[1]
    assert (tail.name, tail.users, tail.relevant, dict(tail.metrics)) == ("tail items", 0, 0, {})
    assert [part.name for part in found.slices] == ["head items", "tail items", "cold items"]
    assert "history_length" not in found.per_user.columns
    assert found.per_user["user_id"].to_list() == ["0"]
    assert "tail items" in found.to_table()


def test_share_of_lists_with_what_was_refused(rng: np.random.Generator) -> None:
    """One list of three holds an item that its own user refused, in its third place."""

    def of(rows: list[list[int]]) -> Histories:
        items = np.array([item for row in rows for item in row], dtype=np.int64)
        indptr = np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64)
        return Histories(indptr, items, np.zeros_like(items), np.ones(items.size, np.float32))

    def measured(refused: Histories | None) -> Evaluation:
        return evaluate(
            lists([[1, 2, 3], [4, 5, 6], [3, 2, -1]]),
            Truth.from_lists([[1], [4], [2]]),
            popularity=POPULARITY,
            rng=rng,
            ks=(1, 3),
            met=replace(of([[7], [7], [7]]), refused=refused),
        )

    found = measured(of([[3], [1], []]))
    assert found.list_metrics["refused@1"] == 0.0
    assert found.list_metrics["refused@3"] == pytest.approx(1 / 3)
    assert measured(of([[8], [], [1]])).list_metrics["refused@3"] == 0.0
    for nothing in (None, of([[], [], []])):
        assert not any(name.startswith("refused") for name in measured(nothing).list_metrics)


def test_exposure_by_hand(small: Evaluation) -> None:
    # Ten items, ten groups: item 1 is the first. 12 places: item 1 thrice, 2 thrice, 3 thrice.
    np.testing.assert_allclose(
        small.exposure.recommended, np.array([3, 3, 3, 1, 1, 1, 0, 0, 0, 0]) / 12
    )
    np.testing.assert_allclose(small.exposure.wanted, np.array([1, 2, 1, 0, 0, 0, 0, 0, 1, 0]) / 5)


def test_few_items_make_few_groups(rng: np.random.Generator) -> None:
    found = evaluate(
        lists([[1]]), Truth.from_lists([[1]]), popularity=np.array([0, 2, 1]), rng=rng, ks=[1]
    )
    assert found.exposure.recommended == (1.0, 0.0)


def test_callable_is_asked_once_for_the_largest_k(rng: np.random.Generator) -> None:
    asked: list[int] = []

    def recommend(k: int) -> TopK:
        asked.append(k)
        return lists([[1, 2, 3, 4][:k]])

    found = evaluate(
        recommend,
        Truth.from_lists([[2]]),
        popularity=POPULARITY,
        rng=rng,
        ks=(1, 2),
        metrics=["recall", "ndcg@4", "coverage@3", "recall@2"],
    )
    assert asked == [4]
    assert list(found.metrics) == ["recall@1", "recall@2", "ndcg@4"]
    assert list(found.list_metrics) == ["coverage@3"]


def test_headline_is_twenty_where_there_is_one(rng: np.random.Generator) -> None:
    shown = lists([list(range(1, 51))])
    found = evaluate(shown, Truth.from_lists([[2]]), popularity=np.ones(51), rng=rng, ks=(20, 50))
    assert found.headline_k == 20
    assert len(found.recall_curve) == 50


def test_same_seed_same_numbers() -> None:
    rng = np.random.default_rng(9)
    shown = lists((np.argsort(rng.random((40, 10)), axis=1)[:, :4] + 1).tolist())
    truth = Truth.from_lists([[1 + row % 10, 1 + 3 * row % 10] for row in range(40)])

    def made(seed: int, **settings: Any) -> Evaluation:
        seeded = np.random.default_rng(seed)
        return evaluate(shown, truth, popularity=POPULARITY, rng=seeded, ks=(4,), **settings)

    assert made(1).to_json() == made(1).to_json()
    assert made(1).to_json() != made(2).to_json()
    assert made(1).to_json() != made(1, resamples=50).to_json()
    narrow, wide = made(1, level=0.5), made(1)
    assert narrow.level == 0.5
    assert narrow.metrics["recall@4"].low > wide.metrics["recall@4"].low


def test_compare(small: Evaluation, rng: np.random.Generator) -> None:
    other = evaluate(
        lists([[9, 1, 3], [1, 6, 3], [5, 4, 3], [1, 9, 3]]),
        Truth.from_lists([[1, 9], [2], [], [2, 3]]),
        popularity=POPULARITY,
        rng=rng,
        ks=(3,),
        user_ids=["ann", "bob", "cy", "dee"],
    )
    found = compare(small, other, "recall@3", rng=rng, resamples=100)
    assert found.mean == pytest.approx((-0.5 + 1.0 + 0.5) / 3)
    assert found.users == 3
    with pytest.raises(ValueError, match=r"metric must be one b has per user \(recall@3, .*@1'"):
        compare(small, other, "recall@1", rng=rng)
    with pytest.raises(ValueError, match=r"metric must be one a has per user .* 'coverage@3'"):
        compare(small, other, "coverage@3", rng=rng)
    stranger = evaluate(
        lists([[1]]), Truth.from_lists([[1]]), popularity=POPULARITY, rng=rng, ks=[1]
    )
    with pytest.raises(ValueError, match="judged on the same users in the same order: got 3 and 1"):
        compare(small, stranger, "recall@1", rng=rng)


def test_table(small: Evaluation) -> None:
    text = small.to_table()
    assert text.startswith("3 users judged, 1 left out (no relevant item), 10 items\n")
    lines = text.splitlines()
    assert lines[2].split() == ["metric", "mean", "95%", "interval"]
    (row,) = [line for line in lines if line.startswith("recall@3")]
    low, high = small.metrics["recall@3"].low, small.metrics["recall@3"].high
    assert row.split() == ["recall@3", "0.8333", f"{low:.4f}", "..", f"{high:.4f}"]
    assert any(line.split()[:2] == ["coverage@3", "0.6000"] for line in lines)
    assert any(line.startswith("cold items") and line.split()[2:4] == ["1", "1"] for line in lines)
    header = lines.index(next(line for line in lines if line.startswith("slice")))
    ends = {len(line) for line in lines[header + 1 :]}
    assert len(ends) == 1, "columns are aligned"


def test_json_is_plain(small: Evaluation) -> None:
    found = json.loads(small.to_json())
    assert found["format"] == 1
    assert found["users"] == 3
    assert found["left_out"] == 1
    assert found["metrics"]["recall@3"]["mean"] == pytest.approx(2.5 / 3)
    assert set(found["metrics"]["recall@3"]) == {"mean", "low", "high", "users"}
    assert found["slices"][0]["name"] == "head items"


def test_save_and_load(small: Evaluation, tmp_path: Path) -> None:
    small.save(tmp_path / "made")
    loaded = Evaluation.load(tmp_path / "made")
    assert loaded.to_dict() == small.to_dict()
    assert loaded.per_user.equals(small.per_user)
    assert isinstance(loaded.metrics["recall@3"], Interval)
    assert loaded.to_table() == small.to_table()


def test_load_refuses(small: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no evaluation in"):
        Evaluation.load(tmp_path)
    small.save(tmp_path)
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 9}))
    with pytest.raises(ArtifactError, match="must have format 1, got 9; evaluate again"):
        Evaluation.load(tmp_path)
    path.write_text("{")
    with pytest.raises(ArtifactError, match=r"evaluation\.json is damaged .*; evaluate again"):
        Evaluation.load(tmp_path)
    path.write_text(small.to_json())
    (tmp_path / "users.parquet").write_bytes(b"no parquet")
    with pytest.raises(ArtifactError, match=r"the evaluation in .* is damaged"):
        Evaluation.load(tmp_path)
    (tmp_path / "users.parquet").unlink()
    with pytest.raises(ArtifactError, match="no evaluation in"):
        Evaluation.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"truth": Truth.from_lists([[], []])}, ValueError, "at least one user, all 2 have none"),
        ({"truth": Truth.from_lists([[1]])}, ValueError, "one row per row of the truth: got 2"),
        ({"user_ids": ["a"]}, ValueError, "user_ids must have one entry per row .* got 1 for 2"),
        ({"popularity": np.ones(3)}, ValueError, "cover every item of the truth: got 3 rows for"),
        ({"history_length": np.ones(3)}, ValueError, "history_length must have one entry per row"),
        ({"ks": (3,)}, ValueError, "k must not exceed the length of the lists: got 3 for lists of"),
        ({"ks": ()}, ValueError, "metrics and ks must name at least one metric per user"),
        ({"metrics": ["coverage"]}, ValueError, "metrics and ks must name at least one metric per"),
        ({"metrics": ["recal"]}, ConfigError, "unknown metric 'recal'"),
        ({"ks": (0,)}, ConfigError, "must read like recall@20 with a cutoff >= 1, got 'recall@0'"),
    ],
)
def test_refusals(
    changes: dict[str, Any], error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    arguments: dict[str, Any] = {
        "truth": Truth.from_lists([[1], [4]]),
        "popularity": POPULARITY,
        "ks": (2,),
    }
    with pytest.raises(error, match=message):
        evaluate(lists([[1, 2], [3, 4]]), rng=rng, **(arguments | changes))


def test_table_of_users_is_polars(small: Evaluation) -> None:
    assert small.per_user.schema["recall@3"] == pl.Float64
    assert small.per_user.schema["user_id"] == pl.String
