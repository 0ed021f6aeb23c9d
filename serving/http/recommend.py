"""Operations that answer with items: recommend, similar, rank, explain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response

from serving.errors import ServingError
from serving.http.answers import (
    BatchAnswer,
    ExplainAnswer,
    RecommendAnswer,
    batch_json,
    explanation_json,
    recommendations_json,
)
from serving.http.bodies import (
    BatchBody,
    ExplainBody,
    RankBody,
    RecommendBody,
    SimilarBody,
    SimilarQuery,
)
from serving.http.error_table import ErrorRow, Refusal, invalid, logged, told
from serving.http.exchange import Exchange
from serving.http.routes import STORE_ERRORS, Routes
from serving.http.workers import Workers
from serving.messages import Recommendations, RecommendRequest, SimilarRequest

if TYPE_CHECKING:
    from serving.request.service import RecommendationService

__all__ = ["install"]

T = TypeVar("T")
_JSON = "application/json"
_TAG = "recommendations"
_CURSOR = ("cursor_expired", "cursor_mismatch")


def install(routes: Routes, service: RecommendationService, workers: Workers) -> None:
    """Register the operations."""

    async def answer(
        ask: Callable[..., Recommendations],
        asked: RecommendRequest | SimilarRequest,
        exchange: Exchange,
    ) -> Response:
        if workers.is_full:
            service.telemetry.request_shed()
            found = ask(asked, local_only=True)
        else:
            found = await workers.run(ask, asked)
        exchange.told |= _facts(found, asked.k)
        return Response(recommendations_json(found), media_type=_JSON)

    @routes.operation(
        "POST",
        "/v1/recommend",
        tag=_TAG,
        scope="read",
        answer=RecommendAnswer,
        errors=[*STORE_ERRORS, *_CURSOR],
    )
    async def recommend(exchange: Exchange, body: RecommendBody) -> Response:
        """Items for a user, best first.

        While too many requests wait, the answer comes from memory, flagged as degraded with the
        reason `overloaded`.
        """
        asked = body.to_request(exchange.request_id)
        return await answer(service.recommend, asked, exchange)

    @routes.operation(
        "POST",
        "/v1/recommend/batch",
        tag=_TAG,
        scope="read",
        answer=BatchAnswer,
        errors=STORE_ERRORS,
    )
    async def recommend_batch(exchange: Exchange, body: BatchBody) -> Response:
        """Items for several users in one reading of the store.

        Each question is answered or refused on its own, with the status that it would have had
        alone. Its request id is this request's with its number behind a dot.
        """
        entries = await workers.run(_batch, service, body, exchange.request_id)
        exchange.told |= {
            "num_questions": len(entries),
            "num_failed": sum(not isinstance(one, bytes) for one in entries),
        }
        return Response(batch_json(entries), media_type=_JSON)

    @routes.operation(
        "POST",
        "/v1/similar",
        tag=_TAG,
        scope="read",
        answer=RecommendAnswer,
        errors=STORE_ERRORS,
    )
    async def similar(exchange: Exchange, body: SimilarBody) -> Response:
        """Items like another, best first."""
        asked = body.to_request(exchange.request_id)
        return await answer(service.similar, asked, exchange)

    @routes.operation(
        "GET",
        "/v1/similar",
        tag=_TAG,
        scope="read",
        answer=RecommendAnswer,
        errors=[*STORE_ERRORS, "invalid_request"],
    )
    async def similar_by_query(exchange: Exchange, query: SimilarQuery) -> Response:
        """Items like another, best first."""
        asked = SimilarRequest(query.item_id, query.k, request_id=exchange.request_id)
        return await answer(service.similar, asked, exchange)

    @routes.operation(
        "POST",
        "/v1/rank",
        tag=_TAG,
        scope="read",
        answer=RecommendAnswer,
        errors=[*STORE_ERRORS, "not_supported"],
    )
    async def rank(exchange: Exchange, body: RankBody) -> Response:
        """A list that the caller brings, in the order the ranker would show it."""
        asked = checked(body.to_request, exchange.request_id)
        found = await workers.run(service.rank, asked)
        exchange.told |= _facts(found, len(asked.item_ids))
        return Response(recommendations_json(found), media_type=_JSON)

    @routes.operation(
        "POST",
        "/v1/explain",
        tag=_TAG,
        scope="read",
        answer=ExplainAnswer,
        errors=[*STORE_ERRORS, "not_supported"],
    )
    async def explain(exchange: Exchange, body: ExplainBody) -> Response:
        """Why items stand where they stand, or why they do not appear."""
        asked = checked(body.to_request, exchange.request_id)
        found = await workers.run(service.explain, asked)
        exchange.told |= {
            "source": found.source,
            "generation": found.generation,
            "reason": found.reason,
            "num_items": len(found.items),
        }
        return Response(explanation_json(found), media_type=_JSON)


def _batch(
    service: RecommendationService, body: BatchBody, request_id: str
) -> list[bytes | tuple[int, dict[str, Any]]]:
    """An answer's bytes or an error for each question."""
    asked: dict[str, RecommendRequest] = {}
    found: dict[str, Recommendations | ErrorRow] = {}
    names = [f"{request_id}.{number}" for number in range(len(body.questions))]
    for name, one in zip(names, body.checked(), strict=True):
        if isinstance(one, RecommendBody):
            asked[name] = one.to_request(name)
        else:
            found[name] = invalid(one).row
    try:
        found |= zip(asked, service.recommend_many(list(asked.values())), strict=True)
    except ServingError as error:
        if len(asked) == 1:
            found |= dict.fromkeys(asked, logged(error))
        else:
            found |= {name: _alone(service, one) for name, one in asked.items()}
    return [
        (answer.status, told(answer, name))
        if isinstance(answer := found[name], ErrorRow)
        else recommendations_json(answer)
        for name in names
    ]


def _alone(service: RecommendationService, asked: RecommendRequest) -> Recommendations | ErrorRow:
    try:
        return service.recommend(asked)
    except ServingError as error:
        return logged(error)


def checked(build: Callable[[str], T], request_id: str) -> T:
    """A question as the service's value type.

    Raises:
        Refusal: it breaks a rule that its fields alone do not tell.
    """
    try:
        return build(request_id)
    except ValueError as error:
        raise Refusal("invalid_request", str(error)) from error


def _facts(answer: Recommendations, k: int) -> dict[str, object]:
    """What the log line says of an answer."""
    filtered = answer.filtered
    return {
        "source": answer.source,
        "generation": answer.generation,
        "degraded": answer.degraded,
        "reason": answer.reason,
        "policy": answer.policy,
        "k": k,
        "num_items": len(answer.items),
        "num_filtered": filtered.excluded + filtered.not_in_only + filtered.hidden,
    }
