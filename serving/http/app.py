"""The HTTP application around a `RecommendationService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from starlette.routing import Router
from starlette.types import ASGIApp, Lifespan

from recsys.config.serving import HttpOptions
from serving.http import changes, operations, recommend
from serving.http.api_keys import ApiKeys
from serving.http.reporting import Reporting
from serving.http.routes import Routes
from serving.http.workers import Workers

if TYPE_CHECKING:
    from serving.request.service import RecommendationService

__all__ = ["Application", "create_app"]


class Application(Router):
    """An ASGI application that begins and ends with its server.

    Args:
        answers: requests.
        lifespan: what is done before the first and after the last of them.
        openapi: gives the OpenAPI document.
    """

    def __init__(
        self,
        answers: ASGIApp,
        lifespan: Lifespan[Application],
        openapi: Callable[[], dict[str, Any]],
    ) -> None:
        super().__init__(default=answers, lifespan=lifespan, redirect_slashes=False)
        self.openapi = openapi


def create_app(
    service: RecommendationService,
    *,
    keys: ApiKeys | None = None,
    admin: bool = False,
    max_in_flight: int = HttpOptions.default("max_in_flight"),
    max_waiting: int = HttpOptions.default("max_waiting"),
    max_body_bytes: int = 256 * 1024,
    version: str = "0.1.0",
    held: Callable[[], str | None] = lambda: None,
    with_metrics: bool = True,
) -> Application:
    """The ASGI application around ``service``.

    Args:
        service: answers; it is warmed up when the application starts. Whoever made it closes it,
            when the application has ended.
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
    async def lifespan(_: Application) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(service.warm_up)
        yield
        workers.close()
        few_workers.close()

    routes = Routes(
        version=version, keys=keys or ApiKeys(), admin=admin, max_body_bytes=max_body_bytes
    )
    recommend.install(routes, service, workers)
    changes.install(routes, service, workers)
    operations.install(routes, service, few_workers, held=held, with_metrics=with_metrics)
    return Application(Reporting(routes, service.telemetry), lifespan, routes.document)
