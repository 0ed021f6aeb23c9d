"""What stands around each operation: who asks, the body, a thread to work in, the errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, get_type_hints

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.http.api_keys import ApiKeys
from serving.http.body import read_body
from serving.http.error_table import Refusal, answers, error_response, invalid, logged
from serving.http.exchange import Disconnected, Exchange, exchange_of

__all__ = ["STORE_ERRORS", "Shell", "Workers"]

T = TypeVar("T")
Endpoint = Callable[..., Awaitable[Response]]

STORE_ERRORS = (
    "no_generation",
    "unavailable",
    "overloaded",
    "deadline_exceeded",
    "corrupt_value",
    "serving_error",
)
"""What may go wrong wherever the store is asked."""
_BODY_ERRORS = (
    "malformed_json",
    "json_too_deep",
    "body_too_large",
    "unsupported_media_type",
    "unsupported_encoding",
    "invalid_request",
    "too_many_items",
)
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}


class Workers:
    """Threads for work that blocks, and a bound on how much of it may wait.

    Args:
        max_in_flight: threads, >= 1.
        max_waiting: calls that wait for one, >= 0.
    """

    def __init__(self, max_in_flight: int, max_waiting: int) -> None:
        self._threads = _threads(max_in_flight)
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._count = 0  # in a thread or waiting for one; written by the event loop only

    @property
    def is_full(self) -> bool:
        """Whether another call would be refused."""
        return self._count >= self._max_in_flight + self._max_waiting

    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return max(0, self._count - self._max_in_flight)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """``work(*args)`` in a thread.

        Raises:
            Refusal: too many calls wait already (``overloaded``).
        """
        if self.is_full:
            raise Refusal("overloaded")
        self._count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        finally:
            self._count -= 1

    def close(self) -> None:
        """Wait for what is under way, and end the threads; another call begins new ones."""
        self._threads.shutdown()
        self._threads = _threads(self._max_in_flight)


def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="recsys-http")


class Shell:
    """Registers the operations of one application.

    FastAPI writes the OpenAPI document from the signatures. An operation with a body is answered
    without FastAPI's own reading of it: pydantic's parser checks the bytes in one pass, bounds
    their depth and refuses what is not UTF-8.

    Args:
        app: whose operations.
        keys: who may ask. Without any, reading and feedback are open.
        admin: whether admin verbs may be used at all.
        max_body_bytes: larger bodies get 413, whether or not they declared their length.

    Attributes:
        direct: method and path of each operation with a body -> the ASGI application behind it.
    """

    def __init__(self, app: FastAPI, *, keys: ApiKeys, admin: bool, max_body_bytes: int) -> None:
        self._app = app
        self._keys = keys
        self._admin = admin
        self._max_body_bytes = max_body_bytes
        self.direct: dict[tuple[str, str], ASGIApp] = {}

    def operation(
        self,
        method: str,
        path: str,
        *,
        tag: str,
        answer: type[BaseModel] | None,
        scope: str | None = None,
        errors: Collection[str] = (),
        **options: Any,
    ) -> Callable[[Endpoint], Endpoint]:
        """Register a coroutine function under ``method`` and ``path``.

        A JSON body is checked against the type of its parameter ``body``; the only other
        parameter is then ``request``.

        Args:
            method: GET or POST.
            path: from the root.
            tag: group in the document.
            answer: shape of a 200, for the document.
            scope: what the caller's key must allow. None: everybody may ask.
            errors: codes of what may go wrong besides what the shell itself refuses.
            options: for FastAPI.
        """

        def register(endpoint: Endpoint) -> Endpoint:
            body = get_type_hints(endpoint).get("body")
            codes = {"internal", *errors, *(_BODY_ERRORS if body is not None else ())}
            if scope is not None:
                codes |= {"unauthorized", "forbidden"}
                options["openapi_extra"] = {"security": [{name: []} for name in _SCHEMES]}
            if scope == "admin":
                codes.add("admin_disabled")

            async def answered(asked: Scope, receive: Receive, send: Send) -> None:
                exchange = exchange_of(asked)
                try:
                    self.check(exchange, scope)
                    content = await read_body(exchange, receive, self._max_body_bytes)
                    checked = body.model_validate_json(content)  # type: ignore[union-attr]
                    response = await endpoint(checked, Request(asked))
                except Disconnected:
                    raise
                except ValidationError as error:
                    response = error_response(invalid(error).row, exchange.request_id)
                except Exception as error:
                    response = error_response(logged(error), exchange.request_id)
                await response(asked, receive, send)

            shell = self

            class Guarded(APIRoute):
                async def handle(self, asked: Scope, receive: Receive, send: Send) -> None:
                    if asked["method"] != method:
                        await super().handle(asked, receive, send)  # refused there
                    elif body is not None:
                        await answered(asked, receive, send)
                    else:
                        shell.check(exchange_of(asked), scope)
                        await super().handle(asked, receive, send)

            self._app.router.add_api_route(
                path,
                endpoint,
                methods=[method],
                tags=[tag],
                response_model=answer,
                responses={**answers(codes), **options.pop("responses", {})},
                route_class_override=Guarded,
                **options,
            )
            if body is not None:
                self.direct[method, path] = answered
            return endpoint

        return register

    def check(self, exchange: Exchange, scope: str | None) -> None:
        """Let a caller pass, and note the name of its key.

        Raises:
            Refusal: its key does not allow ``scope``, or ``scope`` is off.
        """
        if scope is None:
            return
        secret = exchange.secret()
        key = self._keys.find(secret) if secret is not None else None
        if key is not None:
            exchange.told["key"] = key.name
        if scope == "admin" and not self._admin:
            raise Refusal("admin_disabled")
        if scope != "admin" and not len(self._keys):
            return
        if key is None:
            raise Refusal("unauthorized")
        if scope not in key.scopes:
            raise Refusal("forbidden", f"the key has no scope {scope}")

    def document(self) -> dict[str, Any]:
        """The OpenAPI document, with how keys are sent."""
        document = FastAPI.openapi(self._app)
        document.setdefault("components", {})["securitySchemes"] = _SCHEMES
        return document
