"""What every request passes: a request id, a clock, a log line, a last resort."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.error_table import ERRORS, error_response, row_for
from serving.http.exchange import Disconnected, Exchange, begin
from serving.telemetry.metrics import Telemetry, log_request

__all__ = ["Gate"]

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_GONE = 499  # nobody reads it; it is for the log and the counters


class Gate:
    """ASGI middleware around the whole application.

    A client's ``X-Request-Id`` is used when it is 1 to 64 letters, digits, ``.``, ``_`` or ``-``;
    otherwise one is made, so that what comes back and what is logged is always harmless. HEAD is
    answered as GET is, without the body.

    Args:
        app: what it stands in front of.
        telemetry: where requests are counted.
        direct: applications by method and path that need nothing of ``app``.
    """

    def __init__(
        self, app: ASGIApp, *, telemetry: Telemetry, direct: Mapping[tuple[str, str], ASGIApp]
    ) -> None:
        self._app = app
        self._telemetry = telemetry
        self._direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        exchange = Exchange(request_id, headers)
        begin(scope, exchange)
        head_only = scope["method"] == "HEAD"
        if head_only:
            scope["method"] = "GET"
        app: ASGIApp | None = self._direct.get((scope["method"], scope["path"]))
        if app is not None:
            exchange.route = scope["path"]
        elif scope["path"].isprintable():
            app = self._app
        else:  # patterns of paths let a line feed at the end pass
            app = error_response(ERRORS["not_found"], request_id)
        status = 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            elif head_only:
                message = {**message, "body": b""}
            await send(message)

        self._telemetry.request_started()
        try:
            await app(scope, receive, stamped)
        except Disconnected:
            status = _GONE
        except Exception as error:
            log.exception("request %s failed", request_id)
            if status:
                raise
            await error_response(row_for(error), request_id)(scope, receive, stamped)
        finally:
            self._report(scope, exchange, status or _GONE, time.perf_counter() - started)

    def _report(self, scope: Scope, exchange: Exchange, status: int, seconds: float) -> None:
        route = exchange.route or getattr(scope.get("route"), "path", None) or "unmatched"
        source = str(exchange.told.get("source", ""))
        self._telemetry.request_done(route, status, source, seconds, exchange.request_id)
        log_request(
            slow=self._telemetry.is_slow(seconds),
            request_id=exchange.request_id,
            route=route,
            status=status,
            latency_ms=round(seconds * 1000, 3),
            **exchange.told,
        )
