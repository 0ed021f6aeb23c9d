"""The server that a first configuration publishes to: Feast's own, where it has a Redis."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from serving.connection import EMBEDDED

__all__ = ["propose_store", "url_of"]

_UNTOLD = ("password", "username", "db", "ssl", "unix_socket_path")


def propose_store(store: Any) -> tuple[str, str]:
    """A URL for ``store.url``, and why.

    Args:
        store: a ``feast.FeatureStore``.

    Returns:
        The URL of Feast's online store without a password where that is a Redis, else "embedded".
    """
    online = store.config.online_store
    kind = str(getattr(online, "type", online))
    if not hasattr(online, "connection_string") or "redis" not in kind.lower():
        return EMBEDDED, (
            f"a server of our own beside the artifacts: Feast's online store is {kind!r}. Name a "
            "Redis to serve from several machines"
        )
    redis_type = str(getattr(online.redis_type, "value", online.redis_type))
    master = str(getattr(online, "sentinel_master", "mymaster"))
    url, secret, rest = url_of(online.connection_string, redis_type, master)
    parts = ["Feast's online store; generations have keys of their own, which begin with 'recsys:'"]
    if secret:
        parts.append("its password is read from RECSYS_STORE_PASSWORD")
    if rest:
        parts.append(f"not taken over: {', '.join(rest)}")
    return url, ". ".join(part[0].upper() + part[1:] if n else part for n, part in enumerate(parts))


def url_of(
    connection_string: str, redis_type: str = "redis", master: str = "mymaster"
) -> tuple[str, bool, list[str]]:
    """Feast's connection string as a URL.

    >>> url_of("cache:6380,db=1,ssl=true,password=s3cret,socket_timeout=1")
    ('rediss://cache:6380/1', True, ['socket_timeout'])
    >>> url_of("localhost:0,unix_socket_path=/run/redis.sock")
    ('unix:///run/redis.sock', False, [])
    >>> url_of("a:7000,b:7001", "redis_cluster")
    ('redis+cluster://a:7000,b:7001', False, [])

    Args:
        connection_string: hosts and parameters.
        redis_type: "redis", "redis_cluster" or "redis_sentinel".
        master: name that Sentinel knows the master by.

    Returns:
        The URL without a password, whether there is one, and the parameters it does not express.
    """
    parts = [part.strip() for part in connection_string.split(",")]
    hosts = [part for part in parts if "=" not in part] or ["localhost:6379"]
    given = dict(part.split("=", 1) for part in parts if "=" in part)
    user = f"{quote(given['username'], safe='')}@" if given.get("username") else ""
    database = given.get("db", "0")
    rest = [name for name in given if name not in _UNTOLD]
    secret = bool(given.get("password"))
    if path := given.get("unix_socket_path"):
        suffix = "" if database == "0" else f"?db={database}"
        return f"unix://{user}{path}{suffix}", secret, rest
    scheme = "rediss" if given.get("ssl", "").lower() == "true" else "redis"
    suffix = "" if database == "0" else f"/{database}"
    if redis_type == "redis_cluster":
        return f"{scheme}+cluster://{user}{','.join(hosts)}", secret, rest
    if redis_type == "redis_sentinel":
        named = quote(master, safe="")
        return f"{scheme}+sentinel://{user}{','.join(hosts)}/{named}{suffix}", secret, rest
    return f"{scheme}://{user}{hosts[0]}{suffix}", secret, rest
