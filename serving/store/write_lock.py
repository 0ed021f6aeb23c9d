"""One writer at a time for a generation, by a lock that goes by itself when its holder dies."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Self, cast

import redis

from serving.connection.clients import store_errors
from serving.errors import PublishRefused

__all__ = ["LEASE_S", "WriteLock"]

log = logging.getLogger(__name__)

LEASE_S = 10.0
_STAYS, _GONE = -1, -2  # answers of PTTL

_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class WriteLock:
    """Held inside a ``with`` block and renewed by a thread, however slow the block is.

    A holder that was killed leaves a lock which goes within ``lease_s``; entering waits for that. A
    holder that is alive renews its lock, which is seen, and entering is refused.

    Args:
        client: the store.
        key: of the lock.
        what: what is written, for messages.
        lease_s: seconds, > 0, that the lock outlives its holder.
    """

    def __init__(
        self, client: redis.Redis, key: str, what: str, *, lease_s: float = LEASE_S
    ) -> None:
        if lease_s <= 0:
            raise ValueError(f"lease_s must be > 0, got {lease_s}")
        self._client = client
        self._key = key
        self._what = what
        self._lease_s = lease_s
        self._token = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
        self._valid_until = -float("inf")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="write-lock", daemon=True)

    def __enter__(self) -> Self:
        """Wait for the lock of a dead holder, then hold it.

        Raises:
            PublishRefused: another writer is at work.
            StageUnavailable: the store is down, refuses or is too slow.
        """
        with store_errors("take the lock of a writer"):
            self._acquire()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        try:
            self._client.eval(_RELEASE, 1, self._key, self._token)
        except redis.RedisError:  # it goes by itself
            log.debug("the lock of %s could not be given back", self._what)

    def check(self) -> None:
        """Return while the lock is certainly held; asks this process's clock, not the store.

        Raises:
            PublishRefused: it was not renewed in time, so another writer may be at work.
        """
        if time.monotonic() >= self._valid_until:
            raise PublishRefused(
                f"{self._what}: the lock of this writer was not renewed for {self._lease_s:g} s "
                "(was the process stopped, or the store away?), so another may have begun; run it "
                "again, it goes on where it stopped"
            )

    def _acquire(self) -> None:
        holder, left_ms = b"", 0
        while not self._try():
            found = cast("bytes | None", self._client.get(self._key))
            now_ms = cast(int, self._client.pttl(self._key))
            if found is None or now_ms == _GONE:
                continue
            if now_ms == _STAYS:
                raise PublishRefused(
                    f"the lock {self._key!r} of {self._what} has no expiry, which no writer leaves "
                    "behind; see what set it, then remove the key"
                )
            if holder and (found != holder or now_ms > left_ms):
                raise PublishRefused(
                    f"{self._what} is being written by another process ({_named(found)}); "
                    "wait until it is done, then run this again"
                )
            if not holder:
                log.info("waiting for the lock of %s (%s)", self._what, _named(found))
            holder, left_ms = found, now_ms
            self._done.wait(min(now_ms / 1000, self._lease_s / 8))

    def _try(self) -> bool:
        asked = time.monotonic()
        taken = self._client.set(self._key, self._token, nx=True, px=round(1000 * self._lease_s))
        # A retry of a SET whose reply was lost finds our own token.
        if taken or self._client.get(self._key) == self._token.encode():
            self._valid_until = asked + self._lease_s
            return True
        return False

    def _keep(self) -> None:
        while not self._done.wait(self._lease_s / 4):
            asked = time.monotonic()
            try:
                renewed = self._client.eval(
                    _RENEW, 1, self._key, self._token, str(round(1000 * self._lease_s))
                )
            except redis.RedisError:  # the next beat tries again; `check` knows the time
                continue
            if not renewed:
                self._valid_until = -float("inf")
                return
            self._valid_until = asked + self._lease_s


def _named(token: bytes) -> str:
    host, pid, *_ = token.decode(errors="replace").rsplit(":", 2)
    return f"process {pid} on {host}"
