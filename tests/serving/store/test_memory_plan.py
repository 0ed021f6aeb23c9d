from __future__ import annotations

import json
import time
import uuid
from typing import Any

import numpy as np
import pytest
import redis
from typer.testing import CliRunner

from serving.cli import app
from serving.connection import connect
from serving.connection.embedded import EmbeddedStore
from serving.events.sessions import Sessions
from serving.messages import Event
from serving.store import GenerationStore
from serving.store.keys import Keys
from serving.store.memory_plan import GENERATION, plan_memory

NUM_ITEMS, NUM_USERS = 2_000, 20_000


def used(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def test_the_bill_is_what_a_server_takes(own_directory: Any) -> None:
    """Within a tenth: a real publication of lists, neighbours and rows."""
    client = connect("embedded", directory=own_directory)
    store = GenerationStore(client)
    store.ping()
    time.sleep(0.2)
    before = used(client)
    rng = np.random.default_rng(0)
    item_ids = [f"{number:08d}" for number in range(NUM_ITEMS)]
    user_ids = [f"{number:08d}" for number in range(NUM_USERS)]

    def lists(ids: list[str], width: int) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        index = rng.permuted(np.tile(np.arange(1, NUM_ITEMS + 1), (len(ids), 1)), axis=1)
        score = np.tile(np.linspace(1, 0, width), (len(ids), 1))
        return ids, index[:, :width], score, np.zeros((len(ids), width), dtype=np.uint8)

    def batches(ids: list[str], width: int) -> Any:
        for start in range(0, len(ids), 1_000):
            yield lists(ids[start : start + 1_000], width)

    store.publish(
        GENERATION,
        users=batches(user_ids, 100),
        item_ids=item_ids,
        popular=(np.arange(1, 11), np.linspace(1, 0, 10)),
        vocabulary_sha256="0" * 64,
        ttl_s=3_600,
        source_names=("a", "similar"),
        item_rows=[bytes(4 + 4 * 30 + 2 * 64)] * NUM_ITEMS,
        item_schema="{}",
        neighbours=batches(item_ids, 50),
    )
    took = used(client) - before
    client.close()
    EmbeddedStore.stop(own_directory)
    lines = plan_memory(num_users=NUM_USERS, num_items=NUM_ITEMS, generations=1)
    assert sum(line.total_bytes for line in lines) == pytest.approx(took, rel=0.1)


@pytest.mark.parametrize("count", [5, 50])
def test_the_bill_of_sessions(client: Any, count: int) -> None:
    """Within a tenth of what real sessions take."""
    keys = Keys(f"t{uuid.uuid4().hex[:10]}")
    sessions = Sessions(client, keys)
    now, users = time.time(), [f"{number:08d}" for number in range(3_000)]
    before = used(client)
    for start in range(0, len(users), 300):
        sessions.add(
            [
                Event(user, f"{place * 7:08d}", now - 60 * place)
                for user in users[start : start + 300]
                for place in range(count)
            ]
        )
    took = used(client) - before
    client.delete(*map(keys.session, users))
    line = plan_memory(
        num_users=1,
        num_items=1,
        num_sessions=len(users),
        session_events=count,
        namespace=keys.namespace,
    )[-1]
    assert (line.what, line.keys) == ("sessions", 3_000)
    assert line.total_bytes == pytest.approx(took, rel=0.1)


def test_the_bill_by_hand() -> None:
    lines = {line.what: line for line in plan_memory(num_users=10, num_items=5, k=3, dim=2)}
    key = len("recsys:u:20260101T000000Z-abcdef:{b000}:12345678")
    assert lines["lists"].bytes_each == key + (12 + 3 * 4 + 2) + 80
    assert lines["lists"].total_bytes == 2 * 10 * lines["lists"].bytes_each
    assert lines["item rows"].bytes_each == key + (4 + 4 * 30 + 2 * 2) + 80
    assert [line.keys for line in lines.values()] == [10, 5, 5, 1]
    larger = plan_memory(num_users=10, num_items=70_000, k=3, dim=2, generations=3)[0]
    assert larger.bytes_each == lines["lists"].bytes_each + 3
    assert larger.total_bytes == 3 * 10 * larger.bytes_each


@pytest.mark.parametrize(
    "name",
    [
        "num_users",
        "num_items",
        "k",
        "dim",
        "num_features",
        "num_neighbours",
        "id_bytes",
        "generations",
        "num_sessions",
        "session_events",
    ],
)
def test_numbers_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be >= \d, got -1"):
        plan_memory(**{"num_users": 1, "num_items": 1, name: -1})


def test_the_verb() -> None:
    done = CliRunner().invoke(app, ["plan", "--users", "10M", "--items", "1.5M", "--k", "100"])
    assert done.exit_code == 0, done.output
    assert "10,000,000" in done.stdout
    assert "1,500,000" in done.stdout
    assert "GB in all; leave the server a third more" in done.stdout
    done = CliRunner().invoke(app, ["plan", "--users", "2k", "--items", "900", "--json"])
    found = json.loads(done.stdout)
    assert [line["keys"] for line in found["lines"]] == [2_000, 900, 900, 1]
    assert found["total_bytes"] == sum(line["total_bytes"] for line in found["lines"])
    done = CliRunner().invoke(app, ["plan", "--users", "10M", "--k", "100", "--dim", "64"])
    assert "1,000,000" in done.stdout  # items, unless they are said
    done = CliRunner().invoke(app, ["plan", "--users", "1k", "--sessions", "300", "--json"])
    assert json.loads(done.stdout)["lines"][-1]["keys"] == 300
    done = CliRunner().invoke(app, ["plan", "--users", "many", "--items", "1"])
    assert done.exit_code == 2
    assert "must be a number such as 500k or 10M, got 'many'" in done.stderr
