"""The master that Sentinel names: found, and followed when another one takes over."""

from __future__ import annotations

import logging
import traceback
import uuid

import pytest
import redis

from serving.connection import connect
from serving.connection.clients import store_errors
from serving.connection.pools import Sentinels
from serving.errors import StageUnavailable
from serving.store import GenerationStore
from tests.serving.connection.servers import free_port, sentinel, wait_for

SECRET, WATCHERS = "hunter2-s3cr3t", "another-s3cr3t"


@pytest.fixture(scope="module", params=["redis", "valkey"])
def watched(request):
    """A master without replicas, so quickly made, and one Sentinel; both want a password."""
    with sentinel(
        request.param, replicas=0, sentinels=1, password=SECRET, sentinel_password=WATCHERS
    ) as store:
        yield store


@pytest.fixture
def passwords(monkeypatch):
    monkeypatch.setenv("RECSYS_STORE_PASSWORD", SECRET)
    monkeypatch.setenv("RECSYS_STORE_SENTINEL_PASSWORD", WATCHERS)


def test_the_master_is_found_and_the_store_works(watched, passwords, make):
    client = connect(watched.url, max_connections=2)
    store = GenerationStore(client, namespace=f"t{uuid.uuid4().hex[:8]}")
    make.publish(store, "g1", {"ann": [5, 6]})
    assert store.read_user("g1", "ann").item_index.tolist() == [5, 6]
    [port] = {connection.port for connection in client.connection_pool._connections}
    assert port == watched.servers[0].port
    client.close()


def test_a_sentinel_that_is_gone_is_passed_over(watched, passwords):
    there = watched.url.removeprefix("redis+sentinel://")
    client = connect(f"redis+sentinel://127.0.0.1:{free_port()},{there}", connect_timeout_s=0.3)
    assert client.ping()
    client.close()


@pytest.mark.parametrize(
    ("variable", "value", "name", "message"),
    [
        ("RECSYS_STORE_PASSWORD", "wrong-" + SECRET, "main", "AuthenticationError"),
        ("RECSYS_STORE_SENTINEL_PASSWORD", "wrong-" + WATCHERS, "main", "no master 'main': 127.*"),
        ("RECSYS_STORE_PASSWORD", SECRET, "other", "127.* does not know 'other'"),
    ],
)
def test_what_is_wrong_is_said_without_a_password(
    watched, passwords, monkeypatch, caplog, variable, value, name, message
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(variable, value)
    client = connect(watched.url.replace("/main/", f"/{name}/"), retries=0)
    with pytest.raises(StageUnavailable, match=message) as caught, store_errors("ping"):
        client.ping()
    said = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(client)
    assert SECRET not in said
    assert WATCHERS not in said
    client.close()


def test_the_sentinel_with_the_newest_failover_is_believed(fake_clock, monkeypatch):
    known = {1: ("old", 7), 2: ("new", 9), 3: ("old", 7), 4: None}
    asked: list[int] = []

    def masters(self):
        port = self.connection_pool.connection_kwargs["port"]
        asked.append(port)
        if known[port] is None:
            raise redis.TimeoutError("no answer")
        ip, epoch = known[port]
        state = {"is_master": True, "is_sdown": ip == "down", "is_odown": False}
        return {"main": {**state, "num-other-sentinels": 3, "config-epoch": epoch, "ip": ip}
                | {"port": "6379"}}  # fmt: skip

    monkeypatch.setattr(redis.Redis, "sentinel_masters", masters)
    hosts = [("127.0.0.1", port) for port in known]
    sentinels = Sentinels(hosts, retry_after_s=1.0, clock=fake_clock, options={})
    assert sentinels.discover_master("main") == ("new", 6379)
    assert asked == [1, 2, 3, 4]
    assert sentinels.discover_master("main") == ("new", 6379)
    assert asked[4:] == [1, 2, 3]  # the fourth is left alone
    fake_clock.advance(1.0)
    known.update({1: ("down", 11), 2: ("down", 11), 3: ("down", 11), 4: None})
    with pytest.raises(redis.ConnectionError, match=r"no master 'main': .*says that it is down"):
        sentinels.discover_master("main")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["valkey", "redis"])
def test_a_client_follows_a_failover(program, make):
    with sentinel(program, appendonly="yes") as nodes:
        client = connect(nodes.url, timeout_s=0.3, connect_timeout_s=0.3)
        store = GenerationStore(client, namespace="t")
        make.publish(store, "g1", {"ann": [5, 6]})
        nodes.servers[0].ask("WAIT", 1, 5000)
        nodes.kill(0)
        with pytest.raises(StageUnavailable):
            store.head()

        def is_back():
            try:
                return store.head() is not None
            except StageUnavailable:
                return False

        wait_for(is_back, "the replica to take over")
        assert store.read_user("g1", "ann").item_index.tolist() == [5, 6]
        make.publish(store, "g2", {"ann": [7]})
        assert store.head().generation == "g2"
        nodes.restart(0)  # the old master is back and takes itself for one
        assert store.head().generation == "g2"
        late = connect(nodes.url)
        assert GenerationStore(late, namespace="t").head().generation == "g2"
        late.close()
        client.close()
