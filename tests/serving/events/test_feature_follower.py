from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from features import FeatureComputer, Interactions, OnlineFeatures
from features.moments import EPOCH
from serving.connection import connect
from serving.connection.embedded import EmbeddedStore
from serving.errors import StageUnavailable, WriterReplaced
from serving.events.event_stream import EventStream, Position
from serving.events.feature_follower import FeatureFollower, followed_to
from serving.events.feature_state import RedisStateStore
from serving.events.sessions import Sessions
from serving.messages import Event
from serving.store.keys import Keys
from tests.feature_world import EVERYTHING, ITEMS, USERS, VECTORS, raw_events, requests_of
from tests.serving.connection.servers import standalone

NOW = float(os.environ.get("TEST_NOW", int(time.time())))  # a child must have the same log
COMPUTER = FeatureComputer(EVERYTHING, ITEMS, USERS, VECTORS)
LOG = raw_events(
    [
        (
            "uvw"[n % 3],
            "abcdz"[n % 5],
            EPOCH + timedelta(seconds=NOW, days=-9, hours=7 * n),
            kind,
            2,
        )
        for n, kind in enumerate(["view", "buy", "view"] * 4)
    ]
).with_columns(pl.lit(2.0, dtype=pl.Float32).alias("weight"))
LOG_END = LOG["timestamp"].max()


def random_events(number, seed=0):
    """Of a few users, some late, some sent twice, some without a weight, some with an id."""
    rng = random.Random(seed)
    events = []
    for place in range(number):
        if events and rng.random() < 0.15:
            events.append(rng.choice(events))
            continue
        weight = rng.choice([None, 0.1, 1.3, 4.9])
        event_id = f"e{place}" if rng.random() < 0.3 else None
        ago = rng.choice([rng.random() * 3, 3600 * rng.random(), 86_400 * 5 * rng.random()])
        user, item = rng.choice(["u", "v", "w", "new"]), rng.choice("abcdz")
        kind = rng.choice(["view", "buy", "click"])
        events.append(Event(user, item, NOW - ago, kind, weight, event_id))
    return events


def no_log():
    return LOG.clear()


class World:
    """A stream with a state that follows it, in a namespace of its own."""

    def __init__(self, client, **options):
        self.client = client
        self.keys = Keys(f"t{uuid.uuid4().hex[:10]}")
        sessions = Sessions(client, self.keys, clock=lambda: NOW)
        self.stream = EventStream(client, self.keys, sessions=sessions, **options)
        self.stream._clock = lambda: NOW

    def state(self):
        return RedisStateStore(self.client, self.keys.namespace, writer=True)

    def follower(self, *, open_state=None, read_log=no_log, batch=10, **options):
        return FeatureFollower(
            self.stream, open_state or self.state, COMPUTER, read_log, batch=batch, **options
        )

    def values(self, rows):
        state = RedisStateStore(self.client, self.keys.namespace)
        return OnlineFeatures(EVERYTHING, ITEMS, USERS, VECTORS, state).compute(rows)

    def rows(self):
        moment = EPOCH + timedelta(seconds=time.time() + 60)
        users = ["u", "v", "w", "new", "silent"]
        return requests_of(
            [(place, user, item, moment) for place, user in enumerate(users) for item in "abcdz"]
        )

    def expected(self, rows, log=None):
        """What the log says that everything in the stream makes, computed as for training."""
        kept = no_log() if log is None else log
        mean = 1.0 if log is None else 2.0
        entries = self.stream.read(Position(), 10_000).events
        frame = pl.DataFrame(
            {
                "user_id": [*kept["user_id"], *(each.user_id for each in entries)],
                "item_id": [*kept["item_id"], *(each.item_id for each in entries)],
                "timestamp": [
                    *kept["timestamp"],
                    *(EPOCH + timedelta(microseconds=each.happened_us) for each in entries),
                ],
                "event": [*kept["event"], *(each.event for each in entries)],
                "weight": pl.Series(
                    [
                        *kept["weight"],
                        *(mean if each.weight is None else each.weight for each in entries),
                    ],
                    dtype=pl.Float32,
                ),
                "created": [
                    *kept["timestamp"],
                    *(EPOCH + timedelta(microseconds=each.arrived_us) for each in entries),
                ],
                "event_id": [
                    *(f"log{place}" for place in range(kept.height)),
                    *(str(each.identity) for each in entries),
                ],
            },
            schema_overrides={"timestamp": pl.Datetime("us"), "created": pl.Datetime("us")},
        )
        return COMPUTER.compute(rows, Interactions.from_frame(frame))

    def assert_no_divergence(self, log=None):
        rows = self.rows()
        online, offline = self.values(rows), self.expected(rows, log)
        for definition in COMPUTER.definitions:
            left, right = (frame[definition.name].to_numpy() for frame in (online, offline))
            np.testing.assert_allclose(left, right, 1e-5, 1e-6, err_msg=definition.name)


