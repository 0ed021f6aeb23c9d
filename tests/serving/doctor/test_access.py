"""What each kind of process must be allowed to do: enough, and nothing that is not needed."""

from __future__ import annotations

import contextlib
import time
import uuid

import pytest
import redis

from serving.connection import connect
from serving.doctor.access import CLUSTER_COMMANDS, ROLES, acl_rules, missing_rights
from serving.errors import StageUnavailable
from serving.events.event_stream import EventStream, Position
from serving.events.feature_state import RedisStateStore
from serving.events.sessions import Sessions
from serving.messages import Event, RecommendRequest
from serving.request.experiments import KillSwitch
from serving.request.service import RecommendationService
from serving.store import GenerationStore
from serving.store.keys import Keys
from tests.serving.connection.servers import cluster, standalone

NAMESPACE = "shop"


@pytest.fixture(
    scope="module",
    params=["valkey", "redis", pytest.param("cluster", marks=pytest.mark.slow)],
)
def servers(request):
    made = cluster() if request.param == "cluster" else standalone(request.param)
    with made as store:
        yield store


@pytest.fixture
def client_of(servers, monkeypatch):
    """Makes a client of a new user with some rules."""
    with contextlib.ExitStack() as stack:

        def make_client(rules):
            name = f"u{uuid.uuid4().hex[:8]}"
            for server in servers.servers:
                server.ask("ACL", "SETUSER", name, "on", ">secret", *rules.split())
            monkeypatch.setenv("RECSYS_STORE_USERNAME", name)
            monkeypatch.setenv("RECSYS_STORE_PASSWORD", "secret")
            return stack.enter_context(contextlib.closing(connect(servers.url)))

        yield make_client


@pytest.fixture
def user_of(servers, client_of):
    """Makes a client with the rights of a role."""
    return lambda role: client_of(acl_rules(role, NAMESPACE, cluster="cluster" in servers.url))


@pytest.fixture
def published(servers, user_of, make):
    store = GenerationStore(user_of("publisher"), namespace=NAMESPACE)
    generation = f"g{uuid.uuid4().hex[:8]}"
    make.publish(
        store, generation, {"ann": [5, 6, 7]}, neighbours=[make.user_batch({"i1": [2, 3]})]
    )
    for server in servers.servers:
        server.ask("ACL", "LOG", "RESET")
    return store


def refused(servers):
    """Commands that were refused since the log was emptied."""
    found = set()
    for server in servers.servers:
        for entry in server.ask("ACL", "LOG"):
            fields = dict(zip(entry[::2], entry[1::2], strict=True))
            found.add(fields[b"object"].decode())
    return found


def test_a_publisher_publishes(servers, published, make):
    head = published.head()
    neighbours = [make.user_batch({"i1": [2, 3]})]
    make.publish(published, head.generation, {"ann": [5, 6, 7]}, neighbours=neighbours)
    make.publish(published, f"{head.generation}b", {"ann": [8]})
    assert published.rollback().generation == head.generation
    assert len(published.generations()) >= 2
    published.set_alive(head.generation, [3], False)
    assert list(published.user_ids(head.generation)) == ["ann"]
    assert refused(servers) == set()


def test_a_reader_serves_and_cannot_publish(servers, published, user_of, make):
    client = user_of("reader")
    store = GenerationStore(client, namespace=NAMESPACE)
    sessions = Sessions(client, store.keys)
    service = RecommendationService(store, sessions=sessions)
    service.warm_up()
    answer = service.recommend(RecommendRequest("ann", k=3))
    assert [item.item_id for item in answer.items] == ["i5", "i6", "i7"]
    assert answer.source == "cache"
    assert len(service.recommend(RecommendRequest("nobody", k=2)).items) == 2
    assert KillSwitch(client, store.keys.experiments).stopped() == frozenset()
    assert refused(servers) == set()
    head = store.head()
    with pytest.raises(StageUnavailable, match="no permission"):
        make.publish(store, "g-by-reader", {"ann": [9]})
    with pytest.raises(StageUnavailable, match="no permission"):
        store.set_alive(head.generation, [3], False)
    assert refused(servers)
    assert store.head() == head
    service.close()


def test_a_service_takes_events_and_hides_items(servers, published, user_of, make):
    client = user_of("service")
    store = GenerationStore(client, namespace=NAMESPACE)
    sessions = Sessions(client, store.keys)
    stream = EventStream(client, store.keys, sessions=sessions)
    service = RecommendationService(store, sessions=sessions, stream=stream)
    report = service.record([Event("ann", "i3", time.time(), "click")])
    assert report.accepted == 1
    assert service.hide(["i5"]).changed == 1
    answer = service.recommend(RecommendRequest("ann", k=2))
    assert "i5" not in [item.item_id for item in answer.items]
    assert service.restore(["i5"]).changed == 1
    sessions.forget("ann")
    KillSwitch(client, store.keys.experiments).stop("an-experiment")
    assert refused(servers) == set()
    with pytest.raises(StageUnavailable, match="no permission"):
        make.publish(store, "g-by-service", {"ann": [9]})
    service.close()


def test_a_follower_keeps_the_state(servers, published, user_of):
    client = user_of("follower")
    state = RedisStateStore(client, NAMESPACE, writer=True, expire_s=60)
    state.renew()
    state.write({("k", "a"): b"1"})
    assert state.read([("k", "a")]) == [b"1"]
    assert state.read_all(["k"]) == [{"a": b"1"}]
    stream = EventStream(client, Keys(NAMESPACE))
    assert stream.read(Position()).num_entries >= 0
    stream.wait(Position(), 0.01)
    assert refused(servers) == set()


def test_no_right_is_superfluous_and_each_is_missed(servers, client_of):
    every = sorted({command for role in ROLES.values() for command in role.commands})
    extra = CLUSTER_COMMANDS if "cluster" in servers.url else ()
    given = " ".join(f"+{command}" for command in (*every, *extra))
    client = client_of(f"~{NAMESPACE}:* {given}")
    assert missing_rights(client, NAMESPACE, every) == []
    assert missing_rights(client, "other", every) == ["~other:*"]
    for command in every if "cluster" not in servers.url else ("get", "multi", "append"):
        client = client_of(f"~{NAMESPACE}:* {given} -{command}")
        assert missing_rights(client, NAMESPACE, every) == [f"+{command}"]
    for server in servers.servers:
        assert not [key for key in server.ask("KEYS", "*") if b":doctor:" in key]


def test_a_server_that_does_not_answer_is_no_right():
    client = connect("unix:///nowhere/a.sock")
    with pytest.raises(redis.ConnectionError):
        missing_rights(client, NAMESPACE, ["get"])
    client.close()
