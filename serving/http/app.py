"""The HTTP application: a thin shell over `RecommendationService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import FastAPI

from serving.http import changes as http_feedback
from serving.http import operations as http_operations
from serving.http import recommend as http_recommend
from serving.http.api_keys import ApiKeys
from serving.http.error_table import install_error_handlers
from serving.http.middleware import Gate
from serving.http.shell import Shell, Workers

if TYPE_CHECKING:
    from serving.request.service import RecommendationService

__all__ = ["create_app"]


def create_app(
    service: RecommendationService,
    *,
    keys: ApiKeys | None = None,
    admin: bool = False,
    max_in_flight: int = 32,
    max_waiting: int = 64,
    max_body_bytes: int = 256 * 1024,
    version: str = "0.1.0",
    held: Callable[[], str | None] = lambda: None,
    with_metrics: bool = True,
) -> FastAPI:
    """The ASGI application around ``service``.

    Args:
        service: answers; it is warmed up when the application starts and closed when it ends.
        keys: who may ask. None: reading and feedback are open to everybody, admin verbs shut.
        admin: whether a key with the scope ``admin`` may hide items and move the head.
        max_in_flight: requests that work in threads at once.
        max_waiting: requests that wait for a thread; beyond it, slates come from memory only,
            flagged as degraded with the reason ``overloaded``, and all else is refused with 503.
        max_body_bytes: larger bodies get 413.
        version: shown in the OpenAPI document.
        held: why this process asks for no traffic though the service could answer, such as
            ``draining``; None: nothing.
        with_metrics: answer ``GET /metrics``.

    Raises:
        ValueError: a limit is out of range.
    """
    if max_in_flight < 1 or max_waiting < 0 or max_body_bytes < 1:
        raise ValueError(
            "max_in_flight and max_body_bytes must be >= 1 and max_waiting >= 0, got "
            f"{max_in_flight}, {max_body_bytes} and {max_waiting}"
        )
    workers = Workers(max_in_flight, max_waiting)
    few_workers = Workers(2, 16)
    service.telemetry.watch_waiting(workers.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(service.warm_up)
        yield
        workers.close()
        few_workers.close()
        service.close()

    app = FastAPI(title="recsys", version=version, lifespan=lifespan, redirect_slashes=False)
    shell = Shell(app, keys=keys or ApiKeys(), admin=admin, max_body_bytes=max_body_bytes)
    http_recommend.install(shell, service, workers)
    http_feedback.install(shell, service, workers)
    http_operations.install(shell, service, few_workers, held=held, with_metrics=with_metrics)
    app.add_middleware(Gate, telemetry=service.telemetry, direct=shell.direct)
    app.openapi = shell.document  # type: ignore[method-assign]
    install_error_handlers(app)
    return app