@pytest.fixture
def world(client):
    return World(client)


def test_the_state_that_followed_equals_the_log(world):
    events = random_events(120)
    world.stream.record(events)
    report = world.follower().run(once=True)
    different = len({each.identity for each in world.stream.read(Position()).events})
    assert report.update.applied == different < 120
    assert report.update.duplicates == 120 - different
    assert report.update.late > 0
    assert report.events_per_s > 0
    world.assert_no_divergence()
    world.stream.record(random_events(40, seed=1))
    assert world.follower().run(once=True).update.applied > 20
    world.assert_no_divergence()
    assert world.follower().run(once=True).update == (0, 0, 0, 0)


def test_it_begins_with_the_log_and_follows_from_its_end(world):
    world.stream.record(random_events(60))
    report = world.follower(read_log=lambda: LOG).run(once=True)
    assert report.seeded.applied == LOG.height
    world.assert_no_divergence(LOG)
    again = world.follower(read_log=lambda: pytest.fail("the state is there")).run(once=True)
    assert again.seeded.applied == again.update.applied == 0


def test_what_came_in_before_the_log_ended_is_in_the_log(world):
    world.stream.record(random_events(20))
    time.sleep(0.002)
    seconds, microseconds = world.client.time()
    end = EPOCH + timedelta(seconds=seconds, microseconds=microseconds)
    log = LOG.with_columns(pl.lit(end).cast(pl.Datetime("us")).alias("created"))
    time.sleep(0.002)
    world.stream.record(random_events(20, seed=5))
    report = world.follower(read_log=lambda: log).run(once=True)
    assert report.update.applied + report.update.duplicates == 20


class Cut(Exception):
    """The process is gone."""


def cut_at(world, number, *, before):
    """A state whose process dies just before or just after its so-many-th write."""
    state = world.state()
    write, left = state.write, [number]

    def dying(values):
        left[0] -= 1
        if left[0] == 0 and before:
            raise Cut
        write(values)
        if left[0] == 0:
            raise Cut

    state.write = dying
    return state


@pytest.mark.parametrize("before", [True, False])
def test_a_follower_that_dies_at_any_write_loses_and_repeats_nothing(world, before):
    for number in range(1, 9):  # the first three writes are the log's, where there is no state yet
        world.stream.record(random_events(60, seed=number))
        with pytest.raises(Cut):
            world.follower(
                open_state=lambda one=number: cut_at(world, one, before=before),
                read_log=lambda: LOG,
                batch=7,
            ).run(once=True)
    world.follower(read_log=lambda: LOG, batch=7).run(once=True)
    world.assert_no_divergence(LOG)


CHILD = """
import sys
from tests.serving.events import test_feature_follower as here
from serving.connection.clients import connect
from serving.store.keys import Keys

world = here.World(connect("embedded", directory=sys.argv[1]))
world.keys = Keys(sys.argv[2])
world.stream._keys = world.keys
print("following", flush=True)
world.follower(read_log=lambda: here.LOG, batch=3).run()
"""


@pytest.mark.parametrize("times", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_a_follower_killed_at_random_moments(world, embedded_directory, times):
    rng = random.Random(times)
    command = [sys.executable, "-c", CHILD, str(embedded_directory), world.keys.namespace]
    threads = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    environment = {**os.environ, **threads, "TEST_NOW": str(NOW)}
    state = OnlineFeatures(EVERYTHING, ITEMS, USERS, VECTORS).plan.digest
    reader = RedisStateStore(world.client, world.keys.namespace)
    kills = 0
    for seed in range(times):
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"following\n"
        before = followed_to(reader, state)
        for part in range(8):
            world.stream.record(random_events(20, seed=10 * seed + part))
        deadline = time.monotonic() + 20
        while followed_to(reader, state) == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.1)
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        child.stdout.close()
    assert kills == times
    world.follower(read_log=lambda: LOG).run(once=True)
    assert world.stream.lag(followed_to(reader, state)).waiting == 0
    world.assert_no_divergence(LOG)


