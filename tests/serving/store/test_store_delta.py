"""Deltas, moved expiry, and writers that are killed at every step."""

from __future__ import annotations

import json
import uuid

import pytest
import redis

from serving.errors import CorruptValue, NoGeneration, PublishRefused
from serving.store import GenerationStore
from tests.serving.store.held import assert_true, shown

USERS = {"ann": [3, 1, 2], "bob": [5], "new": []}


def test_the_first_list_of_a_generation_of_empty_ones(store, make):
    make.publish(store, "g1", {"new": []})
    assert store.manifest("g1").max_score is None
    store.publish_delta("g1", users=[make.user_batch({"new": [], "bob": []})])
    assert (store.manifest("g1").num_empty, store.manifest("g1").max_score) == (2, None)
    store.publish_delta("g1", users=[make.user_batch({"new": [1, 2]})])
    manifest = store.manifest("g1")
    assert (manifest.num_empty, manifest.min_score, manifest.max_score) == (1, 0.875, 1.0)


@pytest.mark.parametrize(
    ("users", "options", "message"),
    [
        ({"ann": [13]}, {}, r"item_index must be at most 12 \(the vocabulary\), got 13"),
        ({"ann": [1]}, {"expected_revision": 4}, "has revision 0, expected 4: another delta was"),
        ({"ann": [1]}, {"removed": ["ann"]}, "removed must name no user who has a new list, got"),
        ({}, {"removed": ["ann", "bob"], "max_user_drop": 0.5}, "removes 2 of 3 users, more than"),
    ],
)
def test_a_broken_delta_changes_nothing(store, make, users, options, message):
    make.publish(store, "g1", USERS)
    batches = [make.user_batch(users)] if users else []
    with pytest.raises(PublishRefused, match=message):
        store.publish_delta("g1", users=batches, **options)
    assert shown(store, "g1", list(USERS)) == USERS
    assert_true(store, "g1")


def test_a_user_comes_once(store, make):
    make.publish(store, "g1", USERS)
    batch = make.user_batch({"ann": [1], "bob": [2]})
    with pytest.raises(PublishRefused, match="users: 1 ids came more than once"):
        store.publish_delta("g1", users=[(["ann", "ann"], *batch[1:])])
    assert shown(store, "g1", list(USERS)) == USERS
    with pytest.raises(PublishRefused, match="users: 2 ids came more than once"):
        store.publish_delta("g1", users=[batch, batch])
    report = store.publish_delta("g1", users=[batch])  # accounts for what the other one wrote
    assert (report.num_unchanged, report.num_settled, report.revision) == (2, 2, 1)
    assert_true(store, "g1")


def test_a_delta_needs_a_finished_generation(store, make):
    make.publish(store, "g1", USERS)
    with pytest.raises(NoGeneration, match=r"'g2' is not in the store.*there: g1"):
        store.publish_delta("g2", users=[make.user_batch(USERS)])


def test_a_corrupted_list_stops_a_delta(store, make):
    make.publish(store, "g1", USERS)
    store._client.set(store.keys.user("g1", "ann"), b"garbage")
    with pytest.raises(CorruptValue, match=r"ann': candidate list is truncated.*publish a new gen"):
        store.publish_delta("g1", users=[make.user_batch({"ann": [1]})])


def test_a_lost_value_of_a_delta_is_noticed(store, make):
    make.publish(store, "g1", USERS)

    def users():
        yield make.user_batch({"ann": [1]})
        store._client.delete(store.keys.user("g1", "ann"))  # as an evicting server would

    with pytest.raises(PublishRefused, match="ann' reads back different after it was written"):
        store.publish_delta("g1", users=users())
    assert store.manifest("g1").revision == 0


def test_a_manifest_that_goes_meanwhile_is_not_written(store, make):
    make.publish(store, "g1", USERS)

    def users():
        yield make.user_batch({"ann": [1]})
        store._client.delete(store.keys.manifest("g1"))

    with pytest.raises(PublishRefused, match="manifest of generation g1 changed or expired"):
        store.publish_delta("g1", users=users())
    assert store.manifest("g1") is None


def test_publishing_again_ends_a_delta_that_was_cut_off(store, make):
    make.publish(store, "g1", USERS)

    def users():
        yield make.user_batch({"zoe": [1]})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.publish_delta("g1", users=users())
    assert store.read_user("g1", "zoe") is not None
    assert make.publish(store, "g1", USERS).refreshed
    assert store.read_user("g1", "zoe") is None
    assert store.publish_delta("g1", users=[make.user_batch({"bob": [1]})]).num_settled == 0
    assert_true(store, "g1")


def test_progress_counts_users(store, make):
    make.publish(store, "g1", USERS)
    seen = []
    store.publish_delta(
        "g1",
        users=[make.user_batch({"ann": [1], "bob": [5]})],
        removed=["new"],
        on_progress=lambda *at: seen.append(at),
    )
    assert seen == [("users", 2), ("removed", 3)]


# -- killed at every step -----------------------------------------------------------------------


class Killed(BaseException):
    """The process ends before a command is sent, and sends nothing afterwards."""


