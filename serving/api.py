"""The HTTP application: a thin shell over `RecommendationService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

import anyio
import anyio.to_thread
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from serving.http_errors import install_error_handlers
from serving.http_gate import Gate
from serving.messages import MAX_K, Recommendations, RecommendRequest, SimilarRequest
from serving.schemas import (
    ErrorAnswer,
    GenerationAnswer,
    GenerationsAnswer,
    HealthAnswer,
    RecommendAnswer,
    RecommendBody,
    SimilarBody,
)
from serving.service import RecommendationService

__all__ = ["create_app"]

T = TypeVar("T")


def create_app(
    service: RecommendationService,
    *,
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
        max_in_flight: requests that work in threads at once.
        max_waiting: requests that wait for a thread; beyond it, answers come from memory only,
            flagged as degraded with the reason ``overloaded``.
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
    limiter = anyio.CapacityLimiter(max_in_flight)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(service.warm_up)
        yield
        service.close()

    app = FastAPI(
        title="recsys",
        version=version,
        lifespan=lifespan,
        responses={code: {"model": ErrorAnswer} for code in (413, 422, 500, 503)},
    )
    app.add_middleware(Gate, telemetry=service.telemetry, max_body_bytes=max_body_bytes)
    install_error_handlers(app)

    async def in_thread(work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=limiter)

    in_flight = 0  # in a thread or waiting for one; touched by the event loop only

    async def answered(
        ask: Callable[..., Recommendations], asked: RecommendRequest | SimilarRequest
    ) -> Recommendations:
        nonlocal in_flight
        if in_flight >= max_in_flight + max_waiting:
            service.telemetry.request_shed()
            return ask(asked, local_only=True)
        in_flight += 1
        try:
            return await in_thread(lambda: ask(asked))
        finally:
            in_flight -= 1

    @app.post("/v1/recommend", tags=["recommendations"])
    async def recommend(body: RecommendBody, request: Request) -> RecommendAnswer:
        """Items for a user, best first."""
        asked = body.to_request(request.state.request_id)
        answer = await answered(service.recommend, asked)
        return _told(request, answer, asked.k)

    async def similar_items(body: SimilarBody, request: Request) -> RecommendAnswer:
        asked = body.to_request(request.state.request_id)
        answer = await answered(service.similar, asked)
        return _told(request, answer, asked.k)

    @app.post("/v1/similar", tags=["recommendations"])
    async def similar(body: SimilarBody, request: Request) -> RecommendAnswer:
        """Items like another, best first."""
        return await similar_items(body, request)

    @app.get("/v1/similar", tags=["recommendations"])
    async def similar_by_query(
        request: Request,
        item_id: Annotated[str, Query(min_length=1, max_length=256)],
        k: Annotated[int, Query(ge=1, le=MAX_K)] = 10,
    ) -> RecommendAnswer:
        """Items like another, best first."""
        return await similar_items(SimilarBody(item_id=item_id, k=k), request)

    @app.get("/v1/generations", tags=["operations"])
    async def generations() -> GenerationsAnswer:
        """Published generations, newest first."""
        found = await in_thread(service.store.generations)
        return GenerationsAnswer(
            generations=[
                GenerationAnswer(
                    generation=one.manifest.generation,
                    current=one.is_current,
                    previous=one.is_previous,
                    published_at=one.manifest.published_at,
                    expires_at=one.manifest.expires_at,
                    num_users=one.manifest.num_users,
                    num_items=one.manifest.num_items,
                    k=one.manifest.k,
                )
                for one in found
            ]
        )

    @app.get("/health/live", tags=["operations"])
    async def live() -> HealthAnswer:
        """The process runs."""
        return HealthAnswer(status="ok")

    @app.get("/health/ready", tags=["operations"], responses={503: {"model": HealthAnswer}})
    async def ready() -> Response:
        """The process has a generation to answer from; 503 and the reason when not."""
        reason = held() or await in_thread(service.not_ready)
        answer = HealthAnswer(
            status="ok" if reason is None else "not_ready",
            reason=reason,
            generation=service.served_generation(),
        )
        return JSONResponse(answer.model_dump(), status_code=200 if reason is None else 503)

    service.telemetry.watch_waiting(lambda: max(0, in_flight - max_in_flight))

    if with_metrics:

        @app.get("/metrics", tags=["operations"], response_class=Response)
        async def metrics(request: Request) -> Response:
            """Counts in Prometheus' text format, or OpenMetrics for those who ask for it."""
            accept = request.headers.get("accept", "")
            text, content_type = await anyio.to_thread.run_sync(service.telemetry.scrape, accept)
            return Response(text, media_type=content_type)

    return app


def _told(request: Request, answer: Recommendations, k: int) -> RecommendAnswer:
    """Leave what the log line needs, and shape the answer."""
    request.state.log = {
        "source": answer.source,
        "generation": answer.generation,
        "degraded": answer.degraded,
        "reason": answer.reason,
        "k": k,
        "num_items": len(answer.items),
        "num_filtered": answer.filtered.excluded
        + answer.filtered.not_in_only
        + answer.filtered.hidden,
    }
    return RecommendAnswer.from_recommendations(answer)
