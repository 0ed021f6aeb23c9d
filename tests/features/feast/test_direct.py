"""The direct tier on a real server: Feast's values, the ttl, absent rows, one entity or two."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from features.errors import DataError
from features.feast.direct import AsyncDirectReader, DirectReader, compile_plan
from features.feast.redis_format import EntityKeys, KeyType, hash_field, timestamp_field, varint
from features.feast.redis_reads import HashRequest, read_hashes, stored_ids
from tests.features.feast.conftest import definitions, write_yaml

TYPES = [
    *("float32", "float64", "int32", "int64", "flag", "moment", "text", "raw", "floats"),
    *("doubles", "whole", "flags", "texts", "moments", "options"),
]


class PipelineOnly:
    """A client that has a pipeline and no pool, as a cluster's has."""

    def __init__(self, client) -> None:
        self.pipeline = client.pipeline
        self.scan_iter = client.scan_iter


def test_every_type_equals_feasts(shop) -> None:
    features = [f"item_types:{name}" for name in TYPES]
    reader = DirectReader.open(shop.store, features, shop.client)
    assert reader.check(shop.store, [1, 2, 3, 77]) == 3
    block = reader.read([3, 77, 1])["item_types"]
    assert block.present.tolist() == [True, False, True]
    assert list(block.values) == [column.name for column in reader.plan.views[0].columns]
    assert block.values["text"][0] is None
    assert block.values["float32"].dtype == np.float32
    assert np.isnan(block.values["int64"][:2]).all()


def test_a_service_of_two_views_is_one_read(shop) -> None:
    reader = DirectReader.open(shop.store, "items", shop.client)
    blocks = reader.read([1, 10, 4])
    assert sorted(blocks) == ["item_stats", "item_types"]
    assert blocks["item_stats"].values["clicks"].tolist()[:2] == [3, 30]
    assert blocks["item_types"].present.tolist() == [True, False, False]
    assert sorted(blocks["item_types"].values) == ["float32", "text"]


def test_rows_beyond_the_ttl_are_not_present_but_have_an_age(shop) -> None:
    reader = DirectReader.open(shop.store, ["item_stats:clicks"], shop.client)
    block = reader.read([4, 1, 5])["item_stats"]
    assert block.present.tolist() == [False, True, False]
    assert block.age_s is not None
    days = block.age_s / 86400
    assert days[:2] == pytest.approx([40, 1], abs=0.1)
    assert np.isnan(days[2])
    assert np.isnan(block.values["clicks"]).tolist() == [True, False, True]


def test_the_moment_decides_and_the_ttl_includes_its_end(shop) -> None:
    reader = DirectReader.open(shop.store, ["item_stats:clicks"], shop.client)
    field = timestamp_field("item_stats")
    (key,) = reader.plan.keys.encode({"item_id": [4]})
    from google.protobuf.timestamp_pb2 import Timestamp

    written = Timestamp.FromString(shop.client.hget(key, field)).ToDatetime()
    ttl, step = timedelta(days=30), timedelta(microseconds=1)
    for moment, present in [(written + ttl, True), (written + ttl + step, False)]:
        for at in (moment, moment.replace(tzinfo=UTC)):
            assert reader.read([4], moment=at)["item_stats"].present.tolist() == [present]
    early = reader.read([4], moment=written - timedelta(seconds=5))["item_stats"]
    assert early.age_s is not None
    assert (early.present.tolist(), early.age_s.tolist()) == ([False], [-5.0])


def test_a_writer_whose_clock_is_ahead_counts_live(shop) -> None:
    reader = DirectReader.open(shop.store, ["item_stats:clicks"], shop.client)
    (key,) = reader.plan.keys.encode({"item_id": [1234]})
    now = datetime.now(UTC)
    stamp = b"\x08" + varint(int(now.timestamp()) + 60)
    fields = {timestamp_field("item_stats"): stamp, hash_field("item_stats", "clicks"): b"\x20\x05"}
    shop.client.hset(key, mapping=fields)
    try:
        assert reader.read([1234])["item_stats"].values["clicks"].tolist() == [5]
        assert not reader.read([1234], moment=now)["item_stats"].present.any()
    finally:
        shop.client.delete(key)


