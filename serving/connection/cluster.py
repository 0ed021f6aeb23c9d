"""A client of Redis Cluster in which every wait is bounded and a dead node costs its users only.

It is redis-py's own client with four changes. Nothing is sent before the first command. A node
that failed is left alone for a moment, so its slots fail at once and the others are not slowed.
One thread at a time asks for the new layout. And many keys are one message to each node, tried
again as a whole; redis-py would send them one by one to a node that does not answer.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import RedisClusterException

from serving.breaker import CircuitBreaker
from serving.connection.cluster_exchange import (
    NODE_FAILED,
    NOT_THE_NODE,
    ClusterUnreachable,
    Exchange,
    NodeLeftAlone,
    as_redis_errors,
)
from serving.connection.cluster_pipeline import ShardedPipeline

__all__ = ["ClusterClient"]

log = logging.getLogger(__name__)


class ClusterClient(RedisCluster):
    """A client of a cluster, safe for threads.

    Errors name the node they come from as ``shard`` ("host:port"), where it is one node's.

    Args:
        hosts: nodes to ask for the layout, one or more.
        retry_after_s: how long a node that failed is left alone, > 0.
        clock: seconds, only differences count.
        options: of `redis.cluster.RedisCluster`, among them ``url`` of the first host and
            ``socket_timeout``.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        *,
        retry_after_s: float,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        self._hosts = list(hosts)
        nodes = [ClusterNode(*host) for host in hosts[1:]]  # type: ignore[no-untyped-call]
        self._options = {"require_full_coverage": False, "startup_nodes": nodes, **options}
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._breakers: dict[str, CircuitBreaker] = {}
        self._last_words: dict[str, str] = {}
        self._first = CircuitBreaker(retry_after_s, clock)
        self._connecting = threading.RLock()
        self._is_connecting = False
        self._is_connected = False
        self._refreshing = threading.Lock()

    # -- one command --------------------------------------------------------------------------

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Reply to one command; after a failure once more, when the layout may have changed."""
        self._connect()
        with as_redis_errors():
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _execute_command(self, target_node: ClusterNode, *args: Any, **kwargs: Any) -> Any:
        self.admit(target_node)
        try:
            reply = super()._execute_command(target_node, *args, **kwargs)  # type: ignore[no-untyped-call]
        except Exception as error:
            self.report(target_node, error)
            raise
        self.report(target_node, None)
        return reply

    def admit(self, node: ClusterNode) -> None:
        """Return when ``node`` may be asked; the caller then reports what came of it.

        Raises:
            NodeLeftAlone: it failed a moment ago.
        """
        if not self._breaker(node.name).allow():
            error = NodeLeftAlone(
                f"node {node.name} is left alone for {self._retry_after_s:g} s after "
                f"{self._last_words.get(node.name)}"
            )
            error.shard = node.name
            raise error

    def report(self, node: ClusterNode, error: Exception | None) -> None:
        """Say whether ``node`` answered; an error of the network gets its ``shard``."""
        if isinstance(error, (*NODE_FAILED, RedisClusterException)) and not isinstance(
            error, (NodeLeftAlone, *NOT_THE_NODE)
        ):
            talked_to = getattr(error, "connection", None)  # another node after a redirection
            host, port = getattr(talked_to, "host", None), getattr(talked_to, "port", None)
            name = f"{host}:{port}" if host and port else node.name
            if isinstance(error, redis.RedisError):
                error.shard = name  # type: ignore[union-attr]
            self._last_words[name] = f"{type(error).__name__}: {error}"
            self._breaker(name).failed()
        elif not isinstance(error, NodeLeftAlone):
            self._breaker(node.name).succeeded()

    def _breaker(self, name: str) -> CircuitBreaker:
        found = self._breakers.get(name)
        if found is None:
            made = CircuitBreaker(self._retry_after_s, self._clock)
            found = self._breakers.setdefault(name, made)
        return found

    def breaker_states(self) -> dict[str, str]:
        """State of each node that was ever talked to, by "host:port"."""
        return {name: breaker.state for name, breaker in self._breakers.items()}

    # -- many keys ----------------------------------------------------------------------------

    def pipeline(self, transaction: bool | None = None, shard_hint: Any = None) -> Any:
        """Commands sent together. Without ``transaction`` their keys may be in any slot."""
        self._connect()
        if transaction:
            return super().pipeline(transaction, shard_hint)  # type: ignore[no-untyped-call]
        return ShardedPipeline(self)

    def mget_nonatomic(self, keys: Any, *args: Any) -> list[Any]:
        """Values of keys in any slots, in the order asked, in one round trip to each node."""
        asked = [keys] if isinstance(keys, (str, bytes)) else list(keys)
        encoded = [key.encode() if isinstance(key, str) else key for key in (*asked, *args)]
        found = self._read_plainly(encoded)
        if found is not None:
            return found
        with self.pipeline() as pipeline:  # which follows slots that moved
            for key in encoded:
                pipeline.get(key)
            replies = pipeline.execute(raise_on_error=False)
        return [_value(reply) for reply in replies]

    def _read_plainly(self, keys: Sequence[bytes]) -> list[Any] | None:
        """Values by the layout as last heard; None when that does not hold for a key."""
        self._connect()
        slots = self.nodes_manager.slots_cache
        parts: dict[str, tuple[ClusterNode, list[int]]] = {}
        for position, key in enumerate(keys):
            owners = slots.get(key_slot(key))
            if not owners:
                return None
            node = owners[0]
            part = parts.get(node.name)
            if part is None:
                part = parts[node.name] = (node, [])
            part[1].append(position)
        values: list[Any] = [None] * len(keys)
        with contextlib.ExitStack() as stack:
            reading = []
            for node, positions in parts.values():
                exchange = Exchange(self, node, stack)
                exchange.write(
                    [
                        b"".join(
                            b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(keys[at]), keys[at])
                            for at in positions
                        )
                    ]
                )
                reading.append((positions, exchange))
            for positions, exchange in reading:
                found = exchange.read_plainly(len(positions))
                if found is None:
                    if not isinstance(exchange.failure, NodeLeftAlone):
                        self.refresh()
                    return None
                for position, value in zip(positions, found, strict=True):
                    values[position] = value
        return values

    # -- the layout ---------------------------------------------------------------------------

    def node_of(self, slot: int) -> ClusterNode:
        """Master of a slot as last heard.

        Raises:
            ClusterUnreachable: nobody owns it.
        """
        self._connect()
        with as_redis_errors():
            return self.nodes_manager.get_node_from_slot(slot)

    def refresh(self) -> None:
        """Ask for the layout, unless another thread is asking; the old one stays if none tells."""
        self._ask_alone()

    def close(self) -> None:
        """Close all connections."""
        if "nodes_manager" in self.__dict__:
            super().close()

    def __getattr__(self, name: str) -> Any:
        # The attributes of a RedisCluster, which has none until it is connected.
        if name.startswith("__") or self.__dict__.get("_is_connecting", True):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        self._connect()
        return object.__getattribute__(self, name)

    def _connect(self) -> None:
        if self._is_connected:
            return
        with self._connecting:
            if self._is_connected or self._is_connecting:
                return
            if not self._first.allow():
                raise ClusterUnreachable("no node told the layout of the cluster a moment ago")
            self._is_connecting = True
            try:
                with as_redis_errors():
                    super().__init__(**self._options)
            except redis.RedisError:
                self._first.failed()
                raise
            finally:
                self._is_connecting = False
            self._ask_for_layout = self.nodes_manager.initialize
            self.nodes_manager.initialize = self._ask_alone  # type: ignore[method-assign]
            self._is_connected = True

    def _ask_alone(self, *_: Any, **__: Any) -> None:
        """Ask for the layout in place of redis-py's method: one thread at a time, a bounded wait.

        The others go on with what they have. The configured hosts are asked as well, after those
        of the last layout, for a cluster that came back with other addresses.
        """
        if self._refreshing.acquire(blocking=False):
            asking = threading.Thread(target=self._ask, name="store-layout", daemon=True)
            asking.start()
            asking.join(self._options["socket_timeout"])

    def _ask(self) -> None:
        known = set(self.nodes_manager.startup_nodes)
        more = [(host, port) for host, port in self._hosts if f"{host}:{port}" not in known]
        try:
            self._ask_for_layout(additional_startup_nodes_info=more)
        except (RedisClusterException, redis.RedisError) as error:
            log.info("no node tells the layout of the cluster: %s", error)
        finally:
            self._refreshing.release()


def _value(reply: Any) -> Any:
    """What MGET says in place of an error: a key of another type has no value."""
    if isinstance(reply, redis.ResponseError) and str(reply).startswith("WRONGTYPE"):
        return None
    if isinstance(reply, Exception):
        raise reply
    return reply
