"""What a user disliked is no like anywhere, and nothing that the user is shown again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.tables import Histories
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import Dataset, passed_over, read_dataset
from recsys.pipeline import evaluate, train
from recsys.pipeline.measuring import ask_funnel
from recsys.recommender import Recommender
from recsys.recommender.past import FreshEvent
from serving.jobs.candidates import build_candidates

DAY = 86_400
SETTINGS: dict[str, Any] = {
    "retrieval": {"sources": ["item_item", "co_occurrence", "popularity"]},
    "ranking": {
        "candidates_per_source": 30,
        "folds": 2,
        "gbdt": {"num_trees": 5, "min_data_in_leaf": 5},
        "listwise": {"enabled": False},
    },
    "evaluation": {"ks": [10], "bootstrap_samples": 10},
    "candidates": {"k": 30},
}


def world(directory: Path, **data: Any) -> Config:
    """40 users who view six items, buy two and hide two that their half of the users likes."""
    rng = np.random.default_rng(3)
    rows = []
    for user in range(40):
        own = rng.permutation(20)[:10] + 20 * (user % 2)
        kinds = ["view"] * 4 + ["hide", "buy", "view", "view", "hide", "buy"]
        for day, (item, kind) in enumerate(zip(own.tolist(), kinds, strict=True)):
            rows.append((f"u{user}", f"i{item:02}", 1_700_000_000 + day * DAY + user, kind))
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "what"], orient="row")
    log.write_csv(directory / "events.csv")
    return Config.model_validate(
        {
            **SETTINGS,
            "data": {
                "events": directory / "events.csv",
                "columns": {"event": "what"},
                "kinds": {"view": 0.5, "buy": 1.0, "hide": -1.0},
                **data,
            },
            "output": {"directory": directory / "artifacts"},
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Bundle, Dataset]:
    config = world(tmp_path_factory.mktemp("dislikes"), rules={"targets": ["buy"]})
    bundle = train(config)
    build_candidates(config, bundle)
    return config, bundle, read_dataset(config)


def hidden(data: Dataset) -> dict[str, set[str]]:
    assert data.interactions.dislikes is not None
    frame = data.interactions.dislikes.group_by("user_id").agg("item_id")
    return {user: set(items) for user, items in frame.iter_rows()}


def test_no_list_holds_what_its_user_hid(run: tuple[Config, Bundle, Dataset]) -> None:
    _, bundle, data = run
    everybody = hidden(data)
    assert all(len(items) == 2 for items in everybody.values())
    recommender = Recommender.load(bundle.path, mapped=True)
    in_memory = Recommender.load(bundle.path, interactions=data.interactions)
    for user, items in everybody.items():
        shown = [one.item_id for one in recommender.recommend(user, 30).items]
        assert shown
        assert not items & set(shown)
        assert shown == [one.item_id for one in in_memory.recommend(user, 30).items]
    from safetensors.numpy import load_file

    lists = load_file(bundle.path / "candidates/lists.safetensors")["item_index"]
    users = pl.read_parquet(bundle.path / "candidates/users.parquet")["user_id"]
    for user, row in zip(users, lists, strict=True):
        listed = recommender.item_ids.ids(row[row > 0])
        assert listed
        assert not everybody[user] & set(listed)


def test_a_hidden_item_is_wanted_nowhere(run: tuple[Config, Bundle, Dataset]) -> None:
    config, bundle, data = run
    answer = ask_funnel(config, bundle, data)
    log = pl.read_csv(config.data.events)  # type: ignore[arg-type]
    bought = log.filter(pl.col("what") == "buy").group_by("user_id").agg("item_id")
    wanted = {user: set(items) for user, items in bought.iter_rows()}
    for user, row in zip(data.user_list, range(len(data.user_list)), strict=True):
        truth = answer.truth.item_index[answer.truth.indptr[row] : answer.truth.indptr[row + 1]]
        assert set(data.item_ids.ids(truth)) <= wanted[user]
    assert answer.truth.counts.sum() == len(data.user_list)  # the last purchase of each
    assert "funnel" in evaluate(config, bundle, data=data)
    names = answer.rows.feature_names
    counts = answer.rows.features[:, names.index("item_hide_count")]
    assert counts.max() > 0


def test_the_share_of_lists_with_a_hidden_item_is_told(
    run: tuple[Config, Bundle, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 for every system; above it once nothing masks what was hidden."""
    config, bundle, data = run
    found = evaluate(config, bundle, data=data)
    assert {name: one.list_metrics["refused@10"] for name, one in found.items()} == dict.fromkeys(
        ["funnel", "retrieval + trees", *config.retrieval.sources], 0.0
    )
    told = json.loads((bundle.path / "evaluation.json").read_text())
    assert told["funnel"]["list_metrics"]["refused@10"] == 0.0
    assert "share of lists with an item that" in (bundle.path / "report.html").read_text()
    masked = Histories.hidden_mask

    def of_likes_alone(self: Histories, *arguments: Any) -> np.ndarray:
        return masked(replace(self, refused=None), *arguments)

    monkeypatch.setattr(Histories, "hidden_mask", of_likes_alone)
    answer = ask_funnel(config, bundle, data)
    judged = answer.judge(answer.lists(answer.score), np.random.default_rng(0))
    lists = answer.lists(answer.score).item_index[:, :10]
    before = answer.cut.history.refused
    assert before is not None
    rows = np.split(before.item_index, before.indptr[1:-1])
    shown = [bool(set(mine) & set(theirs)) for mine, theirs in zip(rows, lists, strict=True)]
    assert judged.list_metrics["refused@10"] == pytest.approx(np.mean(shown))
    assert np.mean(shown) > 0.2


