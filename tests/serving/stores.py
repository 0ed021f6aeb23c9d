"""Stores for tests, an empty namespace each, and small generations to publish.

A plugin of `tests/conftest.py`: a server is started once, whichever tests ask for it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import redis

from serving.connection import connect
from serving.connection.embedded import EmbeddedStore
from serving.store import GenerationStore
from tests.serving.connection.servers import cluster, sentinel, standalone

ITEM_IDS = [f"i{number}" for number in range(1, 13)]  # item index 1..12

# A client of each kind of store, from what gives the value of a fixture.
BACKENDS: dict[str, Callable[[Callable[[str], Any]], redis.Redis]] = {
    "embedded": lambda value: connect("embedded", directory=value("embedded_directory")),
    "redis-server": lambda value: connect(value("redis_server_url")),
    "sentinel": lambda value: connect(value("sentinel_url")),
    "cluster": lambda value: connect(value("cluster_url")),
}


@pytest.fixture(autouse=True)
def _no_store_variables(monkeypatch):
    for name in ("URL", "USERNAME", "PASSWORD", "SENTINEL_PASSWORD"):
        monkeypatch.delenv(f"RECSYS_STORE_{name}", raising=False)
    # Importing Feast sets it, and processes started later would inherit it.
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)


@contextlib.contextmanager
def short_directory():
    """A directory whose sockets fit into AF_UNIX's limit, whatever the test's name."""
    directory = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def embedded_directory():
    with short_directory() as directory:
        EmbeddedStore.ensure(directory / "store")
        yield directory / "store"
        EmbeddedStore.stop(directory / "store")


@pytest.fixture(scope="session")
def redis_server_url():
    with standalone("redis") as server:
        yield server.url


@pytest.fixture(scope="session")
def cluster_url():
    """Three nodes that nobody may kill; patient with each other on a busy machine."""
    with cluster() as nodes:
        for server in nodes.servers:
            server.ask("CONFIG", "SET", "cluster-node-timeout", 15_000)
        yield nodes.url


@pytest.fixture(scope="session")
def sentinel_url():
    """A master that one Sentinel names."""
    with sentinel("valkey", replicas=0, sentinels=1) as servers:
        yield servers.url


@pytest.fixture
def own_directory():
    """A directory of this test alone, for tests that kill or stop the server."""
    with short_directory() as directory:
        yield directory / "store"
        EmbeddedStore.stop(directory / "store")


@pytest.fixture
def client(embedded_directory):
    client = connect("embedded", directory=embedded_directory)
    yield client
    client.close()


@pytest.fixture
def store(client):
    """An empty namespace on the shared embedded server."""
    return GenerationStore(client, namespace=f"t{uuid.uuid4().hex[:10]}")


@pytest.fixture(params=BACKENDS)
def any_client(request):
    """A client of each kind of store there is."""
    client = BACKENDS[request.param](request.getfixturevalue)
    yield client
    client.close()


@pytest.fixture
def any_store(any_client):
    """An empty namespace on each kind of store there is."""
    return GenerationStore(any_client, namespace=f"t{uuid.uuid4().hex[:10]}")


def user_batch(lists: dict[str, list[int]], source: int = 0):
    """Lists of item indices as one batch; scores fall from 1 in steps of 1/8, exact in f16."""
    width = max(map(len, lists.values()))
    item_index = np.full((len(lists), width), -1, dtype=np.int64)
    score = np.full((len(lists), width), -np.inf, dtype=np.float32)
    for row, items in enumerate(lists.values()):
        item_index[row, : len(items)] = items
        score[row, : len(items)] = 1 - np.arange(len(items)) / 8
    return list(lists), item_index, score, np.full((len(lists), width), source, np.uint8)


def popular(items: list[int]):
    return np.array(items), np.linspace(1.0, 0.5, len(items))


def publish(store, generation, users, *, item_ids=ITEM_IDS, popular_items=(1, 2, 3, 4), **options):
    """Publish a small generation; ``users`` maps user ids to item indices."""
    options.setdefault("ttl_s", 600)
    options.setdefault("vocabulary_sha256", "v1")
    return store.publish(
        generation,
        users=[user_batch(users)] if isinstance(users, dict) else users,
        item_ids=item_ids,
        popular=popular(list(popular_items)),
        **options,
    )


@pytest.fixture
def make():
    """Builders that several test files share."""
    return SimpleNamespace(
        item_ids=ITEM_IDS,
        user_batch=user_batch,
        popular=popular,
        publish=publish,
        kill=lambda directory: os.kill(EmbeddedStore.pid(directory), 9),
    )
