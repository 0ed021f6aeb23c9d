"""Operations that look at the process: generations, experiments, health, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from pydantic import BaseModel

from serving.http_answers import GenerationAnswer, GenerationsAnswer, HealthAnswer
from serving.http_exchange import exchange_of
from serving.http_shell import STORE_ERRORS, Shell, Workers

if TYPE_CHECKING:
    from serving.service import RecommendationService

__all__ = ["install"]

_TAG = "operations"


def install(
    shell: Shell,
    service: RecommendationService,
    workers: Workers,
    *,
    held: Callable[[], str | None],
    with_metrics: bool,
) -> None:
    """Register the operations.

    Args:
        shell: where.
        service: what they look at.
        workers: threads of their own, so that a busy process can still say how it is.
        held: why this process asks for no traffic though the service could answer.
        with_metrics: answer ``GET /metrics``.
    """

    @shell.operation(
        "GET",
        "/v1/generations",
        tag=_TAG,
        scope="read",
        answer=GenerationsAnswer,
        errors=STORE_ERRORS,
    )
    async def generations(request: Request) -> Response:
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

    @shell.operation("GET", "/health/live", tag=_TAG, answer=HealthAnswer)
    async def live(request: Request) -> Response:
        """The process runs."""
        return _json(HealthAnswer(status="ok"))

    unready: dict[str, Any] = {"model": HealthAnswer, "description": "not now, and the reason"}

    @shell.operation(
        "GET", "/health/ready", tag=_TAG, answer=HealthAnswer, responses={503: unready}
    )
    async def ready(request: Request) -> Response:
        """The process has a generation to answer from and is not about to end."""
        reason = held() or await workers.run(service.not_ready)
        answer = HealthAnswer(
            status="ok" if reason is None else "not_ready",
            reason=reason,
            generation=service.served_generation(),
        )
        return _json(answer, 200 if reason is None else 503)

    if not with_metrics:
        return

    @shell.operation(
        "GET", "/metrics", tag=_TAG, scope="read", answer=None, response_class=Response
    )
    async def scrape(request: Request) -> Response:
        """Counts in Prometheus' text format, or OpenMetrics for those who accept it."""
        accept = exchange_of(request.scope).header(b"accept")
        content, kind = await workers.run(service.telemetry.scrape, accept)
        return Response(content, media_type=kind)


def _json(answer: BaseModel, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")