@pytest.fixture
def mortal(client):
    """A store whose client ends before its n-th command."""

    class Connection(redis.UnixDomainSocketConnection):
        left = 0

        def send_packed_command(self, command, check_health=True):
            type(self).left -= 1
            if type(self).left < 0:
                raise Killed
            return super().send_packed_command(command, check_health)

    path = client.connection_pool.connection_kwargs["path"]

    def make_store(namespace, commands):
        Connection.left = 10_000
        pool = redis.ConnectionPool(connection_class=Connection, path=path)
        store = GenerationStore(redis.Redis(connection_pool=pool), namespace=namespace, lease_s=60)
        store.ping()
        Connection.left = commands
        return store

    return make_store


def ending_everywhere(store, mortal, run):
    """Yield after each place where ``run`` can end, until it comes to its end."""
    for commands in range(200):
        victim = mortal(store.keys.namespace, commands)
        try:
            run(victim)
        except Killed:
            store._client.delete(store.keys.lock("g2"))  # as time would
            yield commands
        else:
            break
        finally:
            victim._client.connection_pool.disconnect()
    else:
        pytest.fail("it never came to its end")


def test_a_publisher_killed_at_every_step(store, make, mortal):
    make.publish(store, "g1", USERS)
    lists = [{"ann": [9], "bob": [8]}, {"zoe": [7]}]
    neighbours = [make.user_batch({"i1": [2]})]

    def publish(one):
        batches = [make.user_batch(part) for part in lists]
        make.publish(one, "g2", batches, neighbours=neighbours)

    steps, flipped = 0, 0
    for _ in ending_everywhere(store, mortal, publish):
        steps += 1
        served = store.head().generation
        wanted = USERS if served == "g1" else {**lists[0], **lists[1]}
        assert shown(store, served, list(wanted)) == wanted
        assert all(info.manifest.num_users == 3 for info in store.generations())
        flipped += served == "g2"
    assert steps > 15
    assert flipped <= 2  # from the flip to giving back the lock
    assert store.head().generation == "g2"
    assert_true(store, "g2")
    left = [key for key in store._client.scan_iter(f"{store.keys.namespace}:*g2*")]
    assert all(store._client.ttl(key) > 0 for key in left)


def test_a_delta_killed_at_every_step(client, make, mortal):
    old = {**USERS, "kim": [4]}
    after = {"ann": [9], "bob": [5], "zoe": [1, 2], "kim": [6]}

    def delta(one):
        batches = [make.user_batch({"ann": [9], "bob": [5]}), make.user_batch({"zoe": [1, 2]})]
        one.publish_delta("g2", users=[*batches, make.user_batch({"kim": [6]})], removed=["new"])

    # From the same beginning each time; then the same delta again, or another one.
    for again in (True, False):
        for commands in range(200):
            store = GenerationStore(client, namespace=f"t{uuid.uuid4().hex[:10]}")
            make.publish(store, "g2", old)
            victim = mortal(store.keys.namespace, commands)
            ended = True
            try:
                delta(victim)
            except Killed:
                ended = False
            client.delete(store.keys.lock("g2"))
            found = shown(store, "g2", [*old, "zoe"])
            for user, items in found.items():
                assert items in (old.get(user), after.get(user))
            if again:
                delta(store)
                assert shown(store, "g2", list(found)) == {"new": None, **after}
            else:
                store.publish_delta("g2", users=[make.user_batch({"bob": [12]})])
            assert_true(store, "g2")
            assert store.manifest("g2").revision >= 1
            if ended:
                break
        assert commands > 10


def test_two_deltas_cut_off_one_after_the_other(store, make):
    make.publish(store, "g1", USERS)

    def cut(lists):
        yield make.user_batch(lists)
        raise KeyboardInterrupt

    for lists in ({"ann": [1], "zoe": [2]}, {"zoe": [3], "bob": []}, {"kim": [4]}):
        with pytest.raises(KeyboardInterrupt):
            store.publish_delta("g1", users=cut(lists))
    report = store.publish_delta("g1", removed=["ann"])
    assert (report.revision, report.num_settled, report.num_users) == (1, 1, 4)
    assert_true(store, "g1")


# -- expiry -------------------------------------------------------------------------------------


def test_expiry_has_its_bounds(store, make):
    make.publish(store, "g1", USERS)
    with pytest.raises(ValueError, match="ttl_s must be >= 60, got 59"):
        store.set_ttl("g1", 59)
    with pytest.raises(NoGeneration, match="'g2' is not in the store"):
        store.set_ttl("g2", 600)


@pytest.mark.parametrize("ttl_s", [120, 5000])
def test_a_manifest_never_outlives_a_list(store, make, mortal, ttl_s):
    make.publish(store, "g2", USERS)
    for _ in ending_everywhere(store, mortal, lambda one: one.set_ttl("g2", ttl_s)):
        keys = [store.keys.user("g2", user) for user in USERS] + [store.keys.items("g2")]
        least = min(store._client.expiretime(key) for key in keys)
        assert store.manifest("g2").expires_at <= least + 1
        assert json.loads(store._client.get(store.keys.manifest("g2")))["expires_at"]