def test_two_join_keys_and_string_keys(shop) -> None:
    pair = DirectReader.open(shop.store, ["pair_stats:clicks"], shop.client)
    ids = {"item_id": ["1", "2", "1"], "user_id": ["u1", "ü2", "ü2"]}
    block = pair.read(ids)["pair_stats"]
    assert block.present.tolist() == [True, True, False]
    assert block.values["clicks"].tolist()[:2] == [7, 8]
    assert pair.check(shop.store, ids) == 2
    user = DirectReader.open(shop.store, ["user_stats:clicks"], shop.client)
    assert user.read(np.array(["ü2", "x"]))["user_stats"].present.tolist() == [True, False]
    with pytest.raises(DataError, match="ids must be a mapping of item_id, user_id, got one"):
        pair.read([1, 2])


def test_no_ids(shop) -> None:
    block = DirectReader.open(shop.store, "items", shop.client).read([])["item_stats"]
    assert block.present.shape == (0,)
    assert block.values["clicks"].shape == (0,)


def test_other_clients_read_the_same(shop) -> None:
    plan = compile_plan(shop.store, "items")
    ids = [1, 4, 77, 12]
    expected = DirectReader(plan, shop.client).read(ids)
    others = [DirectReader(plan, PipelineOnly(shop.client)).read(ids), read_async(shop, plan, ids)]
    for other in others:
        for view, block in expected.items():
            assert other[view].present.tolist() == block.present.tolist()
            for name, values in block.values.items():
                np.testing.assert_array_equal(other[view].values[name], values)


def read_async(shop, plan, ids):
    import redis.asyncio

    async def read():
        path = shop.client.connection_pool.connection_kwargs["path"]
        client = redis.asyncio.Redis(unix_socket_path=path)
        try:
            assert await AsyncDirectReader(plan, client).read([])
            return await AsyncDirectReader(plan, client).read(ids)
        finally:
            await client.aclose()

    return asyncio.run(read())


def test_widths_and_exact_numbers(shop) -> None:
    features = ["item_types:floats", "item_types:int64"]
    options = {"widths": {"floats": 4}, "exact": ["int64"]}
    reader = DirectReader.open(shop.store, features, shop.client, **options)
    values = reader.read([1, 77])["item_types"].values
    assert values["floats"].shape == (2, 4)
    assert values["int64"].tolist() == [2**53 - 1, None]
    assert reader.check(shop.store, [1, 2, 77]) == 2


def test_a_difference_from_feast_is_refused(shop) -> None:
    reader = DirectReader.open(shop.store, ["item_stats:clicks"], shop.client, sample=0)

    class Other(DirectReader):
        def read(self, ids, **options):
            blocks = super().read(ids, **options)
            blocks["item_stats"].values["clicks"][0] += 1
            return blocks

    with pytest.raises(DataError, match=r"item_stats:clicks must equal Feast's for item_id=10: "):
        Other(reader.plan, shop.client).check(shop.store, [10, 1])


def test_a_row_that_only_feast_has_is_a_difference(shop) -> None:
    plan = compile_plan(shop.store, ["item_stats:clicks"])
    elsewhere = plan._replace(keys=plan.keys._replace(project="other"))
    with pytest.raises(DataError, match="Feast answers 30, the hash says nan"):
        DirectReader(elsewhere, shop.client).check(shop.store, [10])


