"""One message to one node of a cluster and its replies; and how nodes fail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import redis
from redis.cluster import ClusterNode
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, MaxConnectionsError, RedisClusterException

__all__ = [
    "NODE_FAILED",
    "NOT_THE_NODE",
    "Cluster",
    "ClusterUnreachable",
    "Exchange",
    "NodeLeftAlone",
    "as_redis_errors",
    "slot_of",
]

NODE_FAILED = (redis.ConnectionError, redis.TimeoutError)
"""Errors of a node or of the way to it, but for those of ``NOT_THE_NODE``."""
NOT_THE_NODE = (MaxConnectionsError, AuthenticationError)


class ClusterUnreachable(redis.ConnectionError):
    """No node told the layout of the cluster, or no node owns a key's slot."""


class NodeLeftAlone(redis.ConnectionError):
    """The node failed a moment ago and was not asked."""

    shard: str


class Cluster(Protocol):
    """What messages ask of the client that sends them."""

    retry: Any
    """Its policy of trying again, of redis-py."""

    def admit(self, node: ClusterNode) -> None:
        """Return when ``node`` may be asked."""

    def report(self, node: ClusterNode, error: Exception | None) -> None:
        """Say whether ``node`` answered."""

    def get_redis_connection(self, node: ClusterNode) -> Any:
        """The client of one node."""

    def node_of(self, slot: int) -> ClusterNode:
        """The node that owns ``slot``."""

    def determine_slot(self, *args: Any) -> Any:
        """The slot of a command's keys."""

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Reply to one command."""

    def refresh(self) -> None:
        """Ask for the layout."""


class Exchange:
    """One message to one node and its replies; a failure is kept until the replies are read.

    Args:
        client: whose connections to use.
        node: of its cluster.
        stack: gives the connection back when it is closed.

    Attributes:
        failure: what went wrong, if something did.
    """

    def __init__(self, client: Cluster, node: ClusterNode, stack: contextlib.ExitStack) -> None:
        self._client = client
        self._node = node
        self._stack = stack
        self._redis: Any = None
        self._connection: Any = None
        self.failure: Exception | None = None
        self._is_read = False

    def write(self, commands: Sequence[Any], *, are_packed: bool = True) -> None:
        """Send commands: bytes of the protocol, or names with arguments."""
        try:
            self._client.admit(self._node)
            self._redis = self._client.get_redis_connection(self._node)
            self._connection = self._redis.connection_pool.get_connection()
            self._stack.callback(self._release)
            packed = commands if are_packed else self._connection.pack_commands(commands)
            self._connection.send_packed_command(packed)
        except redis.RedisError as error:
            self._client.report(self._node, error)
            self.failure = error

    def read(self, commands: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        """Replies as redis-py gives them; errors stand among them."""
        replies: list[Any] = []
        if self.failure is None:
            try:
                for args, options in commands:
                    replies.append(self._read_one(args, options))
            except redis.RedisError as error:
                self.failure = error
            self._is_read = self.failure is None
            self._client.report(self._node, self.failure)
        return replies + [self.failure] * (len(commands) - len(replies))

    def read_plainly(self, count: int) -> list[Any] | None:
        """So many replies; None when one of them is an error."""
        if self.failure is not None:
            return None
        try:
            replies = [self._connection.read_response() for _ in range(count)]
        except redis.RedisError as error:
            self.failure = error
            self._client.report(self._node, error)
            return None
        self._is_read = True
        self._client.report(self._node, None)
        return replies

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
def as_redis_errors() -> Iterator[None]:
    """Make a `redis.RedisError` of what redis-py raises about a whole cluster, which is none."""
    try:
        yield
    except RedisClusterException as error:
        raise ClusterUnreachable(str(error)) from error
