from __future__ import annotations

import contextlib
import threading
import time
import uuid
from datetime import timedelta

import pytest
import redis

from features import OnlineFeatures
from serving.connection import connect
from serving.errors import StageUnavailable, WriterReplaced
from serving.events.feature_state import RedisStateStore
from tests.feature_world import (
    EVERYTHING,
    HOUR,
    ITEMS,
    START,
    USERS,
    VECTORS,
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


def test_a_reader_may_not_write(client: redis.Redis, namespace: str) -> None:
    reader = RedisStateStore(client, namespace)
    with pytest.raises(ValueError, match="writer must be True to update feature state"):
        reader.write({("k", "a"): b"1"})
    with pytest.raises(ValueError, match="writer must be True to update feature state"):
        reader.renew()


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
