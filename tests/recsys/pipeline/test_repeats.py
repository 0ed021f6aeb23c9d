"""What a user met before: where it may be shown again, and where not."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import read_dataset
from recsys.errors import ConfigError
from recsys.pipeline import evaluate, train
from recsys.pipeline.fitness import find_fitness
from recsys.pipeline.lineage import Lineage
from recsys.recommender import Recommender
from recsys.recommender.past import FreshEvent
from recsys.simulation.trial.pipeline_arms import popular_arm, read_audience
from serving.assembly import met_before
from serving.jobs.candidates import build_candidates

DAY = 86_400
START = 1_700_000_000
SETTINGS: dict[str, Any] = {
    "split": {"kind": "time"},
    "retrieval": {"sources": ["item_item", "popularity", "buy_again"]},
    "ranking": {
        "candidates_per_source": 30,
        "folds": 2,
        "gbdt": {"num_trees": 10, "min_data_in_leaf": 5},
        "listwise": {"enabled": False},
    },
    "evaluation": {"ks": [5], "bootstrap_samples": 10},
    "candidates": {"k": 30},
}


def shop(directory: Path, **sections: Any) -> Config:
    """40 customers with three staples each, bought every week, and something new beside them."""
    rng = np.random.default_rng(5)
    rows = []
    for user in range(40):
        staples = rng.permutation(12)[:3]
        others = 12 + rng.permutation(28)
        for week in range(12):
            for item in (*staples, others[week]):
                seconds = START + week * 7 * DAY + user * 60
                rows.append((f"u{user}", f"i{item:02}", seconds, "buy" if item < 12 else "try"))
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "event"], orient="row")
    log.write_csv(directory / "events.csv")
    return Config.model_validate(
        {
            **SETTINGS,
            "data": {"events": directory / "events.csv"},
            "output": {"directory": directory / "artifacts"},
            **sections,
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Bundle]:
    config = shop(tmp_path_factory.mktemp("repeats"), slate={"repeats": "allow"})
    bundle = train(config)
    build_candidates(config, bundle)
    return config, bundle


def bought(config: Config, *, trained: bool = False) -> dict[str, set[str]]:
    data = read_dataset(config)
    log = data.split(config).train if trained else data.interactions
    frame = log.frame.group_by("user_id").agg("item_id")
    return {user: set(items) for user, items in frame.iter_rows()}


def lists_of(config: Config, bundle: Bundle) -> dict[str, list[str]]:
    from safetensors.numpy import load_file

    item_ids = Recommender.load(bundle.path).item_ids
    lists = load_file(bundle.path / "candidates" / "lists.safetensors")["item_index"]
    users = pl.read_parquet(bundle.path / "candidates" / "users.parquet")["user_id"]
    return {user: item_ids.ids(row[row > 0]) for user, row in zip(users, lists, strict=True)}


def staples_of(config: Config, user: str) -> set[str]:
    return {item for item in bought(config)[user] if item < "i12"}


def test_lists_and_live_answers_hold_what_is_bought_every_week(run: tuple[Config, Bundle]) -> None:
    config, bundle = run
    lists = lists_of(config, bundle)
    on_top = [len(staples_of(config, user) & set(lists[user][:3])) for user in lists]
    assert np.mean(on_top) > 2.5
    recommender = Recommender.load(bundle.path, mapped=True)
    slate = recommender.recommend("u7", 3)
    assert len({one.item_id for one in slate.items} & staples_of(config, "u7")) == 3
    fresh = FreshEvent("i05", START + 90 * DAY, "buy")
    again = recommender.recommend("u7", 30, fresh=[fresh])
    assert "i05" in {one.item_id for one in again.items}


def test_where_nothing_comes_again_no_list_holds_what_was_met(tmp_path: Path) -> None:
    config = shop(tmp_path)
    bundle = train(config)
    build_candidates(config, bundle)
    met = bought(config)
    assert all(not met[user] & set(items) for user, items in lists_of(config, bundle).items())
    left_out = [one.stage for one in find_fitness(config, read_dataset(config)).left_out]
    assert "buy_again" in left_out
    sources = json.loads((bundle.path / "recommender.json").read_text())["sources"]
    assert sources == ["item_item", "popularity"]


def test_a_kind_has_a_rule_of_its_own(tmp_path: Path) -> None:
    config = shop(tmp_path, slate={"repeats": "exclude", "kinds": {"buy": "after 3d"}})
    bundle = train(config)
    recommender = Recommender.load(bundle.path, interactions=read_dataset(config).interactions)
    staples = staples_of(config, "u7")
    now = recommender.as_of
    assert not staples & {one.item_id for one in recommender.recommend("u7", 40).items}
    later = recommender.recommend("u7", 40, moment=now + timedelta(days=4))
    shown = {one.item_id for one in later.items}
    assert staples <= shown
    assert not (bought(config, trained=True)["u7"] - staples) & shown


def test_repeats_and_new_items_are_judged_apart(run: tuple[Config, Bundle]) -> None:
    config, bundle = run
    funnel = evaluate(config, bundle)["funnel"]
    slices = {one.name: one for one in funnel.slices}
    again, new = slices["repeats"], slices["new"]
    assert again.relevant + new.relevant == sum(
        one.relevant for name, one in slices.items() if name.endswith("items")
    )
    assert again.metrics["recall@5"].mean > 0.8
    apart = slices["new, repeats left out"]
    assert apart.relevant == new.relevant
    assert apart.metrics["recall@5"].mean >= new.metrics["recall@5"].mean
    evidence = pl.read_parquet(bundle.path / "evidence" / "users.parquet")
    assert {"repeats", "new"} <= set(evidence["slice"].unique())


def test_a_bundle_is_used_with_the_rule_that_it_learned(run: tuple[Config, Bundle]) -> None:
    config, bundle = run
    other = config.model_copy(update={"slate": type(config.slate)(repeats="after 7d")})
    for use in (evaluate, build_candidates):
        with pytest.raises(
            ConfigError, match=r"slate must be as bundle .* 'allow'.* got 'after 7d'"
        ):
            use(other, bundle)


def test_a_ranker_that_stays_keeps_its_rule(run: tuple[Config, Bundle], tmp_path: Path) -> None:
    _, bundle = run
    with pytest.raises(ConfigError, match="slate must be as"):
        train(shop(tmp_path), lineage=Lineage(start=bundle, frozen_items=True))


def test_popular_items_of_a_simulation_may_be_met(
    run: tuple[Config, Bundle], tmp_path: Path
) -> None:
    config, _ = run
    shown = popular_arm("popular", read_audience(config), candidates=5)
    hidden = popular_arm("popular", read_audience(shop(tmp_path)), candidates=5)
    data = read_dataset(config)
    met = data.histories(data.split(config).train).seen_mask(data.num_items)
    users = np.arange(len(met))[:, None]
    assert met[users, shown.item_index].any()
    assert not met[users, hidden.item_index].any()


def test_what_a_user_had_is_told_where_it_may_be_shown(run: tuple[Config, Bundle]) -> None:
    config, bundle = run
    assert met_before(config, bundle.id, "u7") == bought(config)["u7"]
    assert met_before(config, bundle.id, "nobody") == frozenset()
    assert met_before(config, "gone", "u7") is None
    plain = config.model_copy(update={"slate": type(config.slate)()})
    assert met_before(plain, bundle.id, "u7") is None


def test_rules_that_are_none_are_refused_by_the_configuration(tmp_path: Path) -> None:
    for slate in ({"repeats": "sometimes"}, {"kinds": {"buy": "after"}}):
        with pytest.raises(ValueError, match="repeats must be 'exclude', 'allow' or 'after'"):
            shop(tmp_path, slate=slate)
