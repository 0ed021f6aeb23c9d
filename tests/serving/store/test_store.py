from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from serving.connection import connect
from serving.connection.embedded import EmbeddedStore
from serving.errors import (
    CorruptValue,
    NoGeneration,
    PublishRefused,
    StageUnavailable,
)
from serving.store import GenerationStore
from serving.store.keys import Keys, bucket
from serving.store.manifest import Head, Manifest

USERS = {"ann": [3, 1, 2], "bob": [5], "new": []}


def _batch(item_index, score, source=0, ids=("ann",)):
    return [(list(ids), np.array(item_index), np.array(score, dtype=float), source)]


@pytest.mark.parametrize(
    ("users", "options", "message"),
    [
        (_batch([[1, 2]], [[1, np.nan]]), {}, "users: score must be finite"),
        (_batch([[2, 2]], [[1, 1]]), {}, "users: item_index must not repeat"),
        (_batch([[1, 2]], [[1, 2]]), {}, "users: score must be non-increasing"),
        (_batch([[13]], [[1]]), {}, r"item_index must be at most 12 \(the vocabulary\), got 13"),
        (_batch([[1]], [[1]], source=1), {}, "source must be below 1"),
        (_batch([[1]], [[1]], ids=("ann", "bob")), {}, r"got shape \[1, 1\] for 2 ids"),
        (_batch([[1], [2]], [[1], [1]], ids=("a", "a")), {}, "1 ids came more than once"),
        ([], {}, "no user to publish"),
        (USERS, {"popular_items": ()}, "popular must be .* not empty"),
        (USERS, {"popular_items": (99,)}, "popular: item_index must be at most 12, got 99"),
        (USERS, {"popular_items": (1, 1)}, "popular: item_index must not repeat"),
        ({"ann": [1]}, {"max_user_drop": 0.5}, "has 1 users against 3 served now.*more than 50%"),
    ],
)
def test_a_broken_publish_leaves_the_head(store, make, users, options, message):
    make.publish(store, "g1", USERS)
    with pytest.raises(PublishRefused, match=message):
        make.publish(store, "g2", users, **options)
    assert store.head().generation == "g1"
    assert store.manifest("g2") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ttl_s": 5}, "ttl_s must be >= 60, got 5"),
        ({"item_ids": ["a", "a"]}, "unique and not empty: got 2 ids, 1 different"),
        ({"source_names": ()}, "source_names must hold 1 to 256, got 0"),
        ({"item_rows": [b""], "item_schema": "{}"}, "got 1 rows for 12 ids"),
        ({"item_schema": "{}"}, "given together"),
        ({"alive": np.ones(3, dtype=bool)}, r"\[N \+ 1\] = \[13\], got \[3\]"),
    ],
)
def test_bad_arguments_are_refused(store, make, options, message):
    with pytest.raises(ValueError, match=message):
        make.publish(store, "g1", USERS, **options)
    assert store.head() is None


@pytest.mark.parametrize("name", ["", "a b", "a:b", "{x}", "-a", "a" * 129, "é"])
def test_names_are_plain(store, make, name):
    with pytest.raises(ValueError, match="generation must be 1 to 128 letters"):
        make.publish(store, name, USERS)
    with pytest.raises(ValueError, match="namespace must be"):
        Keys(name)


def test_a_lost_value_is_noticed(store, make):
    def users():
        yield make.user_batch(USERS)
        store._client.delete(store.keys.user("g1", "bob"))  # as an evicting server would

    with pytest.raises(PublishRefused, match="bob' is missing after it was written"):
        make.publish(store, "g1", users())
    assert store.head() is None


def test_progress_counts_values(store, make):
    seen = []
    make.publish(store, "g1", USERS, on_progress=lambda stage, done: seen.append((stage, done)))
    assert seen == [("items", 1), ("popular", 2), ("users", 5)]


def test_keys_by_hand():
    keys = Keys("shop")
    assert bucket("123456789") == "{b126}"  # the crc's check value is 0xCBF43926
    assert keys.user("g-1", "a:{b}") == f"shop:u:g-1:{bucket('a:{b}')}:a:{{b}}"
    assert keys.head == "shop:head"
    assert keys.manifest("g-1") == "shop:g:g-1:manifest"
    assert keys.alive("g-1") == "shop:alive:g-1"
    assert keys.popular_of("g-1", "a b") == "shop:g:g-1:popular:a b"
    assert keys.progress("g-1") == "shop:g:g-1:progress"
    assert keys.lock("g-1") == "shop:g:g-1:lock"
    assert keys.session("123456789") == "shop:s:{b126}:123456789"
    assert (keys.events, keys.experiments) == ("shop:events", "shop:experiments")


