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
    HeadConflict,
    NoGeneration,
    PublishRefused,
    StageUnavailable,
)
from serving.store import GenerationStore
from serving.store.keys import Keys, bucket
from serving.store.manifest import Head, Manifest

USERS = {"ann": [3, 1, 2], "bob": [5], "new": []}


def test_what_is_published_is_read(any_store, make):
    neighbours = [make.user_batch({"i1": [2, 3], "i2": [1]})]
    report = make.publish(
        any_store,
        "g1",
        USERS,
        item_rows=[f"row{number}".encode() for number in range(12)],
        item_schema='{"dim": 4}',
        neighbours=neighbours,
        source_names=("tower", "knn"),
    )
    assert (report.generation, report.previous, report.epoch) == ("g1", None, 1)
    assert (report.num_users, report.num_items, report.num_empty) == (3, 12, 1)
    assert not report.refreshed
    assert any_store.head().generation == "g1"
    assert any_store.item_ids("g1") == make.item_ids
    ann, nobody, bob, new = any_store.read_users("g1", ["ann", "nobody", "bob", "new"])
    assert ann.item_index.tolist() == [3, 1, 2]
    assert ann.score.tolist() == [1, 0.875, 0.75]
    assert nobody is None
    assert bob.item_index.tolist() == [5]
    assert len(new.item_index) == 0
    assert any_store.read_user("g1", "bob").item_index.tolist() == [5]
    assert any_store.neighbours("g1", "i1").item_index.tolist() == [2, 3]
    assert any_store.neighbours("g1", "i9") is None
    assert any_store.popular("g1").item_index.tolist() == [1, 2, 3, 4]
    assert any_store.read_items("g1", ["i2", "zz", "i1"]) == [b"row1", None, b"row0"]
    assert any_store.read_items("g1", []) == []
    assert any_store.alive("g1", 12).tolist() == [False] + [True] * 12
    manifest = any_store.manifest("g1")
    assert (manifest.k, manifest.num_neighbours, manifest.num_empty) == (3, 2, 1)
    assert (manifest.min_score, manifest.max_score) == (0.75, 1.0)
    assert manifest.source_names == ("tower", "knn")
    assert manifest.item_schema == '{"dim": 4}'


def test_every_key_expires_at_the_same_moment(any_store, make):
    make.publish(any_store, "g1", USERS, ttl_s=600)
    client, ns = any_store._client, any_store.keys.namespace
    keys = list(client.scan_iter(f"{ns}:*"))
    assert len(keys) == 3 + 4 + 2  # users; manifest, items, popular, alive; head, generations
    times = {client.expiretime(key) for key in keys} - {-1}
    assert times == {any_store.manifest("g1").expires_at}
    kept = [key for key in keys if client.ttl(key) == -1]
    assert sorted(kept) == [f"{ns}:generations".encode(), f"{ns}:head".encode()]


def test_flip_and_rollback(any_store, make):
    with pytest.raises(NoGeneration, match="no previous generation"):
        any_store.rollback()
    make.publish(any_store, "g1", USERS)
    with pytest.raises(NoGeneration, match="no previous generation"):
        any_store.rollback()
    make.publish(any_store, "g2", {"ann": [9]})
    assert [
        (one.manifest.generation, one.is_current, one.is_previous)
        for one in any_store.generations()
    ] == [("g2", True, False), ("g1", False, True)]
    back = any_store.rollback()
    assert (back.generation, back.previous, back.epoch) == ("g1", "g2", 3)
    assert any_store.rollback().generation == "g2"
    assert any_store.flip("g1").generation == "g1"
    with pytest.raises(NoGeneration, match=r"'g7' is not in the store.*there: g2, g1"):
        any_store.flip("g7")
    with pytest.raises(HeadConflict, match=r"expected epoch 1, found epoch 5 .g1."):
        any_store.flip("g2", expected_epoch=1)


def test_a_rollback_to_an_expired_generation_is_refused(store, make):
    make.publish(store, "g1", USERS)
    make.publish(store, "g2", USERS)
    store._client.delete(store.keys.manifest("g1"))
    with pytest.raises(NoGeneration, match="'g1' is not in the store"):
        store.rollback()
    assert store.head().generation == "g2"
    assert [one.manifest.generation for one in store.generations()] == ["g2"]


def test_of_two_publishers_one_wins(any_store, make):
    make.publish(any_store, "g1", USERS)

    def slow_users():
        yield make.user_batch({"ann": [1]})
        make.publish(any_store, "fast", {"ann": [2]})  # the other one, meanwhile

    with pytest.raises(HeadConflict, match=r"expected epoch 1, found epoch 2 \(fast\)"):
        make.publish(any_store, "slow", slow_users())
    head = any_store.head()
    assert (head.generation, head.previous, head.epoch) == ("fast", "g1", 2)


def test_publishing_again_renews_the_expiry(store, make):
    make.publish(store, "g1", USERS, ttl_s=600)
    store.set_alive("g1", [4], False)
    first = store.manifest("g1")
    report = make.publish(store, "g1", USERS, ttl_s=6000)
    assert report.refreshed
    assert report.previous is None
    again = store.manifest("g1")
    assert again.published_at == first.published_at
    assert again.content_sha256 == first.content_sha256
    assert again.expires_at > first.expires_at + 5000
    assert store._client.expiretime(store.keys.alive("g1")) == again.expires_at
    assert not store.alive("g1", 12)[4]


def test_batches_do_not_change_the_checksum(store, make):
    make.publish(store, "g1", USERS)
    batches = [make.user_batch({name: USERS[name]}) for name in ("new", "bob", "ann")]
    assert make.publish(store, "g1", batches).refreshed


@pytest.mark.parametrize(
    ("users", "options", "message"),
    [
        ({"ann": [7, 1, 2], "bob": [5], "new": []}, {}, "ann' is already published with another"),
        ({"ann": [3, 1, 2]}, {}, "with other users or items"),
        (USERS, {"vocabulary_sha256": "v2"}, "another vocabulary"),
    ],
)
def test_a_generation_never_changes(store, make, users, options, message):
    make.publish(store, "g1", USERS)
    with pytest.raises(PublishRefused, match=message):
        make.publish(store, "g1", users, **options)
    assert store.read_user("g1", "ann").item_index.tolist() == [3, 1, 2]
    assert store.head().epoch == 1


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


def test_alive_is_changed_in_place(any_store, make):
    alive = np.ones(13, dtype=bool)
    alive[7] = False
    make.publish(any_store, "g1", USERS, alive=alive)
    any_store.set_alive("g1", [3, 12], False)
    any_store.set_alive("g1", [7], True)
    assert np.flatnonzero(~any_store.alive("g1", 12)).tolist() == [0, 3, 12]
    with pytest.raises(ValueError, match=r"item_index must be in 1..12, got 13"):
        any_store.set_alive("g1", [13], False)
    with pytest.raises(NoGeneration, match="'g9' is not in the store"):
        any_store.set_alive("g9", [1], False)


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
    with pytest.raises(StageUnavailable, match="the store could not read the head: Connection"):
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
