"""Three nodes on loopback, one of them killed, stopped or relieved of a slot."""

from __future__ import annotations

import threading
import uuid

import pytest
import redis

from serving.connection import connect
from serving.connection.clients import store_errors
from serving.connection.cluster_exchange import ClusterUnreachable, NodeLeftAlone, slot_of
from serving.errors import ServingError, StageUnavailable
from serving.messages import RecommendRequest
from serving.request.service import RecommendationService
from serving.store import GenerationStore
from tests.serving.connection.servers import cluster, wait_for

KEYS = [f"key{number}" for number in range(60)]


@pytest.fixture(scope="module", params=["valkey", pytest.param("redis", marks=pytest.mark.slow)])
def nodes(request):
    with cluster(program=request.param, appendonly="yes") as store:
        yield store


@pytest.fixture
def client(nodes):
    for server in nodes.servers:
        if not server.is_alive:
            server.start()
    nodes.wait_until_whole()
    client = connect(nodes.url, timeout_s=0.3, connect_timeout_s=0.3, retry_after_s=0.2)
    yield client
    client.close()
    for number in range(len(nodes.servers)):
        nodes.cont(number)


@pytest.fixture
def filled(client):
    with client.pipeline(transaction=False) as pipeline:
        for key in KEYS:
            pipeline.set(key, key)
        pipeline.execute()
    return client


def of_node(nodes, number):
    return [key for key in KEYS if nodes.owner(key) == number]


def not_of_node(nodes, number):
    return [key for key in KEYS if nodes.owner(key) != number]


def answers(client, key):
    try:
        return client.get(key) == key.encode()
    except redis.RedisError:
        return False


# -- keys in any slot -------------------------------------------------------------------------


def test_many_keys_are_read_in_the_order_asked(filled):
    assert filled.mget_nonatomic(KEYS) == [key.encode() for key in KEYS]
    assert filled.mget_nonatomic(["none", *reversed(KEYS), "none"]) == [
        None,
        *(key.encode() for key in reversed(KEYS)),
        None,
    ]
    assert filled.mget_nonatomic(KEYS[0]) == [KEYS[0].encode()]
    assert filled.mget_nonatomic([]) == []
    filled.hset("of another type", "f", "v")
    assert filled.mget_nonatomic([KEYS[0], "of another type", "none"]) == [b"key0", None, None]


def test_a_pipeline_keeps_the_order_of_its_commands(client):
    name = uuid.uuid4().hex
    with client.pipeline(transaction=False) as pipeline:
        for number in range(500):
            pipeline.set(f"{name}{number}", number)
        for number in range(500):
            pipeline.hset(f"{name}h{number}", mapping={"a": number, "b": 2})
        for number in range(500):
            pipeline.hgetall(f"{name}h{number}")
        pipeline.eval("return redis.call('GET', KEYS[1])", 1, f"{name}7")
        pipeline.object("encoding", f"{name}7")  # the server is asked where its key is
        assert len(pipeline) == 1502
        replies = pipeline.execute()
        assert len(pipeline) == 0
    assert replies[:1000] == [True] * 500 + [2] * 500
    assert replies[1000:1500] == [{b"a": str(n).encode(), b"b": b"2"} for n in range(500)]
    assert replies[1500:] == [b"7", b"int"]
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set("forgotten", 1)
    assert client.get("forgotten") is None


def test_an_error_of_one_command_leaves_the_others_done(client):
    name = uuid.uuid4().hex
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set(f"{name}a", "text")
        pipeline.incr(f"{name}a")
        pipeline.set(f"{name}b", "1")
        with pytest.raises(redis.ResponseError, match="not an integer"):
            pipeline.execute()
        assert client.get(f"{name}b") == b"1"
        pipeline.incr(f"{name}a")
        pipeline.get(f"{name}b")
        first, second = pipeline.execute(raise_on_error=False)
    assert isinstance(first, redis.ResponseError)
    assert second == b"1"


def test_a_transaction_stays_in_one_slot(client):
    name = uuid.uuid4().hex
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set(f"{{{name}}}a", 1)
        pipeline.incr(f"{{{name}}}a")
        assert pipeline.execute()[1] == 2


def test_a_scan_sees_all_nodes(filled):
    found = {key.decode() for key in filled.scan_iter(match="key*", count=1000)}
    assert found == set(KEYS)