def test_unreadable_values_say_so(store, make):
    make.publish(store, "g1", USERS)
    client, keys = store._client, store.keys
    client.set(keys.user("g1", "ann"), b"garbage, but long enough")
    with pytest.raises(CorruptValue, match="not a candidate list"):
        store.read_user("g1", "ann")
    manifest = json.loads(client.get(keys.manifest("g1")))
    client.set(keys.manifest("g1"), json.dumps({**manifest, "format": 3}))
    with pytest.raises(CorruptValue, match="format 3, this code reads 1 to 2; use the release"):
        store.manifest("g1")
    client.set(keys.manifest("g1"), b"{")
    with pytest.raises(CorruptValue, match="manifest is not JSON"):
        store.manifest("g1")
    client.set(keys.head, b"[]")
    with pytest.raises(CorruptValue, match="head must be a JSON object, got list"):
        store.head()
    client.set(keys.head, b"{}")
    with pytest.raises(CorruptValue, match=r"head must have the fields .* got \[\]"):
        store.head()
    with pytest.raises(NoGeneration, match="'g5' is unknown"):
        store.item_ids("g5")


def test_head_and_manifest_round_trip():
    head = Head("g", None, 3, 12.5)
    assert Head.from_json(head.to_json()) == head
    manifest = Manifest("g", 1.5, 9, 1, 2, 3, 4, 5, None, 2.5, ("a",), "v", None, "c")
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_store_that_is_away_is_named(own_directory):
    url = EmbeddedStore.ensure(own_directory)
    EmbeddedStore.stop(own_directory)
    store = GenerationStore(connect(url))
    with pytest.raises(
        StageUnavailable, match=r"not read the head: Connection.*start a server there"
    ):
        store.head()
    with pytest.raises(StageUnavailable, match="could not ping"):
        store.ping()


PUBLISHER = textwrap.dedent(
    """
    import sys, time
    import numpy as np
    from serving.connection.clients import connect
    from serving.store.generations import GenerationStore

    def users():
        for batch in range(10):
            if batch == 5 and sys.argv[2] == "hang":
                print("half", flush=True)
                time.sleep(60)
            names = [f"u{batch}-{n}" for n in range(200)]
            yield names, np.full((200, 1), 2), np.ones((200, 1)), 0

    store = GenerationStore(connect("embedded", directory=sys.argv[1]), lease_s=4)
    store.publish("g2", users=users(), item_ids=["a", "b"], vocabulary_sha256="v", ttl_s=600,
                  popular=(np.array([1]), np.array([1.0])))
    """
)


def test_a_publisher_killed_half_way_changes_nothing(own_directory):
    store = GenerationStore(connect("embedded", directory=own_directory))
    old = (["u0-0"], np.array([[1]]), np.array([[1.0]]), 0)
    store.publish(
        "g1",
        users=[old],
        item_ids=["a", "b"],
        vocabulary_sha256="v",
        ttl_s=600,
        popular=(np.array([1]), np.array([1.0])),
    )
    command = [sys.executable, "-c", PUBLISHER, str(own_directory)]
    with subprocess.Popen([*command, "hang"], stdout=subprocess.PIPE) as publisher:
        assert publisher.stdout.readline() == b"half\n"
        publisher.kill()
    assert store.read_user("g2", "u4-199") is not None  # it did write
    head = store.head()
    assert (head.generation, head.epoch) == ("g1", 1)
    assert [one.manifest.generation for one in store.generations()] == ["g1"]
    assert store.read_user("g1", "u0-0").item_index.tolist() == [1]
    left = list(store._client.scan_iter("recsys:*g2*"))
    assert left
    assert all(0 < store._client.ttl(key) <= 600 for key in left)

    subprocess.run([*command, "finish"], check=True)
    assert store.head().generation == "g2"
    assert store.manifest("g2").num_users == 2000
    assert store.rollback().generation == "g1"
