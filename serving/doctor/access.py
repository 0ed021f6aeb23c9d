"""What a user of the store must be allowed to do, for each kind of process; and what one may.

The rights are those of ACL users in Redis 6 and later and in Valkey. `missing_rights` finds out by
trying: each command is sent in a form that changes nothing, because permission is looked at first.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis

from serving.connection.calls import is_cluster

__all__ = ["CLUSTER_COMMANDS", "ROLES", "Role", "acl_rules", "missing_rights"]


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of process.

    Attributes:
        does: what it does with the store, in words that follow "may".
        commands: that it sends, as ACL rules name them.
    """

    does: str
    commands: tuple[str, ...]


_READS = ("ping", "get", "mget", "zrange", "zrevrange", "hgetall", "smembers")

ROLES: Mapping[str, Role] = {
    "reader": Role("recommend, rank and explain", _READS),
    "service": Role(
        "take events in, hide items and stop experiments",
        (
            *_READS,
            *("eval", "zadd", "zremrangebyrank", "expire", "xadd", "setbit", "expireat", "del"),
            *("hset", "sadd", "srem", "zrem", "set"),
        ),
    ),
    "publisher": Role(
        "publish, roll back and look into the store",
        (
            *_READS,
            *("set", "del", "unlink", "append", "exists", "strlen", "setbit", "expire", "expireat"),
            *("pexpire", "ttl", "pttl", "zadd", "zrem", "hset", "eval", "time"),
            *("scan", "memory|usage", "info", "sadd", "srem"),
        ),
    ),
    "follower": Role(
        "keep the feature state up to date",
        (
            *("ping", "get", "set", "eval", "hset", "hmget", "hgetall", "expire"),
            *("xread", "xinfo|stream", "multi", "exec"),
        ),
    ),
}
"""Kinds of processes by name."""

CLUSTER_COMMANDS = ("cluster|slots", "command")
"""What every user needs besides, where the store is a cluster."""


def acl_rules(role: str, namespace: str, *, cluster: bool = False) -> str:
    """Rules that follow ``ACL SETUSER name on >password``.

    >>> acl_rules("reader", "recsys")
    '~recsys:* +ping +get +mget +zrange +zrevrange +hgetall +smembers'

    Args:
        role: a name in `ROLES`.
        namespace: first part of every key.
        cluster: whether the store is one.
    """
    commands = ROLES[role].commands + (CLUSTER_COMMANDS if cluster else ())
    return " ".join([f"~{namespace}:*", *(f"+{command}" for command in commands)])


def missing_rights(client: redis.Redis, namespace: str, commands: Sequence[str]) -> list[str]:
    """Rules that the client's user lacks; none when it may send all ``commands``.

    Args:
        client: of the store.
        namespace: first part of every key.
        commands: as in `Role.commands`.

    Raises:
        redis.RedisError: the store does not answer, or does not know the user.
    """
    key = f"{namespace}:doctor:{uuid.uuid4().hex}"
    missing: list[str] = []
    for command in sorted(commands, key=_LAST.__contains__):
        if command in _LAST and missing:
            break
        try:
            _try(client, command, key)
        except redis.ResponseError as error:  # of other errors than these nothing can come
            said = str(error)
            if isinstance(error, redis.exceptions.NoPermissionError) and command != "multi":
                rule = f"~{namespace}:*" if " key" in said else f"+{command}"
            elif any(words in said for words in _REFUSALS.get(command, ("NOPERM",))):
                rule = f"+{command}"
            else:
                continue
            if rule not in missing:
                missing.append(rule)
    return missing


def _try(client: redis.Redis, command: str, key: str) -> None:
    if command == "multi":
        with client.pipeline(transaction=True) as pipeline:
            pipeline.get(key)
            pipeline.execute()
        return
    name, *arguments = _FORMS.get(command, (command.replace("|", " "), _KEY))
    options: dict[str, Any] = {}
    if is_cluster(client) and _KEY not in arguments:
        options["target_nodes"] = cast(Any, client).get_random_node()
    client.execute_command(  # type: ignore[no-untyped-call]
        name.upper(), *(key if one is _KEY else one for one in arguments), **options
    )
    if command in _LAST:
        client.delete(key)


_KEY = object()
# Commands that write do so in a way that fails, or under a condition that does not hold.
_FORMS: Mapping[str, tuple[Any, ...]] = {
    "ping": ("ping",),
    "time": ("time",),
    "exec": ("exec",),
    "info": ("info", "server"),
    "command": ("command count",),
    "cluster|slots": ("cluster slots",),
    "scan": ("scan", 0, "COUNT", 1, "MATCH", "none"),
    "zrange": ("zrange", _KEY, 0, 0),
    "zrevrange": ("zrevrange", _KEY, 0, 0),
    "hmget": ("hmget", _KEY, "f"),
    "set": ("set", _KEY, "", "XX"),
    "append": ("append", _KEY, ""),
    "expire": ("expire", _KEY, 1),
    "expireat": ("expireat", _KEY, 1),
    "pexpire": ("pexpire", _KEY, 1),
    "setbit": ("setbit", _KEY, -1, 1),
    "hset": ("hset", _KEY, "f", "v", "odd"),
    "sadd": ("sadd", _KEY, "m"),
    "srem": ("srem", _KEY, "m"),
    "zadd": ("zadd", _KEY, "XX", 1, "m"),
    "zrem": ("zrem", _KEY, "m"),
    "zremrangebyrank": ("zremrangebyrank", _KEY, 0, 0),
    "xadd": ("xadd", _KEY, "NOMKSTREAM", "*", "f", "v"),
    "xread": ("xread", "STREAMS", _KEY, "$"),
    "eval": ("eval", "return 0", 1, _KEY),
}
# How a refused command of a transaction is told.
_REFUSALS = {"multi": ("'multi'", "EXEC without MULTI")}
# They leave a key, which is removed: tried last, and only by a user who may do that.
_LAST = ("append", "sadd")