# -- slots that move --------------------------------------------------------------------------


def move(nodes, slot, source, target, *, finish):
    ids = [server.ask("CLUSTER", "MYID").decode() for server in nodes.servers]
    nodes.servers[target].ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    nodes.servers[source].ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    for key in nodes.servers[source].ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
        port = nodes.servers[target].port
        nodes.servers[source].ask("MIGRATE", "127.0.0.1", port, key, 0, 5000)
    if finish:
        for number in (target, source):
            nodes.servers[number].ask("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        wait_for(lambda: nodes.owner_of_slot(slot) == target, "the slot to move")


def test_slots_that_move_are_followed(nodes, filled):
    key, other = of_node(nodes, 0)[:2]
    slot = slot_of(key)
    move(nodes, slot, 0, 1, finish=False)  # the node says ASK for what is gone
    assert filled.get(key) == key.encode()
    assert filled.mget_nonatomic([key, other]) == [key.encode(), other.encode()]
    with filled.pipeline(transaction=False) as pipeline:
        pipeline.get(other)
        pipeline.append(key, "+")
        assert pipeline.execute() == [other.encode(), len(key) + 1]
    move(nodes, slot, 0, 1, finish=True)  # the node says MOVED
    assert filled.mget_nonatomic([key, other]) == [f"{key}+".encode(), other.encode()]
    assert filled.get(key) == f"{key}+".encode()
    filled.set(key, key)
    move(nodes, slot, 1, 0, finish=True)
    assert filled.get(key) == key.encode()


# -- a node that is gone ----------------------------------------------------------------------


def test_a_killed_node_costs_its_own_keys_only_and_comes_back(nodes, filled):
    gone, there = of_node(nodes, 1), not_of_node(nodes, 1)
    nodes.kill(1)
    name = f"127.0.0.1:{nodes.servers[1].port}"
    for _ in range(2):
        with pytest.raises(StageUnavailable, match="refused") as caught, store_errors("read"):
            filled.get(gone[0])
        assert caught.value.shard == name
        assert [filled.get(key) for key in there] == [key.encode() for key in there]
        assert filled.mget_nonatomic(there) == [key.encode() for key in there]
        with pytest.raises(StageUnavailable) as caught, store_errors("read"):
            filled.mget_nonatomic(KEYS)
        assert caught.value.shard == name
    with filled.pipeline(transaction=False) as pipeline:
        for key in (there[0], gone[0]):
            pipeline.get(key)
        found, error = pipeline.execute(raise_on_error=False)
    assert found == there[0].encode()
    assert error.shard == name
    assert filled.breaker_states()[name] == "open"
    nodes.restart(1)
    wait_for(lambda: answers(filled, gone[0]), "the node to be asked again")
    assert filled.mget_nonatomic(KEYS) == [key.encode() for key in KEYS]
    assert set(filled.breaker_states().values()) == {"closed"}


def test_a_node_that_hangs_is_waited_for_once_and_left_alone(nodes, filled):
    gone, there = of_node(nodes, 2), not_of_node(nodes, 2)
    patient = connect(nodes.url, timeout_s=0.3, retry_after_s=60)
    assert patient.mget_nonatomic(KEYS) == [key.encode() for key in KEYS]
    nodes.stop_process(2)
    for read in (lambda: patient.get(gone[0]), lambda: patient.mget_nonatomic(KEYS)):
        with pytest.raises(NodeLeftAlone, match="is left alone for 60 s after TimeoutError"):
            read()
    sent = nodes.servers[2].num_waiting_bytes()
    for key in gone:
        with pytest.raises(NodeLeftAlone):
            patient.get(key)
    assert nodes.servers[2].num_waiting_bytes() == sent  # nothing more was sent
    assert patient.mget_nonatomic(there) == [key.encode() for key in there]
    patient.close()
    nodes.cont(2)
    assert filled.mget_nonatomic(KEYS) == [key.encode() for key in KEYS]


def test_no_thread_waits_for_another_when_all_nodes_hang(nodes, filled):
    for number in range(3):
        nodes.stop_process(number)
    failed: list[ServingError] = []

    def read(key):
        try:
            with store_errors("read"):
                filled.get(key)
        except StageUnavailable as error:
            failed.append(error)

    threads = [threading.Thread(target=read, args=(key,)) for key in KEYS[:24]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)  # 24 threads that waited for each other would need 20 s and more
    assert len(failed) == len(threads)
    for number in range(3):
        nodes.cont(number)
    for key in KEYS:
        wait_for(lambda one=key: answers(filled, one), "the nodes to be asked again")


def test_a_client_made_while_all_nodes_are_gone(nodes, client):
    client.set("k", "v")
    for number in range(3):
        nodes.kill(number)
    late = connect(nodes.url, timeout_s=0.3, retry_after_s=0.2)
    for _ in range(2):
        with (
            pytest.raises(StageUnavailable, match="ClusterUnreachable") as caught,
            store_errors("read"),
        ):
            late.get("k")
        assert caught.value.shard is None
    with pytest.raises(ClusterUnreachable):
        late.pipeline()
    for server in nodes.servers:
        server.start()
    wait_for(lambda: answers_value(late, "k", b"v"), "the cluster")
    late.close()


def answers_value(client, key, value):
    try:
        return client.get(key) == value
    except redis.RedisError:
        return False


def test_a_pool_that_is_exhausted_is_no_failure_of_the_node(nodes):
    client = connect(nodes.url, timeout_s=0.2, max_connections=1)
    client.set("k", "v")
    pool = client.get_redis_connection(client.node_of(slot_of("k"))).connection_pool
    held = pool.get_connection()
    for read in (lambda: client.get("k"), lambda: client.mget_nonatomic(["k"])):
        with pytest.raises(redis.RedisError, match=r"all 1 connections were in use for 0\.2 s"):
            read()
    assert set(client.breaker_states().values()) == {"closed"}
    pool.release(held)
    assert client.get("k") == b"v"
    client.close()


# -- what the shop notices --------------------------------------------------------------------


def test_users_of_other_nodes_are_served_on_and_the_rest_get_a_fallback(nodes, client, make):
    store = GenerationStore(client, namespace=f"t{uuid.uuid4().hex[:8]}")
    users = {f"user{number}": [5 + number % 8, 1] for number in range(30)}
    make.publish(store, "g1", users)
    service = RecommendationService(store)
    owner = {user: nodes.owner(store.keys.user("g1", user)) for user in users}
    asked = {user: service.recommend(RecommendRequest(user, k=2)) for user in users}
    assert {answer.source for answer in asked.values()} == {"cache"}
    service.close()

    service = RecommendationService(store)  # that remembers no list
    service.recommend(RecommendRequest("nobody", k=2))
    nodes.kill(1)
    for user in users:
        answer = service.recommend(RecommendRequest(user, k=2))
        assert len(answer.items) == 2
        if owner[user] == 1:
            assert (answer.source, answer.degraded) == ("popular", True)
        else:
            assert answer.source == "cache"
            assert answer.items == asked[user].items
    with pytest.raises(StageUnavailable):
        make.publish(store, "g2", users)
    nodes.restart(1)
    wait_for(lambda: answers_value(client, store.keys.user("g1", "no"), None), "node 1")
    lost = next(user for user in users if owner[user] == 1)
    wait_for(
        lambda: service.recommend(RecommendRequest(lost, k=2)).source == "cache",
        "the list of a user of the killed node",
    )
    assert store.head().generation == "g1"
    make.publish(store, "g2", users)
    assert store.head().generation == "g2"
    service.close()


@pytest.mark.slow
@pytest.mark.parametrize("program", ["valkey", "redis"])
def test_a_replica_takes_over_and_the_client_follows(program, make):
    with cluster(replicas=1, program=program, appendonly="yes") as store:
        client = connect(store.url, timeout_s=0.3, retry_after_s=0.2)
        with client.pipeline(transaction=False) as pipeline:
            for key in KEYS:
                pipeline.set(key, key)
            pipeline.execute()
        for number in range(3):
            store.servers[number].ask("WAIT", 1, 5000)
        gone = of_node(store, 1)
        store.kill(1)
        wait_for(lambda: answers(client, gone[0]), "the replica to take over")
        assert store.owner(gone[0]) == 4
        assert client.mget_nonatomic(KEYS) == [key.encode() for key in KEYS]
        assert client.set(gone[0], "new")
        store.restart(1)  # comes back as a replica
        assert client.mget_nonatomic(gone[:2]) == [b"new", gone[1].encode()]
        client.close()
