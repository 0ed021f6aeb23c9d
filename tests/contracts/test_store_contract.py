"""What the store of generations does on every kind of server.

A new kind is added to `BACKENDS` in `tests.serving.stores` and nothing else.
"""

from __future__ import annotations

import numpy as np
import pytest

from serving.errors import HeadConflict, NoGeneration, PublishRefused
from tests.serving.store.held import assert_true, shown

USERS = {"ann": [3, 1, 2], "bob": [5], "new": []}


@pytest.fixture
def store(any_store):
    """An empty namespace on each kind of store there is."""
    return any_store


def test_what_is_published_is_read(store, make):
    neighbours = [make.user_batch({"i1": [2, 3], "i2": [1]})]
    report = make.publish(
        store,
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
    assert store.head().generation == "g1"
    assert store.item_ids("g1") == make.item_ids
    ann, nobody, bob, new = store.read_users("g1", ["ann", "nobody", "bob", "new"])
    assert ann.item_index.tolist() == [3, 1, 2]
    assert ann.score.tolist() == [1, 0.875, 0.75]
    assert nobody is None
    assert bob.item_index.tolist() == [5]
    assert len(new.item_index) == 0
    assert store.read_user("g1", "bob").item_index.tolist() == [5]
    assert store.neighbours("g1", "i1").item_index.tolist() == [2, 3]
    assert store.neighbours("g1", "i9") is None
    assert store.popular("g1").item_index.tolist() == [1, 2, 3, 4]
    assert store.read_items("g1", ["i2", "zz", "i1"]) == [b"row1", None, b"row0"]
    assert store.read_items("g1", []) == []
    assert store.alive("g1", 12).tolist() == [False] + [True] * 12
    manifest = store.manifest("g1")
    assert (manifest.k, manifest.num_neighbours, manifest.num_empty) == (3, 2, 1)
    assert (manifest.min_score, manifest.max_score) == (0.75, 1.0)
    assert manifest.source_names == ("tower", "knn")
    assert manifest.item_schema == '{"dim": 4}'


def test_fallback_lists_of_segments(store, make):
    segments = {"18-25": make.popular([5, 6]), "a b:{x}": make.popular([7])}
    make.publish(store, "g1", {"ann": [1]}, popular_segments=segments)
    assert store.manifest("g1").segments == ("18-25", "a b:{x}")
    found = store.popular_of("g1", ["a b:{x}", "nobody", "18-25"])
    assert {name: one.item_index.tolist() for name, one in found.items()} == {
        "a b:{x}": [7],
        "18-25": [5, 6],
    }
    assert store.popular_of("g1", []) == {}
    client = store._client
    key = store.keys.popular_of("g1", "18-25")
    assert client.expiretime(key) == store.manifest("g1").expires_at
    with pytest.raises(PublishRefused, match="already published with another value"):
        make.publish(store, "g1", {"ann": [1]}, popular_segments={"18-25": make.popular([9])})


def test_every_key_expires_at_the_same_moment(store, make):
    make.publish(store, "g1", USERS, ttl_s=600)
    client, ns = store._client, store.keys.namespace
    keys = list(client.scan_iter(f"{ns}:*"))
    assert len(keys) == 3 + 4 + 2  # users; manifest, items, popular, alive; head, generations
    times = {client.expiretime(key) for key in keys} - {-1}
    assert times == {store.manifest("g1").expires_at}
    kept = [key for key in keys if client.ttl(key) == -1]
    assert sorted(kept) == [f"{ns}:generations".encode(), f"{ns}:head".encode()]


def test_flip_and_rollback(store, make):
    with pytest.raises(NoGeneration, match="no previous generation"):
        store.rollback()
    make.publish(store, "g1", USERS)
    with pytest.raises(NoGeneration, match="no previous generation"):
        store.rollback()
    make.publish(store, "g2", {"ann": [9]})
    assert [
        (one.manifest.generation, one.is_current, one.is_previous) for one in store.generations()
    ] == [("g2", True, False), ("g1", False, True)]
    back = store.rollback()
    assert (back.generation, back.previous, back.epoch) == ("g1", "g2", 3)
    assert store.rollback().generation == "g2"
    assert store.flip("g1").generation == "g1"
    with pytest.raises(NoGeneration, match=r"'g7' is not in the store.*there: g2, g1"):
        store.flip("g7")
    with pytest.raises(HeadConflict, match=r"expected epoch 1, found epoch 5 .g1."):
        store.flip("g2", expected_epoch=1)


def test_a_rollback_to_an_expired_generation_is_refused(store, make):
    make.publish(store, "g1", USERS)
    make.publish(store, "g2", USERS)
    store._client.delete(store.keys.manifest("g1"))
    with pytest.raises(NoGeneration, match="'g1' is not in the store"):
        store.rollback()
    assert store.head().generation == "g2"
    assert [one.manifest.generation for one in store.generations()] == ["g2"]


def test_of_two_publishers_one_wins(store, make):
    make.publish(store, "g1", USERS)

    def slow_users():
        yield make.user_batch({"ann": [1]})
        make.publish(store, "fast", {"ann": [2]})  # the other one, meanwhile

    with pytest.raises(HeadConflict, match=r"expected epoch 1, found epoch 2 \(fast\)"):
        make.publish(store, "slow", slow_users())
    head = store.head()
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


def test_alive_is_changed_in_place(store, make):
    alive = np.ones(13, dtype=bool)
    alive[7] = False
    make.publish(store, "g1", USERS, alive=alive)
    store.set_alive("g1", [3, 12], False)
    store.set_alive("g1", [7], True)
    assert np.flatnonzero(~store.alive("g1", 12)).tolist() == [0, 3, 12]
    with pytest.raises(ValueError, match=r"item_index must be in 1..12, got 13"):
        store.set_alive("g1", [13], False)
    with pytest.raises(NoGeneration, match="'g9' is not in the store"):
        store.set_alive("g9", [1], False)


def test_a_delta_changes_single_users(store, make):
    make.publish(store, "g1", USERS)
    before = store.head()
    report = store.publish_delta(
        "g1",
        users=[make.user_batch({"ann": [3, 1, 2], "bob": [], "zoe": [6, 7, 8, 9]})],
        removed=["new", "nobody"],
        expected_revision=0,
    )
    assert (report.revision, report.num_users, report.num_settled) == (1, 3, 0)
    assert (report.num_added, report.num_changed, report.num_unchanged) == (1, 1, 1)
    assert report.num_removed == 1
    assert report.bytes_written == 12 + 12 + 4 * 4 + 2
    assert store.head() == before
    assert shown(store, "g1", ["ann", "bob", "zoe", "new"]) == {
        "ann": [3, 1, 2],
        "bob": [],
        "zoe": [6, 7, 8, 9],
        "new": None,
    }
    assert_true(store, "g1")
    manifest = store.manifest("g1")
    assert (manifest.k, manifest.min_score, manifest.max_score) == (4, 0.625, 1.0)
    assert store._client.exists(store.keys.progress("g1")) == 0


def test_a_delta_ends_where_a_publish_of_the_same_lists_does(store, make):
    make.publish(store, "g1", USERS)
    store.publish_delta("g1", users=[make.user_batch({"bob": [9], "zoe": [2]})], removed=["new"])
    after = {"ann": [3, 1, 2], "bob": [9], "zoe": [2]}
    report = make.publish(store, "g1", after)  # compares every value and the checksum
    assert report.refreshed
    assert store.manifest("g1").revision == 1


def test_a_delta_of_nothing_new_is_no_revision(store, make):
    make.publish(store, "g1", USERS)
    manifest = store.manifest("g1")
    report = store.publish_delta("g1", users=[make.user_batch(USERS)], removed=["nobody"])
    assert (report.revision, report.num_unchanged, report.num_removed) == (0, 3, 0)
    assert store.manifest("g1") == manifest
    assert store.publish_delta("g1").revision == 0


@pytest.mark.parametrize("ttl_s", [120, 5000])
def test_expiry_is_moved_for_every_key(store, make, ttl_s):
    make.publish(
        store,
        "g1",
        USERS,
        neighbours=[make.user_batch({"i1": [2]})],
        popular_segments={"x": make.popular([1])},
        item_rows=[b"r"] * 12,
        item_schema="{}",
    )
    make.publish(store, "g2", USERS)
    seen = []
    manifest = store.set_ttl("g1", ttl_s, on_progress=lambda *at: seen.append(at))
    client, ns = store._client, store.keys.namespace
    times = {client.expiretime(key) for key in client.scan_iter(f"{ns}:*g1*")}
    assert times == {manifest.expires_at}
    assert store.manifest("g1") == manifest
    assert abs(client.ttl(store.keys.user("g1", "ann")) - ttl_s) <= 2
    assert client.ttl(store.keys.user("g2", "ann")) <= 600
    assert seen[-1] == ("expiry", 3 + 3 + 1 + 1 + 12)
    store.publish_delta("g1", users=[make.user_batch({"ann": [1]})])
    assert_true(store, "g1")
