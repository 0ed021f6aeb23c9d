"""Clients of the store: which servers, which limits, and no password in any log."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ClusterError
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from recsys.config.store import ConnectionOptions
from recsys.config.store_url import StoreUrl, redact
from recsys.errors import ConfigError
from serving.connection.embedded import EmbeddedStore
from serving.connection.environment import (
    PASSWORD_VARIABLE,
    URL_VARIABLE,
    login_of,
    parsed_url,
    sentinel_password,
    url_of_environment,
)
from serving.connection.pools import Pool, SentinelPool, Sentinels
from serving.errors import StageUnavailable

__all__ = [
    "EMBEDDED",
    "TlsFiles",
    "connect",
    "is_other_type",
    "redact",
    "store_errors",
]

EMBEDDED = "embedded"
_OTHER_TYPE = re.compile(r"(^|: )WRONGTYPE ")  # first, or after the command of a pipeline


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """How connections to ``rediss`` URLs are checked.

    Attributes:
        ca_file: certificates to trust, PEM. None: those of the system.
        cert_file: the client's own certificate, PEM. None: none.
        key_file: its key, PEM.
        check_hostname: whether the server's certificate must name the host.

    Raises:
        ConfigError: a file is missing, or a certificate comes without its key.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    check_hostname: bool = True

    def __post_init__(self) -> None:
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ConfigError(f"tls_{name} must be a file, got {path}, which is none")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("tls_cert_file and tls_key_file must be given together")

    def options(self) -> dict[str, Any]:
        """Arguments of redis-py's connections."""
        files = {
            "ssl_ca_certs": self.ca_file,
            "ssl_certfile": self.cert_file,
            "ssl_keyfile": self.key_file,
        }
        given = {name: str(path) for name, path in files.items() if path is not None}
        return {**given, "ssl_cert_reqs": "required", "ssl_check_hostname": self.check_hostname}


def connect(
    url: str | None = None,
    *,
    directory: Path | str | None = None,
    timeout_s: float = 2.0,
    connect_timeout_s: float = ConnectionOptions.default("connect_timeout_s"),
    retries: int = ConnectionOptions.default("retries"),
    max_connections: int = ConnectionOptions.default("max_connections"),
    retry_after_s: float = 0.5,
    tls: TlsFiles | None = None,
) -> redis.Redis:
    """Return a client of the store; nothing is sent yet, except to start an embedded server.

    Every wait is bounded: a command takes at most about
    ``(retries + 1) * (connect_timeout_s + timeout_s)`` before it raises, besides waiting for a
    free connection. Behind Sentinel, and on a cluster when a node fails, one more such time for
    each Sentinel or node that has to be asked and does not answer. Use a small ``timeout_s`` on
    the request path (0.1 to 0.25) and the default for jobs.

    A command whose reply was lost is sent again, so it can be done twice.

    Args:
        url: a form of `recsys.config.store_url`, or ``"embedded"`` (also None). The URL in
            ``RECSYS_STORE_URL`` goes first where that is set. ``url`` must not hold a password:
            that comes from ``RECSYS_STORE_PASSWORD``, or inside ``RECSYS_STORE_URL``. A user
            comes from the URL or ``RECSYS_STORE_USERNAME``, the password of the Sentinels from
            ``RECSYS_STORE_SENTINEL_PASSWORD``.
        directory: where the embedded server keeps its data; needed for the embedded server only.
        timeout_s: limit of one read or write, > 0.
        connect_timeout_s: limit of one connection attempt, > 0.
        retries: further attempts after a broken connection, >= 0, after a short random pause.
        max_connections: connections shared by all threads (on a cluster: to each node), so calls
            at once; a thread waits at most ``timeout_s`` for a free one.
        retry_after_s: how long a node of a cluster, or a Sentinel, is left alone after it failed,
            > 0.
        tls: files for a ``rediss`` URL. None: the system's certificates.

    Raises:
        ConfigError: unknown scheme, a password in ``url``, a variable that cannot be meant, or TLS
            files for a connection without TLS.
        ValueError: no directory for the embedded server, or a number out of range.
        StageUnavailable: the embedded server could not be started.
    """
    _check_numbers(timeout_s, connect_timeout_s, retries, max_connections, retry_after_s)
    where = _where(url or EMBEDDED)
    if where is None:
        if directory is None:
            raise ValueError("directory must say where the embedded store keeps its data, got None")
        where = StoreUrl.parse(EmbeddedStore.ensure(Path(directory)))
    if tls is not None and not where.tls:
        named = URL_VARIABLE if url_of_environment() else "url"
        raise ConfigError(
            f"tls files need a URL that begins with rediss, got {where.shown} in {named}; correct "
            "it, or leave the files out"
        )
    limits: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "driver_info": None,  # two commands less, which an ACL user may not send
    }
    options: dict[str, Any] = {
        **limits,
        **login_of(where),
        **((tls or TlsFiles()).options() if where.tls else {}),
        "max_connections": max_connections,
        "timeout": timeout_s,
    }
    retry = Retry(ExponentialWithJitterBackoff(cap=0.05, base=0.01), retries)
    if where.kind == "cluster":
        return _cluster(where, options, retry, retry_after_s)
    options |= {"db": where.database, "retry": retry}
    if where.kind == "sentinel":
        return _behind_sentinel(where, options, limits, retry_after_s)
    if where.kind == "socket":
        options |= {"connection_class": UnixDomainSocketConnection, "path": where.path}
    else:
        [(host, port)] = where.hosts
        kind = SSLConnection if where.tls else Connection
        options |= {"connection_class": kind, "host": host, "port": port}
    pool: Any = Pool
    return redis.Redis.from_pool(pool(**options))


