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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.commands.core import CoreCommands
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MaxConnectionsError,
    MovedError,
    RedisClusterException,
    TryAgainError,
)

from serving.breaker import CircuitBreaker

__all__ = ["ClusterClient", "ClusterUnreachable", "NodeLeftAlone", "ShardedPipeline"]

log = logging.getLogger(__name__)

_NODE_FAILED = (redis.ConnectionError, redis.TimeoutError)
_NOT_THE_NODE = (MaxConnectionsError, AuthenticationError)
_MOVED = (MovedError, AskError, TryAgainError, ClusterDownError)
# Commands of this package, so that the server need not be asked where their keys are.
_KEY_IS_FIRST = frozenset(
    [
        *("GET", "SET", "MGET", "DEL", "EXPIRE", "EXPIREAT", "TTL", "SETBIT", "STRLEN", "XADD"),
        *("HSET", "HGET", "HMGET", "HGETALL", "HDEL", "ZADD", "ZRANGE", "ZREVRANGE", "ZREM"),
    ]
)


class ClusterUnreachable(redis.ConnectionError):
    """No node told the layout of the cluster, or no node owns a key's slot."""


class NodeLeftAlone(redis.ConnectionError):
    """The node failed a moment ago and was not asked."""

    shard: str


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
        with _as_redis_errors():
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
        if isinstance(error, (*_NODE_FAILED, RedisClusterException)) and not isinstance(
            error, (NodeLeftAlone, *_NOT_THE_NODE)
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
        asked += args
        by_slot: dict[int, list[int]] = {}
        for position, key in enumerate(asked):
            by_slot.setdefault(slot_of(key), []).append(position)
        with self.pipeline() as pipeline:
            for positions in by_slot.values():
                pipeline.execute_command("MGET", *(asked[position] for position in positions))
            replies = pipeline.execute()
        found: list[Any] = [None] * len(asked)
        for positions, values in zip(by_slot.values(), replies, strict=True):
            for position, value in zip(positions, values, strict=True):
                found[position] = value
        return found

    # -- the layout ---------------------------------------------------------------------------

    def node_of(self, slot: int) -> ClusterNode:
        """Master of a slot as last heard.

        Raises:
            ClusterUnreachable: nobody owns it.
        """
        self._connect()
        with _as_redis_errors():
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
                with _as_redis_errors():
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


class ShardedPipeline(CoreCommands):
    """Commands collected, then sent in one message to each node that owns some of their keys.

    A context manager like `redis.client.Pipeline`; never a transaction.

    Args:
        client: whose nodes and retries to use.
    """

    _event_dispatcher: Any = None

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._commands: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def execute_command(self, *args: Any, **options: Any) -> ShardedPipeline:
        """Collect one command."""
        self._commands.append((args, options))
        return self

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send what was collected and return the replies in the order of the commands.

        Args:
            raise_on_error: raise the first error; otherwise errors stand among the replies.

        Raises:
            redis.RedisError: of the first command that failed; others may have been done.
        """
        commands, self._commands = self._commands, []
        replies: list[Any] = [None] * len(commands)
        pending = list(range(len(commands)))
        attempts = 1 + int(self._client.retry.get_retries())
        for attempt in range(attempts):
            self._send(commands, pending, replies)
            failed = [at for at in pending if isinstance(replies[at], (*_NODE_FAILED, *_MOVED))]
            if not failed or attempt == attempts - 1:
                break
            if all(isinstance(replies[at], (NodeLeftAlone, *_NOT_THE_NODE)) for at in failed):
                break
            self._client.refresh()
            pending = failed
        for at in range(len(commands)):
            if isinstance(replies[at], (AskError, TryAgainError)):  # a slot that is being moved
                args, options = commands[at]
                replies[at] = self._alone(args, options)
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies

    def _alone(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            return self._client.execute_command(*args, **options)
        except redis.RedisError as error:
            return error

    def _send(
        self,
        commands: Sequence[tuple[tuple[Any, ...], dict[str, Any]]],
        pending: list[int],
        replies: list[Any],
    ) -> None:
        """Fill ``replies`` at ``pending``; an error is the reply of each command it concerns."""
        nodes: dict[str, tuple[ClusterNode, list[int]]] = {}
        for at in pending:
            try:
                node = self._client.node_of(self._slot(commands[at][0]))
            except ClusterUnreachable as error:
                replies[at] = error
                continue
            nodes.setdefault(node.name, (node, []))[1].append(at)
        with contextlib.ExitStack() as stack:
            # First write to all nodes, then read, so that they work at the same time.
            reading = [
                (node, positions, _Exchange(self._client, node, stack))
                for node, positions in nodes.values()
            ]
            for _, positions, exchange in reading:
                exchange.write([commands[at][0] for at in positions])
            for _, positions, exchange in reading:
                for at, reply in zip(
                    positions, exchange.read([commands[at] for at in positions]), strict=True
                ):
                    replies[at] = reply

    def _slot(self, args: tuple[Any, ...]) -> int:
        if args[0] in ("EVAL", "EVALSHA"):
            return slot_of(args[3])
        if args[0] in _KEY_IS_FIRST:
            return slot_of(args[1])
        with _as_redis_errors():
            return int(cast(int, self._client.determine_slot(*args)))

    def reset(self) -> None:
        """Forget what was collected."""
        self._commands = []

    def __len__(self) -> int:
        return len(self._commands)

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> ShardedPipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.reset()


class _Exchange:
    """One message to one node and its replies; a failure is kept until the replies are read."""

    def __init__(
        self, client: ClusterClient, node: ClusterNode, stack: contextlib.ExitStack
    ) -> None:
        self._client = client
        self._node = node
        self._stack = stack
        self._redis: Any = None
        self._connection: Any = None
        self._failure: Exception | None = None
        self._is_read = False

    def write(self, commands: Sequence[tuple[Any, ...]]) -> None:
        try:
            self._client.admit(self._node)
            self._redis = self._client.get_redis_connection(self._node)
            self._connection = self._redis.connection_pool.get_connection()
            self._stack.callback(self._release)
            packed = self._connection.pack_commands(commands)
            self._connection.send_packed_command(packed)
        except redis.RedisError as error:
            self._client.report(self._node, error)
            self._failure = error

    def read(self, commands: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        replies: list[Any] = []
        if self._failure is None:
            try:
                for args, options in commands:
                    replies.append(self._read_one(args, options))
            except redis.RedisError as error:
                self._failure = error
            self._is_read = self._failure is None
            self._client.report(self._node, self._failure)
        return replies + [self._failure] * (len(commands) - len(replies))

    def _read_one(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            return self._redis.parse_response(self._connection, args[0], **options)
        except redis.ResponseError as error:  # of this command; the next reply follows
            return error

    def _release(self) -> None:
        if not self._is_read:
            self._connection.disconnect()  # replies may still come
        self._redis.connection_pool.release(self._connection)


def slot_of(key: str | bytes) -> int:
    """Slot of a key, 0 to 16,383."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


@contextlib.contextmanager
def _as_redis_errors() -> Iterator[None]:
    # What redis-py raises about a whole cluster is no RedisError; callers catch one kind.
    try:
        yield
    except RedisClusterException as error:
        raise ClusterUnreachable(str(error)) from error