def test_stored_ids(shop) -> None:
    keys = EntityKeys({"item_id": KeyType.INT64}, "shop")
    assert sorted(stored_ids(shop.client, keys, limit=1000)["item_id"]) == [
        1,
        2,
        3,
        4,
        *range(10, 40),
    ]
    assert len(stored_ids(shop.client, keys, limit=5)["item_id"]) == 5
    assert stored_ids(shop.client, keys, limit=5, scan_limit=0) == {"item_id": []}


def test_a_failed_read_leaves_the_connection_clean(shop) -> None:
    import redis

    shop.client.set("text", "x")
    try:
        requests = [HashRequest([b"text", b"nothing"], [b"a"])]
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            read_hashes(shop.client, requests)
    finally:
        shop.client.delete("text")
    assert shop.client.ping()


def test_fields_of_several_requests_come_back_in_order(shop) -> None:
    items = EntityKeys({"item_id": KeyType.INT64}, "shop").encode({"item_id": [10, 77]})
    users = EntityKeys({"user_id": KeyType.STRING}, "shop").encode({"user_id": ["u1"]})
    requests = [
        HashRequest(items, [hash_field("item_stats", "clicks")]),
        HashRequest(users, [hash_field("user_stats", "clicks"), b"none"]),
    ]
    for client in (shop.client, PipelineOnly(shop.client)):
        assert read_hashes(client, requests) == [[b"\x20\x1e"], [None], [b"\x20\x05", None]]


def test_a_client_that_decodes_is_refused(shop) -> None:
    import redis

    plan = compile_plan(shop.store, "items")
    client = redis.Redis(decode_responses=True)
    with pytest.raises(DataError, match="client must return bytes"):
        DirectReader(plan, client)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["item_stats:clicks", "user_stats:clicks"], "view 'item_stats' has item_id, 'user_stats'"),
        ([], "features must name a feature service"),
    ],
)
def test_what_one_reader_cannot_do(shop, features, message) -> None:
    with pytest.raises(DataError, match=message):
        compile_plan(shop.store, features)


def test_other_key_versions_and_stores_are_refused(shop) -> None:
    store = shop.reopened()
    store.config.entity_key_serialization_version = 2
    with pytest.raises(DataError, match="entity_key_serialization_version must be 3, got 2"):
        compile_plan(store, "items")
    with pytest.raises(DataError, match="online_store must be Redis to be read directly, got 'sql"):
        compile_plan(shop.reopened(online="sqlite"), "items")


def test_versioned_views_are_read_under_their_stored_name(shop) -> None:
    import pandas as pd
    from feast import FeatureStore, FeatureView, Field, types

    home = shop.home.parent / "versioned"
    home.mkdir()
    text = write_yaml(shop.home).read_text().replace("project: shop", "project: versioned")
    registry = f"  path: {home}/registry.db\n  enable_online_feature_view_versioning: true"
    text = text.replace(f"registry: {shop.home}/registry.db", f"registry:\n{registry}")
    (home / "feature_store.yaml").write_text(text)
    store = FeatureStore(repo_path=str(home))
    _, user, *_ = everything = definitions(shop.home)
    view = next(one for one in everything if one.name == "user_stats")
    store.apply([user, view])
    schema = [*view.schema, Field(name="views", dtype=types.Int64)]
    wider = FeatureView(
        name=view.name, entities=[user], schema=schema, source=view.batch_source, ttl=view.ttl
    )
    store.apply([user, wider])
    rows = pd.DataFrame(
        {"user_id": ["v"], "event_timestamp": [datetime.now(UTC)], "clicks": [3], "views": [4]}
    )
    store.write_to_online_store("user_stats", rows)
    reader = DirectReader.open(store, ["user_stats:views"], shop.client)
    (key,) = reader.plan.keys.encode({"user_id": ["v"]})
    try:
        assert reader.plan.views[0].stored_name == "user_stats_v1"
        assert reader.check(store, ["v", "w"]) == 1
        assert reader.read(["v"])["user_stats"].values["views"].tolist() == [4]
    finally:
        shop.client.delete(key)
