"""Commands of one pipeline spread over the nodes of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, cast

import redis
from redis.cluster import ClusterNode
from redis.commands.core import CoreCommands
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from serving.connection.cluster_exchange import (
    NODE_FAILED,
    NOT_THE_NODE,
    Cluster,
    ClusterUnreachable,
    Exchange,
    NodeLeftAlone,
    as_redis_errors,
    slot_of,
)

__all__ = ["ShardedPipeline"]

_MOVED = (MovedError, AskError, TryAgainError, ClusterDownError)
# Commands of this package, so that the server need not be asked where their keys are.
_KEY_IS_FIRST = frozenset(
    [
        *("GET", "SET", "MGET", "DEL", "EXPIRE", "EXPIREAT", "TTL", "SETBIT", "STRLEN", "XADD"),
        *("HSET", "HGET", "HMGET", "HGETALL", "HDEL", "ZADD", "ZRANGE", "ZREVRANGE", "ZREM"),
    ]
)


class ShardedPipeline(CoreCommands):
    """Commands collected, then sent in one message to each node that owns some of their keys.

    A context manager like `redis.client.Pipeline`; never a transaction.

    Args:
        client: whose nodes and retries to use.
    """

    _event_dispatcher: Any = None

    def __init__(self, client: Cluster) -> None:
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
            failed = [at for at in pending if isinstance(replies[at], (*NODE_FAILED, *_MOVED))]
            if not failed or attempt == attempts - 1:
                break
            if all(isinstance(replies[at], (NodeLeftAlone, *NOT_THE_NODE)) for at in failed):
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
                (node, positions, Exchange(self._client, node, stack))
                for node, positions in nodes.values()
            ]
            for _, positions, exchange in reading:
                exchange.write([commands[at][0] for at in positions], are_packed=False)
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
        with as_redis_errors():
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
