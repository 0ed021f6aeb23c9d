"""One node of three after the other is killed while requests and events keep coming."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.connection.servers import cluster, wait_for
from tests.serving.faults.fault_world import USERS, Got, Traffic, publish, shop


@pytest.mark.slow  # `test_cluster` kills a node in every run, without traffic
@pytest.mark.parametrize("program", ["valkey", "redis"])
def test_node_of_a_cluster_killed(program: str, tmp_path: Path) -> None:
    durable = {"appendonly": "yes", "appendfsync": "always"}
    with (
        cluster(program=program, **durable) as nodes,
        shop(nodes.url, tmp_path, timeout_s=2.0) as open_shop,
    ):
        publish(open_shop.store, "g1")
        keys = open_shop.store.keys
        lists_on = {user: nodes.owner(keys.user("g1", user)) for user in USERS}
        stream_on = nodes.owner(keys.events)
        shared = {nodes.owner(key) for key in (keys.head, keys.manifest("g1"), keys.alive("g1"))}
        with Traffic(open_shop) as traffic:
            for node in range(3):
                nodes.kill(node)

                def is_hurt(got: Got, node: int = node) -> bool:
                    return got.answer.degraded and lists_on[got.user] == node

                hurt = traffic.wait_for(is_hurt, "users of the killed node", 10)
                assert {got.answer.source for got in hurt} == {"cache"}  # from memory
                assert {got.answer.reason for got in hurt} == {"store_unavailable"}
                others = traffic.wait_for(
                    lambda got, of=node: lists_on[got.user] != of, "others", 20
                )
                if node not in shared:
                    assert all(got.is_good for got in others)
                traffic.wait_until_refused()
                if node != stream_on:  # writers whose session is elsewhere go on
                    told = len(traffic.told)
                    wait_for(lambda least=told: len(traffic.told) > least + 10, "events")
                nodes.restart(node)
                traffic.wait_until_good()
                traffic.wait_until_told()
        traffic.check()
        assert traffic.reasons() == {"store_unavailable"}
