"""The drop-in online store in a real repository, next to Feast's own on the same bytes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

ONLINE = "features.feast.online_store.RecsysRedisOnlineStore"
PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = 1, 2, 3, 4
ITEMS = [1, 2, 3, 4, 77, 10, 1]


@pytest.fixture(scope="module")
def ours(shop):
    return shop.reopened(online=ONLINE)


@pytest.fixture(scope="module")
def stock(shop):
    return shop.reopened()


def columns(response):
    """By feature: values, statuses and timestamps of a response."""
    return {
        name: (
            [value.SerializeToString() for value in vector.values],
            list(vector.statuses),
            [stamp.ToNanoseconds() for stamp in vector.event_timestamps],
        )
        for name, vector in zip(
            response.proto.metadata.feature_names.val, response.proto.results, strict=True
        )
    }


def every_type(store):
    view = store.get_feature_view("item_types")
    return [f"item_types:{field.name}" for field in view.features]


def asked(store, features, rows, **options):
    if features == "items":
        features = store.get_feature_service(features)
    return store.get_online_features(features=features, entity_rows=rows, **options)


@pytest.mark.parametrize("full", [False, True])
def test_rows_that_are_there_equal_feasts(ours, stock, full) -> None:
    features = [*every_type(stock), "item_stats:clicks", "item_stats:rate"]
    rows = [{"item_id": item} for item in (2, 1, 2)]
    own = asked(ours, features, rows, full_feature_names=full)
    assert own.to_dict() == asked(stock, features, rows, full_feature_names=full).to_dict()
    assert columns(own) == columns(asked(stock, features, rows, full_feature_names=full))


def test_rows_that_are_not_there_or_old_say_so(ours, stock) -> None:
    rows = [{"item_id": item} for item in ITEMS]
    own, theirs = (columns(asked(store, "items", rows)) for store in (ours, stock))
    assert list(own) == list(theirs)
    values, statuses, stamps = own["clicks"]
    assert statuses == [PRESENT, PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE, NOT_FOUND, PRESENT, PRESENT]
    assert stamps == theirs["clicks"][2]  # also of the old row
    assert theirs["clicks"][1] == [PRESENT] * 7  # what Feast 0.67 says of all of them
    there = [0, 1, 5, 6]
    assert [values[place] for place in there] == [theirs["clicks"][0][place] for place in there]
    assert [values[place] for place in (2, 3, 4)] == [b"", b"", b""]
    assert theirs["clicks"][0][3] != b""
    assert own["text"][1] == [1, 1, NULL_VALUE, NOT_FOUND, NOT_FOUND, NOT_FOUND, 1]


def test_string_keys_and_pairs(ours, stock) -> None:
    for features, rows in [
        (["user_stats:clicks"], [{"user_id": "ü2"}, {"user_id": "u1"}]),
        (["pair_stats:clicks"], [{"user_id": "u1", "item_id": 1}, {"user_id": "ü2", "item_id": 2}]),
        (
            ["pair_stats:clicks", "user_stats:clicks", "item_stats:clicks"],
            [{"user_id": "u1", "item_id": 1}],
        ),
    ]:
        own, theirs = (
            asked(store, features, rows, full_feature_names=True) for store in (ours, stock)
        )
        assert columns(own) == columns(theirs)


def test_a_missing_join_key_fails_as_feasts_does(ours, stock) -> None:
    for store in (ours, stock):
        with pytest.raises(KeyError, match="Missing join key values"):
            asked(store, ["user_stats:clicks"], [{"item_id": 1}])


def test_half_of_a_pair_is_answered_as_by_feast_but_not_found(ours, stock) -> None:
    own, theirs = (asked(one, ["pair_stats:clicks"], [{"user_id": "u1"}]) for one in (ours, stock))
    assert own.to_dict() == theirs.to_dict() == {"user_id": ["u1"], "clicks": [None]}
    assert columns(own)["clicks"][1] == [NOT_FOUND]


def test_the_async_path_answers_the_same(ours) -> None:
    rows = [{"item_id": item} for item in ITEMS]
    service = ours.get_feature_service("items")

    async def read():
        try:
            return await ours.get_online_features_async(features=service, entity_rows=rows)
        finally:
            client = ours._get_provider().online_store._client_async
            ours._get_provider().online_store._client_async = None
            await client.aclose()

    assert columns(asyncio.run(read())) == columns(asked(ours, "items", rows))


def test_versions_of_views_are_told_where_wanted(ours, stock) -> None:
    for features in ("items", every_type(stock)):
        own, theirs = (
            asked(store, features, [{"item_id": 1}], include_feature_view_version_metadata=True)
            for store in (ours, stock)
        )
        assert own.proto.metadata == theirs.proto.metadata
        assert len(own.proto.metadata.feature_view_metadata) == (2 if features == "items" else 1)


def test_reads_of_one_view_know_absent_and_old_rows(ours, stock) -> None:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    keys = [
        EntityKey(join_keys=["item_id"], entity_values=[Value(int64_val=item)])
        for item in (1, 4, 77)
    ]
    view = ours.get_feature_view("item_stats")
    own, theirs = (
        store._get_provider().online_store.online_read(store.config, view, keys, ["clicks"])
        for store in (ours, stock)
    )
    assert own[0] == theirs[0]
    assert own[1] == (theirs[1][0], None)
    assert own[2] == (None, None)


def test_writing_through_it_is_feasts_own(shop, ours) -> None:
    import pandas as pd

    rows = pd.DataFrame(
        {"user_id": ["w1"], "event_timestamp": [pd.Timestamp.now(tz="UTC")], "clicks": [9]}
    )
    before = shop.client.dbsize()
    ours.write_to_online_store("user_stats", rows)
    try:
        assert asked(ours, ["user_stats:clicks"], [{"user_id": "w1"}]).to_dict()["clicks"] == [9]
        assert asked(shop.store, ["user_stats:clicks"], [{"user_id": "w1"}]).to_dict()[
            "clicks"
        ] == [9]
    finally:
        (new,) = [key for key in shop.client.keys("*") if b"w1" in key]
        shop.client.delete(new)
    assert shop.client.dbsize() == before


def test_importing_the_package_leaves_feast_out() -> None:
    code = "import sys, features.feast, features.feast.direct; print('feast' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_metrics_of_the_process_stay_in_memory() -> None:
    """Importing Feast first would move every Prometheus metric of the process into files."""
    code = (
        "import features.feast, feast, feast.metrics, prometheus_client.values as values; "
        "print(values.ValueClass.__name__)"
    )
    clean = {name: value for name, value in os.environ.items() if "multiproc" not in name.lower()}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=clean,
    )
    assert done.stdout.strip() == "MutexValue"
