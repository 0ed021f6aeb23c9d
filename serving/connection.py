"""Clients of the store: which server, which timeouts, and no password in any log."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from serving.embedded import EmbeddedStore
from serving.errors import StageUnavailable

__all__ = ["EMBEDDED", "PASSWORD_VARIABLE", "URL_VARIABLE", "connect", "redact", "store_errors"]

EMBEDDED = "embedded"
URL_VARIABLE = "RECSYS_STORE_URL"
PASSWORD_VARIABLE = "RECSYS_STORE_PASSWORD"
_SCHEMES = ("redis", "rediss", "unix")


def connect(
    url: str | None = None,
    *,
    directory: Path | str | None = None,
    timeout_s: float = 2.0,
    connect_timeout_s: float = 0.5,
    retries: int = 1,
    max_connections: int = 32,
) -> redis.Redis:
    """Return a client of the store; nothing is sent yet, except to start an embedded server.

    Every wait is bounded: a command takes at most about
    ``(retries + 1) * (connect_timeout_s + timeout_s)`` before it raises. Use a small ``timeout_s``
    on the request path (0.1 to 0.25) and the default for jobs.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, or ``"embedded"`` (also None). The URL in
            ``RECSYS_STORE_URL`` goes first where that is set. ``url`` must not hold a password:
            that comes from ``RECSYS_STORE_PASSWORD``, or inside ``RECSYS_STORE_URL``.
        directory: where the embedded server keeps its data; needed for the embedded server only.
        timeout_s: limit of one read or write, > 0.
        connect_timeout_s: limit of one connection attempt, > 0.
        retries: further attempts after a broken connection, >= 0.
        max_connections: connections shared by all threads; a thread waits at most ``timeout_s``
            for a free one.

    Raises:
        ValueError: unknown scheme, a password in ``url``, no directory for the embedded server,
            or a number out of range.
        StageUnavailable: the embedded server could not be started.
    """
    if timeout_s <= 0 or connect_timeout_s <= 0:
        raise ValueError(f"timeouts must be > 0 s, got {timeout_s} and {connect_timeout_s}")
    if retries < 0 or max_connections < 1:
        raise ValueError(
            f"retries must be >= 0 and max_connections >= 1, got {retries} and {max_connections}"
        )
    url = url or EMBEDDED
    if _has_password(url):
        raise ValueError(
            f"url must not hold a password, got {redact(url)}; set {PASSWORD_VARIABLE}, "
            f"or put the whole URL in {URL_VARIABLE}"
        )
    url = os.environ.get(URL_VARIABLE) or url
    options: dict[str, str] = {}
    if url == EMBEDDED:
        if directory is None:
            raise ValueError("directory must say where the embedded store keeps its data, got None")
        url = EmbeddedStore.ensure(Path(directory))
    else:
        scheme = urlsplit(url).scheme
        if scheme not in _SCHEMES:
            raise ValueError(
                f"url must start with redis://, rediss:// or unix:// or be {EMBEDDED!r}, "
                f"got {redact(url)}"
            )
        password = os.environ.get(PASSWORD_VARIABLE)
        if password and not _has_password(url):
            options["password"] = password
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=connect_timeout_s,
        retry=Retry(ExponentialBackoff(cap=0.05, base=0.01), retries),
        **options,
    )
    return redis.Redis(connection_pool=pool)


def redact(url: str) -> str:
    """``url`` with its password replaced by ``***`` and its query dropped, fit for a log.

    >>> redact("rediss://shop:s3cret@cache:6380/1?ssl_keyfile=k")
    'rediss://shop:***@cache:6380/1'
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "<unreadable url>"
    if not parts.scheme:
        return url if url == EMBEDDED else "<unreadable url>"
    host = parts.hostname or ""
    user = quote(parts.username or "")
    login = f"{user}:***@" if parts.password is not None else f"{user}@" if user else ""
    return f"{parts.scheme}://{login}{host}{port}{parts.path}"


def _has_password(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.password) or "password" in parse_qs(parts.query)


@contextlib.contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turn the client's errors into `StageUnavailable`.

    Their text names host and command, never a password.
    """
    try:
        yield
    except redis.RedisError as error:
        raise StageUnavailable(
            f"the store could not {what}: {type(error).__name__}: {error}", stage="store"
        ) from error
