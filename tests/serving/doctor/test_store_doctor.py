"""What `recsys doctor store` finds on servers as they should be and as they should not."""

from __future__ import annotations

import json
import types

import pytest
from typer.testing import CliRunner

from recsys.config import load_config
from recsys.errors import ConfigError
from serving.cli import app
from serving.connection import connect
from serving.doctor import store as store_doctor
from serving.doctor.access import acl_rules
from serving.doctor.store import examine_store
from tests.serving.connection.servers import cluster, free_port, sentinel, standalone

DATA = '[data]\nevents = "events.parquet"\nitems = "items.parquet"\n'


@pytest.fixture
def examine(tmp_path):
    """Examines the store at a URL; findings by the name of their check."""

    def run(url, role="reader", more=""):
        path = tmp_path / "recsys.toml"
        path.write_text(f'{DATA}[store]\nurl = "{url}"\n{more}', encoding="utf-8")
        return {found.check: found for found in examine_store(load_config(path), role)}

    return run


@pytest.mark.parametrize(("program", "kind"), [("valkey", "Valkey 9"), ("redis", "Redis ")])
def test_a_server_as_it_should_be(examine, program, kind):
    with standalone(program, appendonly="yes", maxmemory="1gb") as store:
        found = examine(store.url, role="publisher")
        assert store.client().dbsize() == 0  # nothing was left behind
    assert kind in found["server"].detail
    expected = ["server", "latency", "encryption", "memory", "persistence", "clock"]
    expected += ["reader", "service", "publisher", "follower"]
    assert {name for name, one in found.items() if one.state == "OK"} == set(expected)
    assert found["topology"].detail == "one server without a replica"
    assert found["memory"].detail.startswith("0% of maxmemory")


def test_a_server_that_drops_keys(examine):
    with standalone(maxmemory="3mb", maxmemory_policy="allkeys-lru") as store:
        client = connect(store.url)
        for number in range(300):
            client.set(f"k{number}", b"x" * 10_000)
        client.close()
        found = examine(store.url)
    assert "maxmemory-policy is allkeys-lru" in found["eviction"].detail
    assert found["evicted"].state == "WARN"
    assert found["persistence"].state == "WARN"


def test_a_server_that_is_nearly_full(examine):
    with standalone("redis", maxmemory="3mb", maxmemory_policy="noeviction") as store:
        client = connect(store.url)
        while client.info("memory")["used_memory"] < 2_600_000:
            client.append("big", b"x" * 100_000)
        client.close()
        found = examine(store.url)
    assert found["memory"].state == "WARN"
    assert "of maxmemory is used; a publish needs room" in found["memory"].detail


def test_a_clock_and_a_latency_that_are_off(examine, monkeypatch, redis_server_url):
    ticks = iter(range(100))
    monkeypatch.setattr(
        store_doctor,
        "time",
        types.SimpleNamespace(time=lambda: 1e9, perf_counter=lambda: next(ticks) / 10),
    )
    found = examine(redis_server_url)
    assert found["clock"].state == "WARN"
    assert found["clock"].detail.startswith("the server's is ")
    assert (found["latency"].state, found["latency"].detail) == (
        "WARN",
        "100.00 ms, the longest of 20 100.00 ms",
    )


