"""The bytes of Feast's Redis store: equal to Feast's functions and to what Feast wrote."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import DataError
from features.feast.redis_format import (
    EntityKeys,
    KeyType,
    hash_field,
    murmur3_32,
    timestamp_field,
    timestamps_us,
)

ITEM = EntityKeys({"item_id": KeyType.INT64}, "shop")
PAIR = EntityKeys({"user_id": KeyType.STRING, "item_id": KeyType.INT64}, "shop")
VALUES = {
    KeyType.INT64: st.integers(-(2**63), 2**63 - 1),
    KeyType.INT32: st.integers(-(2**31), 2**31 - 1),
    KeyType.STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
}
FIELDS = {KeyType.INT64: "int64_val", KeyType.INT32: "int32_val", KeyType.STRING: "string_val"}


@st.composite
def tables(draw):
    """Join keys with types, a project, and rows of ids."""
    names = draw(st.lists(st.text("abcé_*[", min_size=1), min_size=1, max_size=3, unique=True))
    keys = {name: draw(st.sampled_from(list(KeyType))) for name in names}
    count = draw(st.integers(0, 4))
    ids = {
        name: draw(st.lists(VALUES[kind], min_size=count, max_size=count))
        for name, kind in keys.items()
    }
    return EntityKeys(keys, draw(st.text("xyü", min_size=1))), ids


def feast_keys(keys: EntityKeys, ids: dict[str, list]) -> list[bytes]:
    from feast.infra.online_stores.helpers import _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    rows = zip(*ids.values(), strict=True)
    kinds = [FIELDS[keys.join_keys[name]] for name in ids]
    protos = [
        EntityKey(
            join_keys=list(ids),
            entity_values=[Value(**{kind: one}) for kind, one in zip(kinds, row, strict=True)],
        )
        for row in rows
    ]
    return [_redis_key(keys.project, proto, 3) for proto in protos]


def test_a_key_by_hand() -> None:
    assert ITEM.encode({"item_id": [7]}) == [
        b"\x01\0\0\0\x02\0\0\0\x07\0\0\0item_id\x04\0\0\0\x08\0\0\0\x07\0\0\0\0\0\0\0shop"
    ]


@given(tables())
def test_keys_equal_feasts(table) -> None:
    pytest.importorskip("feast", reason="the extra recsys[feast] is not installed")
    keys, ids = table
    assert keys.encode(ids) == feast_keys(keys, ids)


@given(tables())
def test_keys_read_back(table) -> None:
    keys, ids = table
    assert keys.decode(keys.encode(ids)) == dict(sorted(ids.items()))


def test_keys_of_others_are_left_out() -> None:
    own = ITEM.encode({"item_id": [1]})
    other_project = ITEM._replace(project="shop2").encode({"item_id": [2]})
    other_type = EntityKeys({"item_id": KeyType.STRING}, "shop").encode({"item_id": ["3"]})
    pair = PAIR.encode({"user_id": ["a"], "item_id": [4]})
    cut = [own[0][:-6], own[0][:20]]
    assert ITEM.decode([b"x", *other_project, *own, *other_type, *pair, *cut]) == {"item_id": [1]}


def test_whole_number_ids_may_be_digits_or_arrays() -> None:
    expected = ITEM.encode({"item_id": [3, -1]})
    for ids in (["3", "-1"], np.array([3, -1], np.int8), np.array(["3", "-1"]), ("3", -1)):
        assert ITEM.encode({"item_id": ids}) == expected


@pytest.mark.parametrize(
    ("keys", "ids", "message"),
    [
        (ITEM, {"item_id": [1.5]}, "ids of 'item_id' must be whole numbers of 64 bits: float64"),
        (ITEM, {"item_id": [1.5, "2"]}, "must be whole numbers of 64 bits"),
        (ITEM, {"item_id": ["x"]}, "must be whole numbers of 64 bits: invalid literal"),
        (ITEM, {"item_id": [None]}, "must be whole numbers of 64 bits"),
        (ITEM, {"item_id": [2**63]}, "must be whole numbers of 64 bits"),
        (ITEM, {"user_id": ["1"]}, "ids must have the join keys item_id, got user_id"),
        (ITEM, {}, "ids must have the join keys item_id, got none"),
        (PAIR, {"user_id": ["a"], "item_id": []}, r"ids must have one length, got \[0, 1\]"),
        (PAIR, {"user_id": [1], "item_id": [1]}, "ids of 'user_id' must be strings, got 1"),
        (
            EntityKeys({"k": KeyType.INT32}, "p"),
            {"k": [2**31]},
            "must be whole numbers of 32 bits: 2147483648 to 2147483648",
        ),
    ],
)
def test_ids_that_cannot_be_keys(keys, ids, message) -> None:
    with pytest.raises(DataError, match=message):
        keys.encode(ids)


def test_murmur3_known_values() -> None:
    assert murmur3_32(b"") == 0
    assert murmur3_32(b"The quick brown fox jumps over the lazy dog") == 0x2E4FF723


def test_fields_equal_feasts() -> None:
    pytest.importorskip("feast", reason="the extra recsys[feast] is not installed")
    import mmh3
    from feast.infra.online_stores.helpers import _mmh3

    rng = random.Random(0)
    for size in range(60):
        data = rng.randbytes(size)
        assert murmur3_32(data) == mmh3.hash(data, signed=False)
    assert hash_field("naïve view", "feature") == _mmh3("naïve view:feature")


@given(st.lists(st.integers(-62135596800000000, 253402300799999999)))
def test_timestamps_equal_protobufs(times_us) -> None:
    from google.protobuf.timestamp_pb2 import Timestamp

    messages = []
    for time_us in times_us:
        stamp = Timestamp()
        stamp.FromMicroseconds(time_us)
        messages.append(stamp.SerializeToString())
    assert timestamps_us(messages).tolist() == times_us


def test_an_empty_timestamp_is_the_epoch() -> None:
    assert timestamps_us([b""]).tolist() == [0]


def test_bytes_that_are_no_timestamp() -> None:
    with pytest.raises(DataError, match=r"messages must be Timestamps .* got b'\\x18\\x01'"):
        timestamps_us([b"\x08\x01", b"\x18\x01"])


def test_what_feast_wrote(shop) -> None:
    keys = ITEM.encode({"item_id": [1, 2, 4]})
    row = shop.client.hgetall(keys[0])
    for view in ("item_stats", "item_types"):
        assert timestamp_field(view) in row
        for feature in shop.store.get_feature_view(view).features:
            assert hash_field(view, feature.name) in row
    stamp = timestamps_us([shop.client.hget(keys[2], timestamp_field("item_stats"))])
    age = datetime.now(UTC) - datetime.fromtimestamp(stamp[0] / 1e6, UTC)
    assert age.days == 40
    pair = PAIR.encode({"user_id": ["u1", "ü2"], "item_id": [1, 2]})
    users = EntityKeys({"user_id": KeyType.STRING}, "shop").encode({"user_id": ["u1", "ü2"]})
    assert shop.client.exists(*keys, *pair, *users) == 7
    assert shop.client.dbsize() == 38  # 33 items with stats, one with types alone, 2 pairs, 2 users
