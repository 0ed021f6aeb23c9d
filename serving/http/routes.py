"""The operations of the HTTP interface: who may ask, what is read, how errors are answered."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, Any, NamedTuple, get_type_hints

from fastapi import FastAPI, Query
from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import Receive

from serving.http.api_keys import ApiKeys
from serving.http.error_table import (
    ERRORS,
    Refusal,
    answers,
    error_response,
    invalid,
    logged,
)
from serving.http.exchange import Disconnected, Exchange, read_body

__all__ = ["STORE_ERRORS", "Endpoint", "Routes"]

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


class _Operation(NamedTuple):
    endpoint: Endpoint
    scope: str | None
    body: type[BaseModel] | None
    query: type[BaseModel] | None


class Routes:
    """Each operation by its path and method, registered once.

    A body is read here and nowhere else: pydantic's parser checks the bytes in one pass, bounds
    their depth and refuses what is not UTF-8. FastAPI writes the OpenAPI document from what is
    declared, and answers nothing.

    Args:
        version: shown in the document.
        keys: who may ask. Without any, reading and feedback are open.
        admin: whether admin verbs may be used at all.
        max_body_bytes: larger bodies get 413, whether or not they declared their length.
    """

    def __init__(self, *, version: str, keys: ApiKeys, admin: bool, max_body_bytes: int) -> None:
        self._declared = FastAPI(title="recsys", version=version)
        self._keys = keys
        self._admin = admin
        self._max_body_bytes = max_body_bytes
        self._operations: dict[str, dict[str, _Operation]] = {}

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

        Its first parameter is the `Exchange`. A JSON body is checked against the type of its
        parameter ``body``, what stands behind the ``?`` against that of ``query``.

        Args:
            method: GET or POST.
            path: from the root.
            tag: group in the document.
            answer: shape of a 200, for the document.
            scope: what the caller's key must allow. None: everybody may ask.
            errors: codes of what may go wrong besides what is refused here.
            options: for the document, as `FastAPI.add_api_route` takes them.
        """

        def register(endpoint: Endpoint) -> Endpoint:
            hints = get_type_hints(endpoint)
            body, query = hints.get("body"), hints.get("query")
            self._operations.setdefault(path, {})[method] = _Operation(endpoint, scope, body, query)
            codes = {"internal", *errors, *(_BODY_ERRORS if body is not None else ())}
            if scope is not None:
                codes |= {"unauthorized", "forbidden"}
                options["openapi_extra"] = {"security": [{name: []} for name in _SCHEMES]}
            if scope == "admin":
                codes.add("admin_disabled")
            self._declared.add_api_route(
                path,
                _declaration(endpoint, body, query),
                methods=[method],
                tags=[tag],
                response_model=answer,
                responses={**answers(codes), **options.pop("responses", {})},
                **options,
            )
            return endpoint

        return register

    async def answer(
        self, method: str, path: str, query: bytes, exchange: Exchange, receive: Receive
    ) -> Response:
        """The answer to a request, an error's too.

        Args:
            method: of the request.
            path: without what stands behind the ``?``.
            query: that, as it was sent.
            exchange: of the request; its ``route`` is set here.
            receive: gives the parts of the body.

        Raises:
            Disconnected: the client went away.
        """
        try:
            operations = self._operations.get(path)
            if operations is None:
                raise Refusal("not_found")
            exchange.route = path
            operation = operations.get(method)
            if operation is None:
                response = error_response(ERRORS["method_not_allowed"], exchange.request_id)
                also = {"HEAD"} if "GET" in operations else set()
                response.headers["Allow"] = ", ".join(sorted(also.union(operations)))
                return response
            self._check_key(exchange, operation.scope)
            asked = await self._asked(operation, query, exchange, receive)
            return await operation.endpoint(exchange, **asked)
        except Disconnected:
            raise
        except Exception as error:
            return error_response(logged(error), exchange.request_id)

    def document(self) -> dict[str, Any]:
        """The OpenAPI document, with how keys are sent."""
        document = self._declared.openapi()
        document.setdefault("components", {})["securitySchemes"] = _SCHEMES
        return document

    async def _asked(
        self, operation: _Operation, query: bytes, exchange: Exchange, receive: Receive
    ) -> dict[str, BaseModel]:
        """The body and the query, as far as the operation declares them.

        Raises:
            Refusal: one of them breaks a rule.
            Disconnected: the client went away.
        """
        asked: dict[str, BaseModel] = {}
        try:
            if operation.body is not None:
                content = await read_body(exchange, receive, self._max_body_bytes)
                asked["body"] = operation.body.model_validate_json(content)
            if operation.query is not None:
                asked["query"] = operation.query.model_validate(dict(QueryParams(query)))
        except ValidationError as error:
            raise invalid(error) from error
        return asked

    def _check_key(self, exchange: Exchange, scope: str | None) -> None:
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


def _declaration(
    endpoint: Endpoint, body: type[BaseModel] | None, query: type[BaseModel] | None
) -> Callable[..., None]:
    """A function with the name, the text and the parameters that the document tells of."""

    def declared() -> None: ...

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = []
    if body is not None:
        parameters.append(inspect.Parameter("body", kind, annotation=body))
    if query is not None:
        parameters.append(inspect.Parameter("query", kind, annotation=Annotated[query, Query()]))
    declared.__name__, declared.__doc__ = endpoint.__name__, endpoint.__doc__
    declared.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return declared