def test_rights_that_are_missing_are_named(examine, monkeypatch):
    users = ["user default on nopass ~* +@all"]
    users.append(f"user shop on >secret {acl_rules('reader', 'recsys')} -mget")
    with standalone("redis", users=users) as store:
        monkeypatch.setenv("RECSYS_STORE_USERNAME", "shop")
        monkeypatch.setenv("RECSYS_STORE_PASSWORD", "secret")
        found = examine(store.url)
        assert found["reader"].state == "FAIL"
        assert found["reader"].detail == "may not recommend, rank and explain: lacks +mget"
        assert found["reader"].remedy == (
            "ACL SETUSER shop ~recsys:* +ping +get +mget +zrange +zrevrange +hgetall +smembers"
        )
        assert found["publisher"].state == "OK"
        assert found["publisher"].detail.startswith("may not publish, roll back and look into")
        assert (found["memory"].state, found["memory"].remedy) == (
            "WARN",
            "run this as a publisher's user",
        )
        store.servers[0].ask("ACL", "SETUSER", "shop", *found["reader"].remedy.split()[3:])
        assert examine(store.url)["reader"].state == "OK"
        store.servers[0].ask("ACL", "SETUSER", "shop", "resetkeys", "~other:*")
        assert examine(store.url)["reader"].detail.endswith("lacks ~recsys:*")
        needed = examine(store.url, role="follower")["follower"]
        assert needed.state == "FAIL"
        monkeypatch.setenv("RECSYS_STORE_PASSWORD", "wrong")
        [found] = examine(store.url).values()
        assert (found.state, found.remedy) == (
            "FAIL",
            "set RECSYS_STORE_USERNAME and RECSYS_STORE_PASSWORD",
        )
        assert "wrong" not in str(found).replace("WRONGPASS", "")


def test_an_unknown_role(examine):
    with pytest.raises(ConfigError, match="unknown role 'king'; known: follower, publisher"):
        examine("redis://h", role="king")


def test_tls(examine):
    with standalone("redis", tls=True) as store:
        ca = f'tls_ca_file = "{store.certificates.ca}"\n'
        assert examine(store.url, more=ca)["encryption"].detail == "TLS"
        [found] = examine(store.url).values()
        assert found.remedy.startswith("set store.tls_ca_file")


def test_a_network_that_can_be_listened_to(examine, monkeypatch):
    with standalone() as store:
        monkeypatch.setattr(store_doctor, "_LOCAL", ())
        assert examine(store.url)["encryption"].state == "WARN"


def test_a_server_that_is_away(examine, tmp_path):
    [found] = examine(f"redis://127.0.0.1:{free_port()}").values()
    assert (found.state, found.remedy) == ("FAIL", "start it, or correct store.url")
    [found] = examine("embedded").values()
    assert (found.state, found.detail) == ("WARN", "the embedded server is not running")


@pytest.mark.slow
def test_a_replica_is_no_place_to_publish(examine):
    with sentinel(sentinels=1) as store:
        found = examine(f"redis://127.0.0.1:{store.servers[1].port}")
        assert found["topology"].state == "FAIL"
        assert "this server is a slave and refuses what is published" in found["topology"].detail
        found = examine(store.url)
        assert found["topology"].detail == "master 'main'; 1 of 1 Sentinels answer"
        assert found["topology"].state == "WARN"
        gone = f"{free_port()},127.0.0.1:{store.sentinels[0].port}"
        found = examine(f"redis+sentinel://127.0.0.1:{gone}/main")
        assert found["topology"].detail == "master 'main'; 1 of 2 Sentinels answer"


def test_a_cluster(examine, cluster_url):
    found = examine(cluster_url, role="publisher")
    assert "a cluster of 3 masters, 0 with replicas" in found["topology"].detail
    assert found["publisher"].state == "OK"
    assert "coverage" not in found


@pytest.mark.slow
def test_a_cluster_with_replicas_that_wants_all_its_slots(examine):
    with cluster(replicas=1, cluster_require_full_coverage="yes") as store:
        found = examine(store.url)
        assert found["topology"].detail == "a cluster of 3 masters, 3 with replicas"
        assert found["topology"].state == "OK"
        assert "cluster-require-full-coverage is on" in found["coverage"].detail


def test_the_verb(tmp_path, redis_server_url):
    path = tmp_path / "recsys.toml"
    path.write_text(f'{DATA}[store]\nurl = "{redis_server_url}"\n', encoding="utf-8")
    arguments = ["doctor", "store", "--config", str(path), "--json", "--role", "publisher"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["healthy"]
    assert {"server", "rights"} - {one["check"] for one in told["checks"]} == {"rights"}
    path.write_text(f'{DATA}[store]\nurl = "redis://127.0.0.1:{free_port()}"\n', encoding="utf-8")
    assert CliRunner().invoke(app, arguments).exit_code == 1
