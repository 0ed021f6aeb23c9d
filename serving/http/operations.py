"""Operations that look at the process: generations, experiments, health, document, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from serving.http.answers import (
    ExperimentAnswer,
    ExperimentsAnswer,
    GenerationAnswer,
    GenerationsAnswer,
    HealthAnswer,
)
from serving.http.bodies import ExperimentsQuery
from serving.http.exchange import Exchange
from serving.http.routes import STORE_ERRORS, Routes
from serving.http.workers import Workers

if TYPE_CHECKING:
    from serving.request.experiments import Experiments
    from serving.request.service import RecommendationService

__all__ = ["install"]

_TAG = "operations"


def install(
    routes: Routes,
    service: RecommendationService,
    workers: Workers,
    *,
    held: Callable[[], str | None],
    with_metrics: bool,
) -> None:
    """Register the operations.

    Args:
        routes: where.
        service: what they look at.
        workers: threads of their own, so that a busy process can still say how it is.
        held: why this process asks for no traffic though the service could answer.
        with_metrics: answer ``GET /metrics``.
    """

    @routes.operation(
        "GET",
        "/v1/generations",
        tag=_TAG,
        scope="read",
        answer=GenerationsAnswer,
        errors=STORE_ERRORS,
    )
    async def generations(exchange: Exchange) -> Response:
        """Published generations, newest first."""
        found = await workers.run(service.store.generations)
        listed = [
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
        return _json(GenerationsAnswer(generations=listed))

    @routes.operation(
        "GET",
        "/v1/experiments",
        tag=_TAG,
        scope="read",
        answer=ExperimentsAnswer,
        errors=["invalid_request", "overloaded"],
    )
    async def list_experiments(exchange: Exchange, query: ExperimentsQuery) -> Response:
        """Experiments in the order declared, and the arms that a user is in now."""
        return _json(await workers.run(_experiments, service.experiments, query.user_id))

    @routes.operation("GET", "/health/live", tag=_TAG, answer=HealthAnswer)
    async def live(exchange: Exchange) -> Response:
        """The process runs."""
        return _json(HealthAnswer(status="ok"))

    unready: dict[str, Any] = {"model": HealthAnswer, "description": "not now, and the reason"}

    @routes.operation(
        "GET", "/health/ready", tag=_TAG, answer=HealthAnswer, responses={503: unready}
    )
    async def ready(exchange: Exchange) -> Response:
        """The process has a generation to answer from and is not about to end."""
        reason = held() or await workers.run(service.not_ready)
        answer = HealthAnswer(
            status="ok" if reason is None else "not_ready",
            reason=reason,
            generation=service.served_generation(),
        )
        return _json(answer, 200 if reason is None else 503)

    _install_document(routes)
    if not with_metrics:
        return

    @routes.operation(
        "GET", "/metrics", tag=_TAG, scope="read", answer=None, response_class=Response
    )
    async def scrape(exchange: Exchange) -> Response:
        """Counts in Prometheus' text format, or OpenMetrics for those who accept it."""
        accept = exchange.header(b"accept")
        content, kind = await workers.run(service.telemetry.scrape, accept)
        return Response(content, media_type=kind)


def _install_document(routes: Routes) -> None:
    """The OpenAPI document, as it is and in a browser."""
    hidden: dict[str, Any] = {"tag": _TAG, "answer": None, "include_in_schema": False}

    @routes.operation("GET", "/openapi.json", **hidden)
    async def document(exchange: Exchange) -> Response:
        return JSONResponse(routes.document())

    @routes.operation("GET", "/docs", **hidden)
    async def swagger(exchange: Exchange) -> Response:
        return get_swagger_ui_html(openapi_url="/openapi.json", title="recsys - Swagger UI")

    @routes.operation("GET", "/redoc", **hidden)
    async def redoc(exchange: Exchange) -> Response:
        return get_redoc_html(openapi_url="/openapi.json", title="recsys - ReDoc")


def _experiments(experiments: Experiments | None, user_id: str | None) -> ExperimentsAnswer:
    if experiments is None:
        return ExperimentsAnswer(experiments=[], arms={})
    now = time.time()
    listed = [
        ExperimentAnswer(
            name=one.name,
            state=one.state,
            layer=one.layer,
            traffic=one.traffic,
            arms=dict(one.arms),
            start=one.start,
            end=one.end,
        )
        for one in experiments.states(now)
    ]
    return ExperimentsAnswer(experiments=listed, arms=dict(experiments.assign(user_id, now).arms))


def _json(answer: BaseModel, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")