def test_a_follower_that_is_replaced_stops(world):
    world.stream.record(random_events(10))
    first = world.follower()
    first.run(once=True)
    world.follower().run(once=True)
    world.stream.record(random_events(10, seed=1))
    with pytest.raises(WriterReplaced, match="another one has taken over; stop one of the two"):
        first.run(once=True)
    world.follower().run(once=True)
    world.assert_no_divergence()


def test_it_stops_when_asked_to(world):
    stop = threading.Event()
    follower = world.follower(stop=stop)
    thread = threading.Thread(target=follower.run)
    thread.start()
    world.stream.record(random_events(30))
    deadline = time.monotonic() + 20
    while sum(follower.report.update[:2]) < 30 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    world.assert_no_divergence()


def test_entries_that_are_no_events_are_passed(world):
    world.client.xadd(world.keys.events, {"something": "else"})
    report = world.follower().run(once=True)
    assert (report.refused, report.update.applied) == (1, 0)
    assert world.follower().run(once=True).refused == 0


def test_events_that_were_gone_are_counted_and_told(client, caplog):
    world = World(client, max_len=100)
    world.stream.record(random_events(5))
    world.follower().run(once=True)
    world.stream.record([Event("u", "a", NOW - place / 10) for place in range(600)])
    kept = client.xlen(world.keys.events)
    with caplog.at_level(logging.WARNING):
        report = world.follower(batch=1000).run(once=True)
    assert report.position.lost == 600 - kept > 0
    assert f"{600 - kept} events were gone from the stream before they were" in caplog.text


@pytest.mark.parametrize("kept", [True, False])
def test_a_store_that_dies_and_comes_back(kept, caplog):
    """With its data it goes on; without, the state begins with the log again."""
    options = {"appendonly": "yes", "appendfsync": "always"} if kept else {}
    with standalone(**options) as store:
        client = connect(store.url, timeout_s=1.0, retries=0)
        world = World(client)
        world.stream.record(random_events(30))
        stop = threading.Event()
        follower = world.follower(read_log=lambda: LOG, stop=stop)
        thread = threading.Thread(target=follower.run)
        thread.start()
        wait_until(lambda: sum(follower.report.update[:2]) >= 30)
        store.kill()
        wait_until(lambda: follower.report.interruptions >= 2)
        store.restart()
        world.stream.record(random_events(30, seed=1))
        wait_until(lambda: sum(follower.report.update[:2]) >= 60)
        stop.set()
        thread.join(20)
        assert follower.report.seeded.applied == LOG.height * (1 if kept else 2)
        assert "feature state waits" in caplog.text
        world.assert_no_divergence(LOG)
        client.close()


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_state_that_went_back_is_not_mixed_with_what_this_process_remembers(world):
    """As after a failover to a replica that had not got the last writes."""
    world.stream.record(random_events(30))
    follower = world.follower(batch=100)
    follower.run(once=True)
    old = {key: world.client.dump(key) for key in world.client.keys(f"{world.keys.namespace}:f:*")}
    world.stream.record(random_events(30, seed=1))
    follower.run(once=True)
    for key in world.client.keys(f"{world.keys.namespace}:f:*"):
        world.client.delete(key)
    for key, value in old.items():
        world.client.restore(key, 0, value)
    world.stream.record(random_events(5, seed=2))
    follower.run(once=True)
    world.assert_no_divergence()


def test_a_broken_connection_is_not_another_writer(world, own_directory):
    EmbeddedStore.ensure(own_directory)
    client = connect("embedded", directory=own_directory, retries=0)
    state = RedisStateStore(client, world.keys.namespace, writer=True)
    state.write({("k", "a"): b"1"})
    client.delete(f"{world.keys.namespace}:f:{{{world.keys.namespace}}}:writer")
    with pytest.raises(StageUnavailable, match="has lost the feature state under"):
        state.write({("k", "a"): b"2"})
    state.renew()
    state.write({("k", "a"): b"2"})
    os.kill(EmbeddedStore.pid(own_directory), signal.SIGKILL)
    with pytest.raises(StageUnavailable, match="could not write feature state"):
        state.write({("k", "a"): b"3"})
    EmbeddedStore.ensure(own_directory)
    state.renew()
    RedisStateStore(client, world.keys.namespace, writer=True)
    with pytest.raises(WriterReplaced):
        state.renew()
    client.close()


def test_arguments(world):
    with pytest.raises(ValueError, match="batch must be >= 1, got 0"):
        world.follower(batch=0)
