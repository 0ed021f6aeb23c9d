"""Slates of a log: what was shown together, chosen from and left alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.config import Config
from recsys.dataset import read_dataset
from recsys.pipeline import evaluate, train
from recsys.pipeline.shown_slates import ShownSlates, better_with, shown_slates
from recsys.ranking.ranker import RankerFit, RankingRows

START = 1_700_000_000


def config_of(directory: Path, rows: list[tuple[str, str, int, str]], **data: Any) -> Config:
    names = ["user_id", "item_id", "timestamp", "event"]
    log = pl.DataFrame(rows, schema=names, orient="row")
    log = log.with_columns(pl.col("timestamp") * 3_600 + START)
    log.write_csv(directory / "events.csv")
    kinds = {"click": 1.0, "shown": 0.0, "save": 0.5}
    return Config.model_validate(
        {
            "data": {"events": directory / "events.csv", "kinds": kinds, **data},
            "output": {"directory": directory / "artifacts"},
            "retrieval": {"sources": ["item_item", "popularity"]},
            "ranking": {
                "candidates_per_source": 20,
                "folds": 2,
                "gbdt": {"num_trees": 5, "min_data_in_leaf": 5},
                "listwise": {"enabled": False},
            },
            "evaluation": {"ks": [5], "bootstrap_samples": 10},
        }
    )


def test_a_slate_is_what_was_met_at_one_time_and_liked_in_part(tmp_path: Path) -> None:
    rows = [
        ("u", "a", 1, "click"), ("u", "b", 1, "shown"),  # before the user is asked
        ("u", "c", 5, "shown"), ("u", "b", 5, "click"), ("u", "a", 5, "shown"),
        ("u", "d", 6, "shown"), ("u", "a", 6, "shown"),  # nothing was chosen
        ("u", "d", 7, "click"), ("u", "c", 7, "click"),  # nothing was left alone
        ("u", "b", 8, "save"), ("u", "c", 8, "shown"),  # no target
        ("v", "a", 9, "click"), ("v", "d", 9, "shown"), ("v", "a", 9, "shown"),
        ("w", "a", 9, "click"), ("w", "d", 9, "shown"),  # is not asked
    ]  # fmt: skip
    data = read_dataset(config_of(tmp_path, rows, rules={"targets": ["click"]}))
    asked = np.array([4, 0]) * 3_600_000_000 + START * 1_000_000
    found = shown_slates(data, ["u", "v"], asked)
    assert found is not None
    hours = (found.moment - START * 1_000_000) // 3_600_000_000
    assert (found.row.tolist(), hours.tolist()) == ([0, 1], [5, 9])
    slates = [
        {
            data.item_ids.ids([item])[0]: liked
            for item, liked in zip(items.tolist(), wanted.tolist(), strict=True)
            if item > 0
        }
        for items, wanted in zip(found.item_index, found.wanted, strict=True)
    ]
    assert slates == [{"a": False, "b": True, "c": False}, {"a": True, "d": False}]
    assert (np.diff(found.item_index[0]) > 0).all()
    newest = shown_slates(data, ["u", "v"], asked, most=1)
    assert newest is not None
    assert newest.row.tolist() == [1]
    assert shown_slates(data, ["u"], np.array([START * 2_000_000])) is None
    likes = [row for row in rows if row[3] == "click"]
    assert shown_slates(read_dataset(config_of(tmp_path, likes)), ["u", "v"], asked) is None


@pytest.mark.parametrize("helps", [True, False])
def test_they_are_learned_from_where_that_serves_the_candidates(helps: bool) -> None:
    names = ("x",)
    rows = RankingRows(np.ones((3, 1)), np.array([1, 0, 0]), np.array([0, 0, 1]), names)
    others = RankingRows(np.zeros((2, 1)), np.array([0, 1]), np.array([0, 0]), names)
    index = np.array([[1, 2]])
    slates = ShownSlates(np.array([1]), np.array([9]), index, index > 1)
    alone = RankerFit(None, np.zeros(3), np.full(3, 0.5), 1, 0.0, {}, {})  # type: ignore[arg-type]
    seen: list[tuple[RankingRows, np.ndarray]] = []

    def fit(both: RankingRows, fold: np.ndarray, quality: Any) -> RankerFit:
        seen.append((both, fold))
        assert quality(np.arange(5.0)) == 2.0  # of the candidates' scores alone
        value = 0.9 if helps else 0.1
        return alone._replace(held_out_first=np.zeros(5), held_out=np.full(5, value))

    found = better_with(
        alone, fit, lambda score: float(score.max()), rows, np.array([0, 1]), others, slates
    )
    ((both, fold),) = seen
    assert both.request_index.tolist() == [0, 0, 1, 2, 2]
    assert both.label.tolist() == [1, 0, 0, 0, 1]
    assert fold.tolist() == [0, 0, 1, 1, 1]  # a slate is in the fold of its user
    assert (found is alone) != helps
    assert found.held_out.shape == found.held_out_first.shape == (3,)


def test_a_run_with_impressions_ends_with_a_bundle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(40):
        for hour in range(8):
            shown = rng.permutation(30)[:6]
            liked = shown[np.argmin((shown - user) % 30)]
            for item in shown.tolist():
                kind = "click" if item == liked else "shown"
                rows.append((f"u{user}", f"i{item}", hour * 5 + user % 5, kind))
    config = config_of(tmp_path, rows)
    with caplog.at_level(logging.INFO, "recsys.pipeline.shown_slates"):
        bundle = train(config)
    assert "shown slates: " in caplog.text
    assert "funnel" in evaluate(config, bundle)
