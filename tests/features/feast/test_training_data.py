from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from features import DataError, InMemorySource
from features.feast.source import FeastSource
from features.feast.training_data import find_training_views, read_training_data
from tests.feast_repository import build_feast_repository, tables

START = datetime(2020, 1, 1)


def view(source: InMemorySource, name: str, keys: tuple[str, ...], **columns: object) -> None:
    frame = pl.DataFrame({**{key: ["a"] for key in keys}, "timestamp": [START], **columns})
    source.declare(name, keys)
    source.write(name, frame)


@pytest.fixture
def shop() -> InMemorySource:
    source = InMemorySource()
    view(source, "clicks", ("product_id", "customer_id"), event=["click"])
    view(source, "stock", ("product_id",), left=[3])
    view(source, "titles", ("product_id",), title=["A"])
    return source


def test_a_feast_repository_is_read_as_a_run_takes_it(tmp_path: Path) -> None:
    pytest.importorskip("feast", reason="the feast extra is not installed")
    source = FeastSource(build_feast_repository(tmp_path, users=5))
    found = find_training_views(source)
    assert (found.events, found.items, found.users) == ("ratings", "movies", "user_stats")
    assert (found.user_key, found.item_key) == ("user_id", "item_id")
    assert (found.event, found.weight) == ("event", "rating")
    assert found.reasons == (
        "'ratings' holds the events: the only view keyed by user_id and item_id",
        "'item_id' is the item's key and 'user_id' the user's",
        "'movies' describes the items: 4 columns of text or lists, more than 'movie_stats'",
        "'user_stats' describes the users: the only view keyed by 'user_id'",
        "events weigh their 'rating'",
    )
    log, items, users = read_training_data(source, found)
    assert log.frame.height == tables(5)["ratings"].height
    assert log.frame["weight"].sum() == pytest.approx(tables(5)["ratings"]["rating"].sum())
    assert items is not None
    assert users is not None
    assert len(items) == tables(5)["movies"].height
    assert (items.text_columns, items.list_columns) == (("title",), ("genres",))
    assert users.frame["user_id"].to_list() == sorted(str(user) for user in range(1, 6))
    middle = log.frame["timestamp"][log.frame.height // 2]
    past, *_ = read_training_data(source, found, as_of=middle)
    assert past.frame["timestamp"].max() == middle


def test_roles_by_name_and_views_by_what_they_hold(shop: InMemorySource) -> None:
    found = find_training_views(shop)
    assert (found.user_key, found.item_key) == ("customer_id", "product_id")
    assert (found.events, found.items, found.users) == ("clicks", "titles", None)
    assert found.reasons[-1] == (
        "no view is keyed by 'customer_id' alone, so nothing describes the users"
    )
    assert find_training_views(shop, items="stock").items == "stock"
    log, items, users = read_training_data(shop, found)
    assert (log.frame["item_id"].to_list(), users) == (["a"], None)
    assert items is not None
    assert items.frame.columns == ["item_id", "title"]


def test_events_do_not_expire(shop: InMemorySource) -> None:
    frame = pl.DataFrame(
        {"customer_id": ["a"] * 2, "product_id": ["a", "b"], "timestamp": [START] * 2, "n": [1, 2]}
    )
    shop.declare("affinity", ("customer_id", "product_id"), ttl=timedelta(days=1))
    shop.write("affinity", frame)
    found = find_training_views(shop)
    assert found.events == "clicks"
    assert found.reasons[0].endswith("with no ttl and 1 rows; not 'affinity'")
    assert find_training_views(shop, events="affinity").weight is None


def test_the_newest_row_of_an_item_is_taken(shop: InMemorySource) -> None:
    new = pl.DataFrame(
        {
            "product_id": ["a", "b"],
            "timestamp": [START + timedelta(days=1)] * 2,
            "title": ["B", "C"],
        }
    )
    shop.write("titles", new)
    found = find_training_views(shop)
    _, items, _ = read_training_data(shop, found)
    _, earlier, _ = read_training_data(shop, found, as_of=START)
    assert items is not None
    assert earlier is not None
    assert items.frame.rows() == [("a", "B"), ("b", "C")]
    assert earlier.frame.rows() == [("a", "A")]


def test_what_cannot_be_found(shop: InMemorySource) -> None:
    with pytest.raises(DataError, match=r"view 'click' must exist .* did you mean 'clicks'"):
        find_training_views(shop, events="click")
    with pytest.raises(DataError, match="events must be a view keyed by user and item, got"):
        find_training_views(shop, events="stock")
    with pytest.raises(DataError, match="items must be a view keyed by 'product_id' alone"):
        find_training_views(shop, items="clicks")
    with pytest.raises(DataError, match="view 'clicks' must have rows to train on"):
        read_training_data(shop, find_training_views(shop), as_of=datetime(2000, 1, 1))
    only = InMemorySource()
    view(only, "stock", ("product_id",), left=[3])
    with pytest.raises(DataError, match=r"a user and an item as its keys .*got stock: product_id"):
        find_training_views(only)
    view(only, "pairs", ("left_id", "right_id"), n=[1])
    with pytest.raises(DataError, match="must tell the user from the item, got 'left_id'"):
        find_training_views(only)
