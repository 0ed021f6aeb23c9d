"""Publishes that are cut off, raced, gated and checked."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import redis

from serving.connection import connect
from serving.connection.calls import PAGE
from serving.errors import NoGeneration, PublishRefused, StageUnavailable
from serving.store import GenerationStore
from serving.store.manifest import Manifest
from serving.store.publication import GateVerdict
from serving.store.write_lock import WriteLock

NUM_BATCHES, BATCH = 6, 40


class CutOff(Exception):
    """Stands for a process that ends."""


def batches(make, *, changed=None, cut_at=None, count=NUM_BATCHES):
    """Batches of users; one has other lists, and at one the publisher ends."""
    for number in range(count):
        if number == cut_at:
            raise CutOff
        item = 7 if number == changed else 1 + number
        yield make.user_batch({f"u{number}-{row}": [item] for row in range(BATCH)})


def contents(store, generation):
    """Every key of a generation with its value."""
    keys = store._client.scan_iter(f"{store.keys.namespace}:*{generation}*")
    return {key: store._client.get(key) for key in keys}


def lasting(manifest: Manifest) -> Manifest:
    """Without the moments of the publish, and under one name."""
    return replace(manifest, generation="g", published_at=0.0, expires_at=0, content_sum=None)


@pytest.mark.parametrize("cut_at", [1, 4, NUM_BATCHES - 1])
def test_a_publish_goes_on_where_it_was_cut_off(any_store, make, cut_at):
    whole = make.publish(any_store, "whole", batches(make))
    assert (whole.num_resumed, whole.num_values) == (0, 2 + NUM_BATCHES * BATCH)
    with pytest.raises(CutOff):
        make.publish(any_store, "g1", batches(make, cut_at=cut_at))
    assert any_store.head().generation == "whole"
    report = make.publish(any_store, "g1", batches(make))
    # The block that was written last may be half-written, so it is written again.
    assert report.num_resumed == 2 + (cut_at - 1) * BATCH
    each = len(any_store._client.get(any_store.keys.user("g1", "u0-0")))
    assert report.bytes_written == (NUM_BATCHES - cut_at + 1) * BATCH * each
    assert report.num_values == whole.num_values
    first, again = any_store.manifest("whole"), any_store.manifest("g1")
    assert again.content_sha256 != first.content_sha256  # keys name the generation
    assert lasting(replace(again, content_sha256="")) == lasting(replace(first, content_sha256=""))
    assert any_store._client.exists(any_store.keys.progress("g1")) == 0


def test_what_is_resumed_is_what_one_attempt_writes(any_store, make):
    make.publish(any_store, "g1", batches(make))
    expected, manifest = contents(any_store, "g1"), any_store.manifest("g1")
    for key in expected:
        any_store._client.delete(key)
    for cut_at in (2, 3, 5):
        with pytest.raises(CutOff):
            make.publish(any_store, "g1", batches(make, cut_at=cut_at))
    assert make.publish(any_store, "g1", batches(make)).num_resumed == 2 + 4 * BATCH
    found = contents(any_store, "g1")
    assert lasting(any_store.manifest("g1")) == lasting(manifest)
    assert any_store.manifest("g1").content_sha256 == manifest.content_sha256
    name = any_store.keys.manifest("g1").encode()
    assert {**found, name: b""} == {**expected, name: b""}
    moments = {any_store._client.expiretime(key) for key in found}
    assert moments == {any_store.manifest("g1").expires_at}


@pytest.mark.parametrize(
    ("changed", "count", "resumed"), [(2, NUM_BATCHES, 2), (None, 3, 3), (0, 3, 0), (4, 9, 4)]
)
def test_another_input_replaces_what_was_written(any_store, make, changed, count, resumed):
    with pytest.raises(CutOff):
        make.publish(any_store, "g1", batches(make, cut_at=NUM_BATCHES - 1))
    report = make.publish(any_store, "g1", batches(make, changed=changed, count=count))
    assert report.num_resumed == 2 + min(resumed, 4) * BATCH
    assert any_store.manifest("g1").num_users == count * BATCH
    left = list(any_store._client.scan_iter(f"{any_store.keys.namespace}:u:g1:*"))
    assert len(left) == count * BATCH
    if changed is not None:
        assert any_store.read_user("g1", f"u{changed}-0").item_index.tolist() == [7]


def test_another_input_is_told_even_when_it_is_cut_off_too(store, make):
    with pytest.raises(CutOff):
        make.publish(store, "g1", batches(make, cut_at=5))
    with pytest.raises(CutOff):
        make.publish(store, "g1", batches(make, changed=1, cut_at=3))
    make.publish(store, "g1", batches(make, changed=1, count=3))
    assert len(list(store._client.scan_iter(f"{store.keys.namespace}:u:g1:*"))) == 3 * BATCH


def test_an_old_attempt_is_written_again(store, make):
    with pytest.raises(CutOff):
        make.publish(store, "g1", batches(make, cut_at=4), ttl_s=600)
    report = make.publish(store, "g1", batches(make, count=2), ttl_s=6000)
    assert report.num_resumed == 0
    keys = list(store._client.scan_iter(f"{store.keys.namespace}:u:g1:*"))
    assert len(keys) == 2 * BATCH
    assert {store._client.expiretime(key) for key in keys} == {store.manifest("g1").expires_at}


@pytest.mark.parametrize("value", [b"", b"{", b"[]\n", b'{"kind": "publish"}\nx', b"\xff\n\xff"])
def test_a_damaged_marker_counts_for_nothing(store, make, value):
    with pytest.raises(CutOff):
        make.publish(store, "g1", batches(make, cut_at=4))
    store._client.set(store.keys.progress("g1"), value)
    report = make.publish(store, "g1", batches(make))
    assert (report.num_resumed, report.num_users) == (0, NUM_BATCHES * BATCH)


def test_a_marker_that_goes_while_writing_is_put_back(store, make):
    def users():
        for number, batch in enumerate(batches(make)):
            if number == 3:
                store._client.delete(store.keys.progress("g1"))
            if number == 5:
                raise CutOff
            yield batch

    with pytest.raises(CutOff):
        make.publish(store, "g1", users())
    assert store._client.ttl(store.keys.progress("g1")) > 0
    assert make.publish(store, "g1", batches(make)).num_resumed == 2 + 4 * BATCH


def test_evicted_values_of_an_earlier_attempt_are_written_again(store, make):
    with pytest.raises(CutOff):
        make.publish(store, "g1", batches(make, cut_at=5))
    store._client.delete(store.keys.user("g1", "u1-3"))
    assert make.publish(store, "g1", batches(make)).num_resumed == 2 + 3 * BATCH
    assert store.read_user("g1", "u1-3").item_index.tolist() == [2]


def test_blocks_are_bounded_whatever_the_batch(store, make):
    lists = {f"u{row}": [1] for row in range(2 * PAGE + 1)}
    seen = []
    report = make.publish(store, "g1", lists, on_progress=lambda *at: seen.append(at))
    assert seen[-3:] == [("users", 2 + PAGE), ("users", 2 + 2 * PAGE), ("users", 3 + 2 * PAGE)]
    assert report.num_users == 2 * PAGE + 1


# -- gates and checks ---------------------------------------------------------------------------


def test_a_gate_sees_both_manifests_and_keeps_the_head(store, make):
    make.publish(store, "g1", {"ann": [1]})
    asked = []

    def gate(new, served):
        asked.append((new.generation, new.num_users, served.generation))
        return GateVerdict(len(asked) > 1, "ndcg fell by 0.1")

    with pytest.raises(PublishRefused, match=r"does not let generation g2 through: ndcg fell by"):
        make.publish(store, "g2", {"ann": [2], "bob": [1]}, gate=gate)
    assert store.head().generation == "g1"
    assert store.manifest("g2") is None
    assert make.publish(store, "g2", {"ann": [2], "bob": [1]}, gate=gate).num_resumed == 2
    assert asked == [("g2", 2, "g1")] * 2
    first = []
    make.publish(
        store,
        "g3",
        {"ann": [2]},
        gate=lambda new, served: GateVerdict(not first.append(served)),
    )
    assert first[0].generation == "g2"


def test_a_gate_without_a_reason_and_without_a_served_generation(store, make):
    with pytest.raises(PublishRefused, match="no reason given"):
        make.publish(store, "g1", {"ann": [1]}, gate=lambda new, served: GateVerdict(served))


@pytest.mark.parametrize("drop", [-0.1, 1.5, float("nan")])
def test_the_drop_is_a_fraction(store, make, drop):
    with pytest.raises(ValueError, match="max_user_drop must be within 0 and 1, got"):
        make.publish(store, "g1", {"ann": [1]}, max_user_drop=drop)
    with pytest.raises(ValueError, match="max_user_drop must be within 0 and 1, got"):
        store.publish_delta("g1", max_user_drop=drop)


def test_hidden_candidates_are_counted_and_a_hidden_fallback_is_refused(store, make):
    alive = np.ones(13, dtype=bool)
    alive[[2, 3]] = False
    report = make.publish(store, "g1", {"ann": [1, 2, 3], "bob": [3]}, alive=alive)
    assert report.num_hidden == 3
    alive[1:5] = False
    with pytest.raises(PublishRefused, match="alive hides all 4 items of the fallback list"):
        make.publish(store, "g2", {"ann": [1]}, alive=alive)
    assert store.head().generation == "g1"


def test_a_bitmap_that_reads_back_different_is_refused(store, make, monkeypatch):
    real = store._client.set

    def overwritten(name, *arguments, **options):
        taken = real(name, *arguments, **options)
        if name == store.keys.alive("g1"):
            store._client.setbit(name, 5, 0)
        return taken

    monkeypatch.setattr(store._client, "set", overwritten)
    with pytest.raises(PublishRefused, match=r"bitmap of recommendable items .* different"):
        make.publish(store, "g1", {"ann": [1]})


def test_bad_segments_are_refused(store, make):
    with pytest.raises(PublishRefused, match=r"popular_segments\['x'\]: item_index must be at mo"):
        make.publish(store, "g1", {"ann": [1]}, popular_segments={"x": make.popular([13])})
    many = {str(number): make.popular([1]) for number in range(1001)}
    with pytest.raises(ValueError, match="at most 1000 segments, got 1001; use a column of fewer"):
        make.publish(store, "g1", {"ann": [1]}, popular_segments=many)


def test_a_manifest_of_the_first_format_is_read(store, make):
    make.publish(store, "g1", {"ann": [1]})
    value = json.loads(store._client.get(store.keys.manifest("g1")))
    for name in ("revision", "segments", "content_sum"):
        del value[name]
    store._client.set(store.keys.manifest("g1"), json.dumps({**value, "format": 1}), ex=500)
    manifest = store.manifest("g1")
    assert (manifest.revision, manifest.segments, manifest.content_sum) == (0, (), None)
    with pytest.raises(PublishRefused, match=r"by an older release .* publish the bundle again"):
        store.publish_delta("g1", users=[make.user_batch({"ann": [2]})])
    assert make.publish(store, "g1", {"ann": [1]}).refreshed  # which makes it one of the second
    assert store.publish_delta("g1", users=[make.user_batch({"ann": [2]})]).revision == 1


def test_a_generation_without_its_vocabulary_is_not_flipped_to(store, make):
    make.publish(store, "g1", {"ann": [1]})
    make.publish(store, "g2", {"ann": [1]})
    store._client.delete(store.keys.items("g1"))
    with pytest.raises(NoGeneration, match="'g1' has lost its vocabulary"):
        store.rollback()
    assert store.head().generation == "g2"


# -- several publishers -------------------------------------------------------------------------

RACER = textwrap.dedent(
    """
    import sys
    import numpy as np
    from serving.connection.clients import connect
    from serving.errors import HeadConflict, PublishRefused
    from serving.store.generations import GenerationStore

    url, namespace, generation, item = sys.argv[1:]
    store = GenerationStore(connect(url), namespace=namespace)

    def users():
        for batch in range(5):
            if batch == 1:  # both have read the head, and the lock is asked for
                print("ready", flush=True)
                sys.stdin.readline()
            names = [f"u{batch}-{n}" for n in range(200)]
            yield names, np.full((200, 1), int(item)), np.ones((200, 1)), 0

    try:
        store.publish(generation, users=users(), item_ids=["a", "b", "c"], vocabulary_sha256="v",
                      ttl_s=600, popular=(np.array([1]), np.array([1.0])))
    except HeadConflict as error:
        print("conflict", error, flush=True)
    except PublishRefused as error:
        print("refused", error, flush=True)
    else:
        print("won", flush=True)
    """
)


def racer(url, store, generation, item):
    command = [sys.executable, "-c", RACER, url, store.keys.namespace, generation, str(item)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def url(client):
    return f"unix://{client.connection_pool.connection_kwargs['path']}"


def test_of_two_processes_one_wins_and_the_other_says_so(store, url):
    with racer(url, store, "first", 1) as first, racer(url, store, "second", 2) as second:
        assert [one.stdout.readline() for one in (first, second)] == ["ready\n"] * 2
        for one in (first, second):
            one.stdin.write("go\n")
            one.stdin.flush()
        answers = [one.communicate()[0] for one in (first, second)]
    assert sorted(answer.split()[0] for answer in answers) == ["conflict", "won"]
    lost = next(answer for answer in answers if answer.startswith("conflict"))
    assert "the head moved while this publish ran: expected epoch 0, found epoch 1" in lost
    winner = "first" if answers[0].startswith("won") else "second"
    assert (store.head().generation, store.head().epoch) == (winner, 1)
    assert len(store.generations()) == 2  # the other is whole as well, and may be flipped to


def test_two_processes_do_not_mix_one_generation(store, url):
    with racer(url, store, "g1", 1) as first:
        assert first.stdout.readline() == "ready\n"
        with racer(url, store, "g1", 2) as second:
            answer = second.communicate()[0]
        assert answer.startswith("refused generation g1 is being written by another process")
        assert f"process {first.pid} on " in answer
        assert first.communicate("go\n")[0] == "won\n"
    lists = store.read_users("g1", [f"u{batch}-{row}" for batch in range(5) for row in range(200)])
    assert {one.item_index.tolist()[0] for one in lists} == {1}
    assert store._client.exists(store.keys.lock("g1")) == 0


def test_the_lock_of_a_killed_writer_is_waited_for(store, make):
    store._client.set(store.keys.lock("g1"), "host:1:abc", px=300)
    assert make.publish(store, "g1", {"ann": [1]}).epoch == 1


def test_a_lock_that_would_never_go_is_told(store, make):
    store._client.set(store.keys.lock("g1"), "somebody")
    with pytest.raises(PublishRefused, match=r"g1:lock' .*has no expiry.*remove the key"):
        make.publish(store, "g1", {"ann": [1]})


def test_a_writer_that_lost_its_lock_stops(store, make):
    def users():
        yield make.user_batch({"ann": [1]})
        store._client.set(store.keys.lock("g1"), "host:1:abc", px=30_000)
        lock._done.wait(0.2)
        yield make.user_batch({"bob": [1]})

    lock = WriteLock(store._client, "unused", "unused")
    quick = GenerationStore(store._client, namespace=store.keys.namespace, lease_s=0.1)
    with pytest.raises(PublishRefused, match=r"lock of this writer was not renewed for 0.1 s"):
        make.publish(quick, "g1", users())
    assert store.head() is None
    assert store._client.get(store.keys.lock("g1")) == b"host:1:abc"  # not ours to remove


def test_a_lock_needs_time():
    with pytest.raises(ValueError, match="lease_s must be > 0, got 0"):
        WriteLock(redis.Redis(), "k", "what", lease_s=0)


def test_a_store_without_memory_keeps_the_head(own_directory, make):
    store = GenerationStore(connect("embedded", directory=own_directory))
    make.publish(store, "g1", {"ann": [1]})
    store._client.config_set("maxmemory-policy", "noeviction")
    used = store._client.info("memory")["used_memory"]
    store._client.config_set("maxmemory", used + 200_000)
    many = [make.user_batch({f"u{n}-{m}": [1] for m in range(500)}) for n in range(20)]
    with pytest.raises(StageUnavailable, match=r"publish: .*maxmemory"):
        make.publish(store, "g2", many)
    assert store.head().generation == "g1"
    assert store.read_user("g1", "ann").item_index.tolist() == [1]
    store._client.config_set("maxmemory", 0)
    report = make.publish(store, "g2", many)
    assert report.num_users == 10_000
    assert report.num_resumed > 0
