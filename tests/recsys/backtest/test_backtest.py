"""A backtest of a small log, without towers: agreement, resumption, what is written."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.errors import DataError
from features.moments import microseconds
from recsys.backtest import origins as backtest_origins
from recsys.backtest.origins import FUNNEL, POPULAR, Measured, config_at, measure
from recsys.backtest.report import as_dict, notes, tables, write_report
from recsys.backtest.run import Backtest, backtest
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import read_dataset
from recsys.errors import ConfigError
from recsys.pipeline import evaluate
from recsys.pipeline.lineage import trained_until

START = datetime(2026, 1, 1)
DAYS = 60
NEW_FROM = 40


def events() -> pl.DataFrame:
    """Forty users with tastes of their own; later days have users and items of their own."""
    rng = np.random.default_rng(7)
    rows = []
    for day in range(DAYS):
        for _ in range(14):
            user = int(rng.integers(40))
            if user >= 34 and day < NEW_FROM:
                continue
            item = int(rng.integers(6)) * 5 + user % 5 if rng.random() < 0.7 else rng.integers(30)
            name = f"new{item}" if day >= NEW_FROM and rng.random() < 0.2 else f"i{item}"
            rows.append((f"u{user}", name, START + timedelta(days=day, seconds=len(rows))))
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def config_of(directory: Path, log: pl.DataFrame, **sections: Any) -> Config:
    log.write_parquet(directory / "events.parquet")
    return Config.model_validate(
        {
            "data": {"events": directory / "events.parquet"},
            "output": {"directory": directory / "out"},
            "retrieval": {"sources": ("item_item", "popularity")},
            "ranking": {
                "candidates_per_source": 15,
                "folds": 2,
                "gbdt": {"num_trees": 5, "min_data_in_leaf": 5},
                "listwise": {"enabled": False},
            },
            "evaluation": {"ks": (5, 10), "bootstrap_samples": 50},
            **sections,
        }
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return config_of(tmp_path_factory.mktemp("backtest"), events())


@pytest.fixture(scope="module")
def found(config: Config) -> Backtest:
    return backtest(config, origins=3, every="7d")


def at_origin(config: Config, found: Backtest, number: int) -> Config:
    name = found.windows[number].name
    return config_at(config, found.windows[number].begin, found.directory / name)


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(config: Config, **options: Any) -> Bundle:
        raise AssertionError("nothing was to be trained")

    monkeypatch.setattr(backtest_origins, "train", train)


def test_a_model_saw_nothing_from_its_origin_on(config: Config, found: Backtest) -> None:
    data = read_dataset(config)
    for window, bundle in zip(found.windows, found.bundles, strict=True):
        newest = int(trained_until(bundle, data).max())
        before = [
            microseconds(time)
            for time in data.interactions.frame["timestamp"]
            if microseconds(time) < microseconds(window.begin)
        ]
        assert newest == max(before)


def test_the_newest_origin_agrees_with_evaluate(config: Config, found: Backtest) -> None:
    wanted = evaluate(at_origin(config, found, 2), found.bundles[2])
    for system in (FUNNEL, "item_item", "popularity"):
        for metric in ("ndcg@5", "recall@10"):
            ours = found.intervals[2, 2][system][metric]
            assert ours.mean == pytest.approx(wanted[system].metrics[metric].mean)
            assert ours.users == wanted[system].users


def measured(config: Config, found: Backtest, number: int) -> list[Measured]:
    at = at_origin(config, found, number)
    return measure(at, found.bundles[number], found.windows[number:], ["recall@5"])


def test_popular_items_of_thirty_days_are_those_of_plain_loops(
    config: Config, found: Backtest
) -> None:
    window, one = found.windows[1], measured(config, found, 1)[0]
    log = read_dataset(config).interactions.frame.select("user_id", "item_id", "timestamp").rows()
    counts = Counter(
        item for _, item, time in log if window.begin - timedelta(days=30) <= time < window.begin
    )
    for user, recall in zip(one.users, one.values[POPULAR][:, 0], strict=True):
        met = {item for who, item, time in log if who == user and time < window.begin}
        wanted = {
            item for who, item, time in log if who == user and window.begin <= time < window.end
        }
        left = sorted((n for item, n in counts.items() if item not in met), reverse=True)
        sure = {i for i, n in counts.items() if i not in met and n > left[5]}
        maybe = {i for i, n in counts.items() if i not in met and n == left[5]}
        lowest = len(wanted & sure)
        highest = min(lowest + min(len(wanted & maybe), 5 - len(sure)), 5)
        assert lowest - 1e-9 <= recall * len(wanted) <= highest + 1e-9


def test_users_and_items_of_later_days_are_judged_too(config: Config, found: Backtest) -> None:
    log = read_dataset(config).interactions.frame
    oldest, last = found.windows[0], found.windows[2]
    aged, fresh = measured(config, found, 0)[2], measured(config, found, 2)[0]
    inside = log.filter((pl.col("timestamp") >= last.begin) & (pl.col("timestamp") < last.end))
    assert sorted(aged.users) == sorted(fresh.users) == inside["user_id"].unique().sort().to_list()
    known = set(log.filter(pl.col("timestamp") < oldest.begin)["user_id"])
    assert set(aged.users) - known
    assert POPULAR in fresh.values
    assert POPULAR not in aged.values


def test_every_pair_of_origin_and_later_window_is_measured(found: Backtest) -> None:
    assert set(found.intervals) == {(a, b) for a in range(3) for b in range(a, 3)}
    by_age = found.losses[FUNNEL]["ndcg@10"]
    assert [(one.age, one.windows) for one in by_age] == [(1, 2), (2, 1)]
    fresh = np.mean([found.intervals[n, n][FUNNEL]["ndcg@10"].mean for n in (1, 2)])
    aged = np.mean([found.intervals[n - 1, n][FUNNEL]["ndcg@10"].mean for n in (1, 2)])
    assert (by_age[0].fresh, by_age[0].aged) == pytest.approx((fresh, aged))
    assert found.systems == [FUNNEL, "item_item", "popularity", POPULAR]
    assert found.headline == ("ndcg@10", "recall@10")


def test_a_second_run_takes_everything_over(
    config: Config, found: Backtest, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch)
    again = backtest(config, origins=3, every="7d")
    assert again.taken_over == (True, True, True)
    assert not any(found.taken_over)
    assert [one.id for one in again.bundles] == [one.id for one in found.bundles]
    assert again.intervals == found.intervals
    assert again.losses == found.losses
    assert "3 of 3 models were finished before and taken over" in notes(again)
    other = config.model_copy(update={"evaluation": config.evaluation.but(ks=(3,))})
    assert backtest(other, origins=2, every="7d").metrics == ("ndcg@3", "recall@3")


def test_what_changed_is_trained_again(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, calls = config_of(tmp_path, events()), []
    train = backtest_origins.train

    def counting(at: Config, **options: Any) -> Bundle:
        calls.append(at.output.directory.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(at, **options)

    monkeypatch.setattr(backtest_origins, "train", counting)
    with pytest.raises(KeyboardInterrupt):
        backtest(own, origins=2, every="7d")
    first, second = calls
    assert backtest(own, origins=2, every="7d").taken_over == (True, False)
    assert calls == [first, second, second]
    ranking = own.ranking.model_copy(update={"candidates_per_source": 14})
    changed = own.model_copy(update={"ranking": ranking})
    found = backtest(changed, origins=2, every="7d")
    assert found.taken_over == (False, False)
    found.bundles[0].file("ranking/definitions.json").write_text("damaged")
    assert backtest(changed, origins=2, every="7d").taken_over == (False, True)


def test_nothing_is_trained_before_all_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch)
    own = config_of(tmp_path, events())
    with pytest.raises(ConfigError, match="the log must hold events before the oldest origin"):
        backtest(own, origins=9, every="7d")
    with pytest.raises(ConfigError, match="--horizon must be a time"):
        backtest(own, horizon="a week")
    single = config_of(tmp_path, events().with_columns(pl.lit("i").alias("item_id")))
    with pytest.raises(DataError, match="must be at least two, to choose from"):
        backtest(single, origins=2)
    assert not (tmp_path / "out").exists()


def test_the_report_holds_everything(found: Backtest) -> None:
    write_report(found)
    values = json.loads((found.directory / "backtest.json").read_text())
    assert values == json.loads(json.dumps(as_dict(found)))
    assert (values["origins"], values["every"], values["horizon"]) == (3, "7d", "7d")
    assert [one["bundle"] for one in values["windows"]] == [one.id for one in found.bundles]
    assert [one["age"] for one in values["measured"]] == ["0d", "7d", "14d", "0d", "7d", "0d"]
    assert values["advice"] == found.advice
    page = (found.directory / "backtest.html").read_text()
    assert found.advice in page
    assert "ndcg@10 by the age of the model" in page
    assert "http" not in page


def test_tables_show_each_origin_and_each_age(found: Backtest) -> None:
    origins, _, ages, _ = tables(found)
    assert origins.rows[0][:4] == ["origin", "users", FUNNEL, "item_item"]
    assert [row[0] for row in origins.rows[1:]] == [
        *(f"{window.begin:%Y-%m-%d %H:%M}" for window in found.windows),
        *("mean", "std. deviation", "smallest", "largest"),
    ]
    assert origins.rows[4][2] == f"{found.spread(FUNNEL, 'ndcg@10').mean:.4f}"
    assert [row[0] for row in ages.rows] == ["age", "7d", "14d"]


def test_what_models_go_without_and_windows_that_overlap_are_told(tmp_path: Path) -> None:
    log = events().filter(
        (pl.col("timestamp") >= START + timedelta(days=32)) | (pl.col("user_id") == "u1")
    )
    found = backtest(config_of(tmp_path, log), origins=2, every="14d", horizon="15d")
    told = notes(found)
    assert "windows overlap, so the origins differ less than independent ones would" in told
    oldest = f"{found.windows[0].begin:%Y-%m-%d}: ranking: left out"
    assert any(one.startswith(oldest) for one in told), told