def test_a_live_event_of_a_disliked_kind_takes_the_item_away(
    run: tuple[Config, Bundle, Dataset],
) -> None:
    _, bundle, _ = run
    recommender = Recommender.load(bundle.path, mapped=True)
    first, second = (one.item_id for one in recommender.recommend("u0", 2).items)
    later = 2_000_000_000_000_000
    hide = [FreshEvent(first, later, "hide")]
    found = [one.item_id for one in recommender.recommend("u0", 30, fresh=hide).items]
    assert first not in found
    assert second in found
    unheard = [FreshEvent(first, later, "scroll")]
    assert first in [one.item_id for one in recommender.recommend("u0", 30, fresh=unheard).items]
    nobody = recommender.recommend("stranger", 30, fresh=hide)
    assert nobody.source == "popularity"  # nothing is known of what the stranger likes
    assert first not in [one.item_id for one in nobody.items]


def test_kinds_weigh_in_every_source(tmp_path: Path) -> None:
    """The same log with views that hardly count recommends otherwise."""
    config = world(tmp_path, kinds={"view": 0.01, "buy": 1.0, "hide": -1.0})
    light = train(config)
    heavy = train(world(tmp_path, kinds={"view": 1.0, "buy": 0.01, "hide": -1.0}))
    for name in ("item_item", "co_occurrence", "popularity"):
        scores = []
        for bundle in (light, heavy):
            recommender = Recommender.load(bundle.path)
            data = read_dataset(config)
            histories = data.histories()
            moment = np.full(len(histories), 2_000_000_000_000_000)
            source = recommender.retrievers[recommender.source_names.index(name)]
            top = source.ask(histories, moment=moment, user_index=None).retrieve(10)
            scores.append(top.item_index)
        assert (scores[0] != scores[1]).any(), name


def test_what_was_passed_over_is_a_candidate_that_is_not_wanted(tmp_path: Path) -> None:
    """Items that were shown, or disliked, after the cut, and nothing from before it."""
    data = read_dataset(world(tmp_path, kinds={"view": 0.0, "buy": 1.0, "hide": -1.0}))
    log = pl.read_csv(tmp_path / "events.csv").filter(pl.col("user_id") == "u3")
    moment = 1_700_000_000 + 5 * DAY + 3
    found = passed_over(data, ["u3", "nobody"], np.full(2, moment * 1_000_000))
    assert found is not None
    later = log.filter((pl.col("timestamp") >= moment) & (pl.col("what") != "buy"))
    assert set(data.item_ids.ids(np.flatnonzero(found[0]))) == set(later["item_id"])
    assert later.height == 3  # views of days 6 and 7, and the second hide
    assert not found[1].any()
    none = read_dataset(world(tmp_path, kinds={"view": 1.0, "buy": 1.0, "hide": 1.0}))
    assert passed_over(none, ["u3"], np.full(1, moment)) is None
