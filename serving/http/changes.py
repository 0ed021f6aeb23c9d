"""Operations that change something: events, items, and which generation is served."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.responses import Response

from serving.errors import NoGeneration
from serving.http.answers import EventsAnswer, HeadAnswer, ItemsAnswer
from serving.http.bodies import EventsBody, FlipBody, ItemIdsBody, ItemsBody
from serving.http.error_table import Refusal
from serving.http.exchange import Exchange
from serving.http.routes import STORE_ERRORS, Routes
from serving.http.workers import Workers
from serving.messages import ItemsReport
from serving.store.manifest import Head

if TYPE_CHECKING:
    from serving.request.service import RecommendationService

__all__ = ["install"]

_CONFLICTS = ("unknown_generation", "head_conflict", "publish_refused")


def install(routes: Routes, service: RecommendationService, workers: Workers) -> None:
    """Register the operations."""

    @routes.operation(
        "POST",
        "/v1/events",
        tag="feedback",
        scope="feedback",
        answer=EventsAnswer,
        errors=STORE_ERRORS,
    )
    async def events(exchange: Exchange, body: EventsBody) -> Response:
        """What users did; counted once however often it is sent.

        The answer comes when the events are in the store. All or none are taken: while the
        process is overloaded or the store is away they are refused (503), to be sent again.
        """
        try:
            report = await workers.run(service.record, body.to_events())
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            raise Refusal("invalid_request", str(error)) from error
        exchange.told["num_events"] = len(body.events)
        return _json(dataclasses.asdict(report))

    async def show(
        change: Callable[[list[str]], ItemsReport], body: ItemIdsBody, exchange: Exchange
    ) -> Response:
        report = await workers.run(change, body.item_ids)
        told = {"changed": report.changed, "unknown": list(report.unknown)}
        exchange.told["num_items"] = report.changed
        return _json(told)

    @routes.operation(
        "POST",
        "/v1/items/hide",
        tag="items",
        scope="admin",
        answer=ItemsAnswer,
        errors=STORE_ERRORS,
    )
    async def hide(exchange: Exchange, body: ItemIdsBody) -> Response:
        """Items that must not be shown any more; other processes follow within a second."""
        return await show(service.hide, body, exchange)

    @routes.operation(
        "POST",
        "/v1/items/restore",
        tag="items",
        scope="admin",
        answer=ItemsAnswer,
        errors=STORE_ERRORS,
    )
    async def restore(exchange: Exchange, body: ItemIdsBody) -> Response:
        """Hidden items that may be shown again."""
        return await show(service.restore, body, exchange)

    @routes.operation(
        "POST",
        "/v1/items",
        tag="items",
        scope="admin",
        answer=ItemsAnswer,
        errors=[*STORE_ERRORS, "not_supported"],
    )
    async def add(exchange: Exchange, body: ItemsBody) -> Response:
        """Items that belong to the catalogue: those of the served generation are shown at once.

        Items that the generation does not know, and attributes, come with the data of the next
        training run; a request with such is refused (`not_supported`), and its other items are
        shown all the same.
        """
        report = await workers.run(service.restore, [one.item_id for one in body.items])
        exchange.told["num_items"] = report.changed
        if new := len(report.unknown):
            raise Refusal(
                "not_supported",
                f"{new} of {len(body.items)} items are new to the served generation; they come "
                "with the data of the next training run. The others are shown now",
            )
        if any(one.attributes for one in body.items):
            raise Refusal(
                "not_supported",
                "attributes come with the data of the next training run. The items are shown now",
            )
        return _json({"changed": report.changed, "unknown": []})

    async def moved(move: Callable[[], Head]) -> Response:
        try:
            head = await workers.run(move)
        except NoGeneration as error:
            raise Refusal("unknown_generation", str(error)) from error
        return _json(dataclasses.asdict(head))

    @routes.operation(
        "POST",
        "/v1/admin/flip",
        tag="operations",
        scope="admin",
        answer=HeadAnswer,
        errors=[*STORE_ERRORS, *_CONFLICTS],
    )
    async def flip(exchange: Exchange, body: FlipBody) -> Response:
        """Serve a generation that is in the store."""
        return await moved(
            lambda: service.store.flip(body.generation, expected_epoch=body.expected_epoch)
        )

    @routes.operation(
        "POST",
        "/v1/admin/rollback",
        tag="operations",
        scope="admin",
        answer=HeadAnswer,
        errors=[*STORE_ERRORS, *_CONFLICTS],
    )
    async def rollback(exchange: Exchange) -> Response:
        """Serve the previous generation again; a second call undoes the first."""
        return await moved(service.store.rollback)


def _json(value: object) -> Response:
    return Response(json.dumps(value), media_type="application/json")
