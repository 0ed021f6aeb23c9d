"""Connections to one server, or to the master that Sentinel names; so many at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis
from redis.connection import BlockingConnectionPool
from redis.exceptions import MaxConnectionsError
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from serving.breaker import CircuitBreaker

__all__ = ["Pool", "SentinelPool", "Sentinels"]


class Pool(BlockingConnectionPool):
    """A blocking pool that says so when it is exhausted, which is no failure of the server."""

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """A connection, free within the pool's timeout."""
        try:
            return super().get_connection(*args, **kwargs)  # type: ignore[no-untyped-call]
        except redis.ConnectionError as error:
            if str(error) != "No connection available.":
                raise
            raise MaxConnectionsError(
                f"all {self.max_connections} connections were in use for {self.timeout:g} s; "
                "raise store.max_connections, or send less"
            ) from None


class SentinelPool(SentinelConnectionPool, Pool):
    """A blocking pool of connections to the master that Sentinel names."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections; with those in use also the ones to the Sentinels."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                sentinel.close()


class Sentinels(Sentinel):
    """The Sentinels of a master; the one that knows of the newest failover is believed.

    A Sentinel hears of a failover up to two seconds late and names the old master until then. A
    Sentinel that does not answer is left alone for a moment.

    Args:
        hosts: of the Sentinels.
        retry_after_s: how long one that failed is left alone, > 0.
        clock: seconds, only differences count.
        options: how to connect to them.
    """

    def __init__(
        self,
        hosts: list[tuple[str, int]],
        *,
        retry_after_s: float,
        clock: Callable[[], float] = time.monotonic,
        options: dict[str, Any],
    ) -> None:
        super().__init__(hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        self._asked = [
            (f"{host}:{port}", CircuitBreaker(retry_after_s, clock)) for host, port in hosts
        ]

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Address of the master.

        Raises:
            MasterNotFoundError: no Sentinel that answers knows of one that works.
        """
        newest = -1
        address: tuple[str, int] | None = None
        failures = []
        for sentinel, (name, breaker) in zip(self.sentinels, self._asked, strict=True):
            if not breaker.allow():
                failures.append(f"{name} failed a moment ago")
                continue
            try:
                state = sentinel.sentinel_masters().get(service_name)  # type: ignore[no-untyped-call]
            except redis.RedisError as error:
                breaker.failed()
                failures.append(f"{name}: {type(error).__name__}: {error}")
                continue
            breaker.succeeded()
            if state is None:
                failures.append(f"{name} does not know {service_name!r}")
            elif not self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]
                failures.append(f"{name} says that it is down")
            elif int(state["config-epoch"]) > newest:
                newest = int(state["config-epoch"])
                address = state["ip"], int(state["port"])
        if address is None:
            raise MasterNotFoundError(f"no master {service_name!r}: {'; '.join(failures)}")
        return address