_UNREACHED = "; start a server there, or correct store.url or RECSYS_STORE_URL"


@contextlib.contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turn the client's errors into `StageUnavailable`.

    Their text names host and command, never a password.
    """
    try:
        yield
    except redis.RedisError as error:
        answered = isinstance(error, redis.ResponseError)
        unreached = type(error) is redis.ConnectionError and isinstance(error.__context__, OSError)
        raise StageUnavailable(
            f"the store could not {what}: {type(error).__name__}: {error}"
            + (_UNREACHED if unreached else ""),
            stage="store",
            shard=getattr(error, "shard", None),
            refused=answered and not isinstance(error, ClusterError),
        ) from error


def is_other_type(error: object) -> bool:
    """Whether a reply says that the key holds another type than the command is for."""
    return isinstance(error, redis.ResponseError) and bool(_OTHER_TYPE.search(str(error)))


def _where(url: str) -> StoreUrl | None:
    """The store's address; None for the embedded one."""
    configured = None if url == EMBEDDED else parsed_url("url", url)
    if configured is not None and configured.password is not None:
        raise ConfigError(
            f"url must not hold a password, got {configured.shown}; set {PASSWORD_VARIABLE}, "
            f"or put the whole URL in {URL_VARIABLE}"
        )
    given = url_of_environment()
    if given is None:
        return configured
    return None if given == EMBEDDED else parsed_url(URL_VARIABLE, given)


def _cluster(
    where: StoreUrl, options: dict[str, Any], retry: Retry, retry_after_s: float
) -> redis.Redis:
    from serving.connection.cluster import ClusterClient

    host, port = where.hosts[0]
    client = ClusterClient(
        where.hosts,
        retry_after_s=retry_after_s,
        url=f"{'rediss' if where.tls else 'redis'}://{f'[{host}]' if ':' in host else host}:{port}",
        connection_pool_class=Pool,
        retry=retry,
        **options,
    )
    return cast("redis.Redis", client)


def _behind_sentinel(
    where: StoreUrl, options: dict[str, Any], limits: dict[str, Any], retry_after_s: float
) -> redis.Redis:
    secured = {name: value for name, value in options.items() if name.startswith("ssl_")}
    asking: dict[str, Any] = {**limits, **secured, "retry": Retry(NoBackoff(), 0)}
    if where.tls:
        asking["ssl"] = True
    if password := sentinel_password():
        asking["password"] = password
    kind = SentinelManagedSSLConnection if where.tls else SentinelManagedConnection
    pool: Any = SentinelPool
    watching = Sentinels(list(where.hosts), retry_after_s=retry_after_s, options=asking)
    return redis.Redis.from_pool(pool(where.master, watching, connection_class=kind, **options))


def _check_numbers(
    timeout_s: float,
    connect_timeout_s: float,
    retries: int,
    max_connections: int,
    retry_after_s: float,
) -> None:
    if timeout_s <= 0 or connect_timeout_s <= 0:
        raise ValueError(f"timeouts must be > 0 s, got {timeout_s} and {connect_timeout_s}")
    if retries < 0 or max_connections < 1:
        raise ValueError(
            f"retries must be >= 0 and max_connections >= 1, got {retries} and {max_connections}"
        )
    if retry_after_s <= 0:
        raise ValueError(f"retry_after_s must be > 0, got {retry_after_s}")
