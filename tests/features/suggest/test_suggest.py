from __future__ import annotations

import tomllib
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from features import (
    DataError,
    Interactions,
    ItemTable,
    UserTable,
    dump_definitions,
    load_definitions,
)
from features.suggest.suggestions import Suggestions, suggest_definitions

START = datetime(2023, 1, 1)
COLOURS = ["red", 'say "blue"\n', "green\\"]


def world(
    *, repeats: bool = True, weights: bool = True, days: float = 400.0
) -> tuple[Interactions, ItemTable, UserTable]:
    """Users who keep to one colour; items with columns of every sort."""
    rng = np.random.default_rng(1)
    num_items, num_users, num_events = 120, 40, 3_000
    colour = rng.integers(0, 3, num_items)
    user = rng.integers(0, num_users, num_events)
    taste = user % 3
    popularity = rng.uniform(0.3, 3.0, num_items)
    item = np.empty(num_events, dtype=np.int64)
    for place in range(3):
        mine = taste == place
        p = popularity * np.where(colour == place, 20.0, 1.0)
        item[mine] = rng.choice(num_items, mine.sum(), p=p / p.sum())
    quality = rng.normal(3, 0.7, num_items)
    weight = np.clip(np.round(quality[item] + rng.normal(0, 0.7, num_events)), 1, 5)
    time = np.sort(rng.uniform(0, days, num_events))
    frame = pl.DataFrame(
        {
            "user_id": [f"u{one}" for one in user],
            "item_id": [f"i{one}" for one in item],
            "timestamp": [START + timedelta(days=one) for one in time],
            "weight": weight if weights else np.ones(num_events),
            "event": np.where(rng.random(num_events) < 0.1, "buy", "view"),
        }
    )
    if not repeats:
        frame = frame.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    total = np.bincount(item, minlength=num_items)
    items = ItemTable.from_frame(
        pl.DataFrame(
            {
                "item_id": [f"i{one}" for one in range(num_items)],
                "colour": [COLOURS[one] for one in colour],
                "tags": [["x", "y"] if one % 2 else ["z"] for one in range(num_items)],
                "price": rng.uniform(1, 9, num_items),
                "year": rng.integers(1990, 2024, num_items),
                "total": total * 3 + rng.integers(0, 3, num_items),
                "constant": [7] * num_items,
                "serial": rng.permutation(num_items) + 10_000,
                "never": pl.Series([None] * num_items, dtype=pl.Float64),
                "title": [f"the {one}" for one in range(num_items)],
                "maker": [f"m{one % 50}" for one in range(num_items)],
                "item_count": rng.uniform(0, 1, num_items),
            }
        ),
        list_columns=["tags"],
    )
    users = UserTable.from_frame(
        pl.DataFrame(
            {
                "user_id": [f"u{one}" for one in range(num_users)],
                "age": rng.integers(18, 60, num_users),
                "city": [f"c{one % 4}" for one in range(num_users)],
            }
        )
    )
    return Interactions.from_frame(frame, now=datetime(2030, 1, 1)), items, users


@pytest.fixture(scope="module")
def found() -> Suggestions:
    events, items, users = world()
    rng = np.random.default_rng(0)
    return suggest_definitions(events, items, users, sample_events=400, max_categories=40, rng=rng)


def kept(found: Suggestions) -> dict[str, str]:
    return {one.definition.name: one.reason for one in found.kept}


def left(found: Suggestions) -> dict[str, str]:
    return dict(found.left_out)


def test_proposals_survive_the_trip_through_toml(found: Suggestions) -> None:
    definitions = tuple(one.definition for one in found.kept)
    assert load_definitions(tomllib.loads(found.to_toml())["features"]) == definitions
    assert len({one.name for one in definitions}) == len(definitions)


def test_columns_are_proposed_or_left_out_with_the_reason(found: Suggestions) -> None:
    proposed, out = kept(found), left(found)
    for name in ("price", "year_age", "colour_code", "user_age", "user_city_code", "tags_size"):
        assert name in proposed
    assert (
        "its rank correlation with the item's number of events in the whole log is 1.0"
        in (out["item.total"])
    )
    assert "constant: one value" in out["item.constant"]
    assert "120 whole numbers in 120 rows: an id" in out["item.serial"]
    assert "no value at all" in out["item.never"]
    assert "free text" in out["item.title"]
    assert "50 categories are too many for codes (over 40)" in out["maker_code"]
    assert "does not drift" in out["item.year"]
    # a column that is called like another feature gets a name of its own
    assert {"item_count", "field_item_count"} <= set(proposed)


def test_taste_shows_where_it_is(found: Suggestions) -> None:
    proposed = kept(found)
    assert "times as many as events of different users" in proposed["colour_affinity"]
    assert "taste does not show" in left(found)["tags_affinity"]
    signal = {one.definition.name: one.signal for one in found.kept}
    affinity = signal["colour_affinity"]
    assert affinity.auc is not None
    assert affinity.auc > 0.6
    assert affinity.users == 40
    assert signal["user_count"].auc is None
    strength = [abs(one.signal.auc - 0.5) for one in found.kept if one.signal.auc is not None]
    assert strength == sorted(strength, reverse=True)
    assert all(one.signal.auc is None for one in found.kept[len(strength) :])


def test_the_log_shapes_windows_priors_and_kinds(found: Suggestions) -> None:
    by_name = {one.definition.name: one.definition for one in found.kept}
    records = {one["name"]: one for one in dump_definitions(list(by_name.values()))}
    short, long = (records[f"item_count_{one}"]["window_days"] for one in ("short", "long"))
    assert 1 <= short < long <= 400
    assert records["item_trend"] == {
        "kind": "trend",
        "name": "item_trend",
        "short_days": short,
        "long_days": long,
    }
    assert 0.5 < records["item_mean_weight"]["prior_count"] < 5
    assert records["item_like_rate"]["threshold"] == found.events.weights.like
    assert found.events.weights.mean < found.events.weights.like < found.events.weights.mean + 1
    assert {"item_count_buy", "user_count_view", "user_item_count", "hour_of_day"} <= (
        set(by_name) | set(left(found))
    )
    assert "times that between items" in kept(found)["item_mean_weight"]


def test_the_sample_is_of_later_events(found: Suggestions) -> None:
    assert found.since > START + timedelta(days=300)
    assert found.users == 40
    assert 400 < found.rows <= 400 * 11
    assert all(0.01 <= one.signal.coverage <= 1 for one in found.kept)


def test_a_log_without_weights_repeats_or_time() -> None:
    events, items, _ = world(repeats=False, weights=False, days=0.5)
    found = suggest_definitions(events, items, sample_events=100, rng=np.random.default_rng(0))
    out = left(found)
    assert out["item_mean_weight"] == "all weights are 1"
    assert "only 0.0% of the events meet an item" in out["user_item_count"]
    assert "two windows do not fit" in out["item_trend"]
    assert "only the log covers 0.0 weeks" in out["day_of_week"]


def test_the_same_seed_gives_the_same_proposals() -> None:
    events, items, users = world()
    first, second = (
        suggest_definitions(
            events, items, users, sample_events=50, rng=np.random.default_rng(3)
        ).to_toml()
        for _ in range(2)
    )
    assert first == second


def test_arguments_are_checked() -> None:
    events, items, _ = world()
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="max_categories must be >= 2, got 1"):
        suggest_definitions(events, items, max_categories=1, rng=rng)
    with pytest.raises(DataError, match="interactions must have at least 2 events, got 1"):
        suggest_definitions(Interactions(events.frame.head(1)), items, rng=rng)
