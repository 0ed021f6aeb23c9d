"""What every request passes: a request id, a body limit, a clock, a log line, a last resort."""

from __future__ import annotations

import logging
import re
import time
import uuid

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http_errors import HTTP_CODES, error_response, row_for
from serving.telemetry import Telemetry, log_request

__all__ = ["Gate"]

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class BodyTooLarge(HTTPException):
    """The body went over the limit; an `HTTPException`, or FastAPI would answer 400."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body must have at most {limit} bytes")


class Gate:
    """ASGI middleware around the whole application.

    A client's ``X-Request-Id`` is used when it is 1 to 64 letters, digits, ``.``, ``_`` or ``-``;
    otherwise one is made, so that what comes back and what is logged is always harmless.

    Args:
        app: what it stands in front of.
        telemetry: where requests are counted.
        max_body_bytes: larger bodies get 413, whether or not they declared their length.
    """

    def __init__(self, app: ASGIApp, *, telemetry: Telemetry, max_body_bytes: int) -> None:
        self._app = app
        self._telemetry = telemetry
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request = Request(scope, receive)
        given = request.headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        request.state.request_id = request_id
        status = 500
        has_started = False
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_body_bytes:
                raise BodyTooLarge(self._max_body_bytes)
            return message

        async def stamped(message: Message) -> None:
            nonlocal status, has_started
            if message["type"] == "http.response.start":
                status = message["status"]
                has_started = True
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        self._telemetry.request_started()
        try:
            declared = request.headers.get("content-length", "")
            if declared.isdecimal() and int(declared) > self._max_body_bytes:
                raise BodyTooLarge(self._max_body_bytes)
            await self._app(scope, counted, stamped)
        except BodyTooLarge as error:
            answer = error_response(request, 413, HTTP_CODES[413], error.detail)
            await answer(scope, receive, stamped)
        except Exception as error:
            log.exception("request %s failed", request_id)
            if has_started:
                raise
            await error_response(request, *row_for(error))(scope, receive, stamped)
        finally:
            self._report(scope, request, status, time.perf_counter() - started)

    def _report(self, scope: Scope, request: Request, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        told: dict[str, object] = getattr(request.state, "log", {})
        request_id = request.state.request_id
        source = str(told.get("source", ""))
        self._telemetry.request_done(route, status, source, seconds, request_id)
        log_request(
            request_id=request_id,
            route=route,
            status=status,
            latency_ms=round(seconds * 1000, 3),
            **told,
        )
