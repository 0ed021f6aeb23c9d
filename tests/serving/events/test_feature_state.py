from __future__ import annotations

import contextlib
import threading
import time
import uuid
from datetime import timedelta

import pytest
import redis

from features import OnlineFeatures, StateStore, check_parity
from serving.connection import connect
from serving.errors import StageUnavailable, WriterReplaced
from serving.events.feature_state import RedisStateStore
from tests.feature_world import (
    DAY,
    EVERYTHING,
    HOUR,
    ITEMS,
    START,
    USERS,
    VECTORS,
    raw_events,
    requests_of,
)

EVENTS = [
    ("uvw"[step % 3], "abcd"[step % 4], START + step * 5 * HOUR, "view", float(step % 5))
    for step in range(24)
]


@pytest.fixture
def client(any_client: redis.Redis) -> redis.Redis:
    """Every test here holds on one server and on a cluster."""
    return any_client


@pytest.fixture
def namespace() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


def test_what_was_written_is_read(client: redis.Redis, namespace: str) -> None:
    store = RedisStateStore(client, namespace, writer=True)
    assert isinstance(store, StateStore)
    store.write({("k", "a"): b"1", ("k", "ä"): b"\x00", ("l", "a"): b"2"})
    asked = [("l", "a"), ("k", "b"), ("k", "a"), ("none", "a"), ("k", "ä"), ("l", "a")]
    assert store.read(asked) == [b"2", None, b"1", None, b"\x00", b"2"]
    assert store.read_all(["k", "none", "l"]) == [{"a": b"1", "ä": b"\x00"}, {}, {"a": b"2"}]
    assert store.read([]) == []
    assert store.read_all([]) == []
    many = {(f"m{number}", "f"): str(number).encode() for number in range(2_500)}
    store.write(many)
    assert store.read(list(many)) == list(many.values())
    assert [each["f"] for each in store.read_all([key for key, _ in many])] == list(many.values())


def test_state_in_redis_equals_the_log(client: redis.Redis, namespace: str) -> None:
    store = RedisStateStore(client, namespace, writer=True)
    rows = requests_of(
        [(step, "uvw"[step % 3], "abcd"[step % 4], START + step * DAY) for step in range(6)]
    )
    report = check_parity(EVERYTHING, rows, raw_events(EVENTS), ITEMS, USERS, VECTORS, store)
    assert report.equal, str(report.first)
    assert report.update.applied == len(EVENTS)


def test_a_reader_sees_what_the_writer_wrote(client: redis.Redis, namespace: str) -> None:
    definitions = EVERYTHING[:40]
    writer = OnlineFeatures(
        definitions, ITEMS, USERS, VECTORS, RedisStateStore(client, namespace, writer=True)
    )
    writer.update(raw_events(EVENTS))
    reader = OnlineFeatures(definitions, ITEMS, USERS, VECTORS, RedisStateStore(client, namespace))
    rows = requests_of([(0, "u", item, START + 9 * DAY) for item in "abcd"])
    assert reader.compute(rows).equals(writer.compute(rows))
    with pytest.raises(ValueError, match="writer must be True to update feature state"):
        reader.update(raw_events([("u", "a", START + 9 * DAY, "view", 1.0)]))


def test_the_newest_writer_writes(client: redis.Redis, namespace: str) -> None:
    old = RedisStateStore(client, namespace, writer=True)
    old.write({("k", "a"): b"1"})
    new = RedisStateStore(client, namespace, writer=True)
    with pytest.raises(WriterReplaced, match="another one has taken over"):
        old.write({("k", "a"): b"lost", ("k", "b"): b"lost"})
    assert new.read_all(["k"]) == [{"a": b"1"}]
    new.write({("k", "a"): b"2"})
    assert new.read([("k", "a")]) == [b"2"]


def test_a_writer_replaced_at_any_moment_writes_all_or_nothing(
    client: redis.Redis, namespace: str
) -> None:
    old = RedisStateStore(client, namespace, writer=True)
    written = -1

    def write_on() -> None:
        nonlocal written
        with contextlib.suppress(WriterReplaced):
            for number in range(1_000_000):
                old.write({(f"k{key}", "a"): str(number).encode() for key in range(50)})
                written = number

    writing = threading.Thread(target=write_on)
    writing.start()
    while written < 20:
        time.sleep(0.001)
    new = RedisStateStore(client, namespace, writer=True)
    found = new.read([(f"k{key}", "a") for key in range(50)])
    writing.join()
    assert len(set(found)) == 1
    assert (
        new.read([(f"k{key}", "a") for key in range(50)]) == found == [str(written).encode()] * 50
    )


def test_a_group_may_have_many_fields(client: redis.Redis, namespace: str) -> None:
    store = RedisStateStore(client, namespace, writer=True)
    values = {("k", f"f{number}"): str(number).encode() for number in range(25_000)}
    store.write({**values, ("l", "a"): b"1"})
    assert store.read(list(values)) == list(values.values())
    assert store.read_all(["l"]) == [{"a": b"1"}]
    store.write({})


def test_groups_expire_where_that_is_asked_for(client: redis.Redis, namespace: str) -> None:
    RedisStateStore(client, namespace, writer=True, expire_s=60).write({("k", "a"): b"1"})
    assert 0 < client.ttl(f"{namespace}:f:{{{namespace}}}:k") <= 60
    RedisStateStore(client, namespace, writer=True).write({("l", "a"): b"1"})
    assert client.ttl(f"{namespace}:f:{{{namespace}}}:l") == -1
    with pytest.raises(ValueError, match="expire_s must be > 0 seconds or None, got 0"):
        RedisStateStore(client, namespace, expire_s=0)


def test_a_server_that_is_gone(namespace: str) -> None:
    client = connect("unix:///nowhere/store.sock")
    with pytest.raises(StageUnavailable, match="could not take over the feature state"):
        RedisStateStore(client, namespace, writer=True)
    online = OnlineFeatures(EVERYTHING, ITEMS, USERS, VECTORS, RedisStateStore(client, namespace))
    with pytest.raises(StageUnavailable, match="could not read feature state"):
        online.item_features(START + timedelta(days=1))
