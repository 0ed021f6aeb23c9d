"""Checks behind `recsys doctor store`: what kind of server, and what about it will hurt later."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import redis

from recsys.config import Config
from recsys.config.store_url import StoreUrl
from recsys.lookup import lookup
from serving.assembly import is_embedded, open_client, store_directory, store_url
from serving.connection.calls import is_cluster, on_every_server
from serving.connection.clients import store_errors
from serving.connection.embedded import EmbeddedStore
from serving.connection.environment import login_of, url_of_environment
from serving.doctor.access import CLUSTER_COMMANDS, ROLES, acl_rules, missing_rights
from serving.doctor.installation import Finding
from serving.errors import ServingError, StageUnavailable

__all__ = ["examine_store"]

_OLDEST = (6, 0)
_NUM_PINGS = 20
_SLOW_S = 0.010
_NEARLY_FULL = 0.8
_CLOCKS_APART_S = 1.0
_LOCAL = ("localhost", "127.0.0.1", "::1")

Info = list[dict[str, Any]]


def examine_store(config: Config, role: str = "reader") -> list[Finding]:
    """Look at the store the configuration or the environment names; changes nothing.

    Args:
        config: the run's configuration.
        role: what this process is for, a name in `serving.doctor.access.ROLES`; lacking a right of
            it fails, what the other roles lack is only told.
    """
    lookup(ROLES, role, "role")
    if is_embedded(config) and not EmbeddedStore.is_running(store_directory(config)):
        detail = "the embedded server is not running"
        return [Finding("WARN", "store", detail, "publish and serve start it; nothing to do")]
    try:
        client = open_client(config, timeout_s=1.0)
        with store_errors("answer"):
            client.ping()
    except (ServingError, ValueError) as error:
        detail = f"{store_url(config)}: {error}"
        return [Finding("FAIL", "store", detail, _first_aid(str(error)))]
    findings: list[Finding] = []
    checks: tuple[Callable[[Config, redis.Redis], Iterator[Finding]], ...] = (
        _server,
        _topology,
        _latency,
        _encryption,
        _memory,
        _persistence,
        _clock,
        partial(_rights, needed=role),
    )
    try:
        for check in checks:
            findings.extend(_guarded(check, config, client))
    finally:
        client.close()
    return findings


def _guarded(
    check: Callable[[Config, redis.Redis], Iterator[Finding]], config: Config, client: redis.Redis
) -> Iterator[Finding]:
    name = getattr(check, "__name__", "rights").strip("_")
    try:
        with store_errors("be examined"):
            yield from check(config, client)
    except StageUnavailable as error:
        if not isinstance(error.__cause__, redis.exceptions.NoPermissionError):
            yield Finding("FAIL", name, str(error), "look at the server's log")
            return
        detail = f"not looked at: {error.__cause__}"
        yield Finding("WARN", name, detail, "run this as a publisher's user")


def _first_aid(message: str) -> str:
    if "Authentication" in message or "WRONGPASS" in message or "NOAUTH" in message:
        return "set RECSYS_STORE_USERNAME and RECSYS_STORE_PASSWORD"
    if "CERTIFICATE_VERIFY" in message:
        return "set store.tls_ca_file to the authority that signed the server's certificate"
    return "start it, or correct store.url"


def _server(config: Config, client: redis.Redis) -> Iterator[Finding]:
    for one in _info(client, "server"):
        kind = "Valkey" if "valkey_version" in one else "Redis"
        version = str(one.get("valkey_version", one.get("redis_version", "?")))
        detail = f"{store_url(config)}: {kind} {version}"
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers < _OLDEST:
            yield Finding("FAIL", "server", detail, "use Redis 6 or later, or Valkey")
            return
    yield Finding("OK", "server", detail)


def _topology(config: Config, client: redis.Redis) -> Iterator[Finding]:
    where = _where(config)
    replication = _info(client, "replication")
    roles = {str(one.get("role")) for one in replication}
    alone = sum(int(one.get("connected_slaves", 0)) == 0 for one in replication)
    if roles != {"master"}:
        detail = f"this server is a {', '.join(sorted(roles))} and refuses what is published"
        yield Finding("FAIL", "topology", detail, "name its master in store.url, or use Sentinel")
    elif where.kind == "cluster":
        told = cast(Any, client).cluster_info(target_nodes=cast(Any, client).PRIMARIES)
        states = {str(one["cluster_state"]) for one in told.values()}
        detail = (
            f"a cluster of {len(replication)} masters, {len(replication) - alone} with replicas"
        )
        if states != {"ok"}:
            yield Finding("FAIL", "topology", f"{detail}; its state is not ok", "CLUSTER NODES")
        elif alone:
            lost = f"{detail}; with a master that has none its users are gone"
            yield Finding("WARN", "topology", lost, "give each master a replica")
        else:
            yield Finding("OK", "topology", detail)
        yield from _coverage(client)
    elif where.kind == "sentinel":
        yield from _sentinels(where, client, alone)
    elif alone and where.kind == "server":
        detail = "one server without a replica"
        yield Finding("WARN", "topology", detail, "have Sentinel or a cluster, if it must not stop")
    else:
        yield Finding("OK", "topology", "one server" if alone else "a master with replicas")


def _coverage(client: redis.Redis) -> Iterator[Finding]:
    name = "cluster-require-full-coverage"
    try:
        told = on_every_server(client, "config_get", name)
    except redis.exceptions.NoPermissionError:
        return
    if any(one.get(name) == "yes" for one in told):
        detail = f"{name} is on: when one master is gone, no user is answered from the store"
        yield Finding("WARN", "coverage", detail, f"CONFIG SET {name} no on every node")


def _sentinels(where: StoreUrl, client: redis.Redis, alone: int) -> Iterator[Finding]:
    answering = 0
    for sentinel in cast(Any, client.connection_pool).sentinel_manager.sentinels:
        try:
            answering += where.master in sentinel.sentinel_masters()
        except redis.RedisError:
            continue
    detail = f"master {where.master!r}; {answering} of {len(where.hosts)} Sentinels answer"
    if alone:
        yield Finding("WARN", "topology", f"{detail}; there is no replica", "start one")
    elif answering < len(where.hosts) or answering < 3:
        remedy = "name three Sentinels or more in store.url, and start those that do not answer"
        yield Finding("WARN", "topology", detail, remedy)
    else:
        yield Finding("OK", "topology", detail)


def _latency(config: Config, client: redis.Redis) -> Iterator[Finding]:
    times = []
    for _ in range(_NUM_PINGS):
        before = time.perf_counter()
        client.ping()
        times.append(time.perf_counter() - before)
    typical, longest = statistics.median(times), max(times)
    detail = f"{1000 * typical:.2f} ms, the longest of {_NUM_PINGS} {1000 * longest:.2f} ms"
    if typical > _SLOW_S:
        remedy = "serve nearer to the store; each request asks it once or twice"
        yield Finding("WARN", "latency", detail, remedy)
    else:
        yield Finding("OK", "latency", detail)


def _encryption(config: Config, client: redis.Redis) -> Iterator[Finding]:
    where = _where(config)
    if where.tls:
        yield Finding("OK", "encryption", "TLS")
    elif where.kind == "socket" or all(host in _LOCAL for host, _ in where.hosts):
        yield Finding("OK", "encryption", "none; it does not leave this machine")
    else:
        remedy = "use rediss://, or keep the network to yourself"
        yield Finding("WARN", "encryption", "none: users and passwords can be read", remedy)


def _memory(config: Config, client: redis.Redis) -> Iterator[Finding]:
    policies = set()
    fullest = 0.0
    limits = []
    for one in _info(client, "memory"):
        policies.add(str(one.get("maxmemory_policy", "noeviction")))
        limits.append(int(one.get("maxmemory", 0)))
        if limits[-1]:
            fullest = max(fullest, int(one["used_memory"]) / limits[-1])
    policy = ", ".join(sorted(policies))
    if policies != {"noeviction"}:
        detail = f"maxmemory-policy is {policy}: a full server drops lists of the served generation"
        yield Finding("WARN", "eviction", detail, "CONFIG SET maxmemory-policy noeviction")
    if fullest >= _NEARLY_FULL:
        detail = f"{fullest:.0%} of maxmemory is used; a publish needs room for one more generation"
        yield Finding("WARN", "memory", detail, "raise maxmemory, or shorten store.ttl_s")
    else:
        limit = f"{fullest:.0%} of maxmemory is used" if all(limits) else "no maxmemory is set"
        yield Finding("OK", "memory", limit)
    evicted = sum(int(one.get("evicted_keys", 0)) for one in _info(client, "stats"))
    if evicted:
        detail = f"{evicted} keys were dropped for want of memory"
        yield Finding("WARN", "evicted", detail, "raise maxmemory and publish again")


def _persistence(config: Config, client: redis.Redis) -> Iterator[Finding]:
    told = _info(client, "persistence")
    if any(one.get("rdb_last_bgsave_status") == "err" for one in told):
        remedy = "look at the server's log and its disk"
        yield Finding("FAIL", "persistence", "the last snapshot failed", remedy)
    elif all(int(one.get("aof_enabled", 0)) for one in told):
        yield Finding("OK", "persistence", "append-only file")
    else:
        detail = "no append-only file: a restart forgets events and what was published since"
        remedy = "CONFIG SET appendonly yes, or publish again after a restart"
        yield Finding("WARN", "persistence", detail, remedy)


def _clock(config: Config, client: redis.Redis) -> Iterator[Finding]:
    before = time.time()
    seconds, microseconds = cast("tuple[int, int]", client.time())
    apart = seconds + microseconds / 1e6 - (before + time.time()) / 2
    detail = f"{abs(apart):.3f} s apart"
    if abs(apart) > _CLOCKS_APART_S:
        remedy = "synchronise both: keys go by the server's clock, events count by this one's"
        yield Finding("WARN", "clock", f"the server's is {detail}", remedy)
    else:
        yield Finding("OK", "clock", detail)


def _rights(config: Config, client: redis.Redis, needed: str) -> Iterator[Finding]:
    namespace, clustered = config.store.namespace, is_cluster(client)
    user = login_of(_where(config)).get("username", "default")
    for name, role in ROLES.items():
        commands = role.commands + (CLUSTER_COMMANDS if clustered else ())
        missing = missing_rights(client, namespace, commands)
        if not missing:
            yield Finding("OK", name, f"may {role.does}")
            continue
        detail = f"may not {role.does}: lacks {' '.join(missing)}"
        if name == needed:
            rules = acl_rules(name, namespace, cluster=clustered)
            yield Finding("FAIL", name, detail, f"ACL SETUSER {user} {rules}")
        else:
            yield Finding("OK", name, detail)


def _info(client: redis.Redis, section: str) -> Info:
    return on_every_server(client, "info", section)


def _where(config: Config) -> StoreUrl:
    url = url_of_environment() or config.store.url
    if url == "embedded":
        return StoreUrl(kind="socket")
    return StoreUrl.parse(url)
