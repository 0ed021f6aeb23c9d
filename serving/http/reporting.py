"""What every request gets beside its answer: an id, a count, a line in the log."""

from __future__ import annotations

import re
import time
import uuid

from starlette.types import Receive, Scope, Send

from serving.http.exchange import Disconnected, Exchange
from serving.http.routes import Routes
from serving.telemetry.metrics import Telemetry, log_request

__all__ = ["Reporting"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_GONE = 499  # nobody reads it; it is for the log and the counters


class Reporting:
    """The ASGI application that sends what `Routes` answers, and reports it.

    A client's ``X-Request-Id`` is used when it is 1 to 64 letters, digits, ``.``, ``_`` or ``-``;
    otherwise one is made, so that what comes back and what is logged is always harmless. HEAD is
    answered as GET is, without the body.

    Args:
        routes: answer.
        telemetry: where requests are counted.
    """

    def __init__(self, routes: Routes, telemetry: Telemetry) -> None:
        self._routes = routes
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        exchange = Exchange(request_id, headers)
        head_only = scope["method"] == "HEAD"
        status = _GONE
        self._telemetry.request_started()
        try:
            response = await self._routes.answer(
                "GET" if head_only else scope["method"],
                scope["path"],
                scope["query_string"],
                exchange,
                receive,
            )
            status = response.status_code
            marked = [*response.raw_headers, (b"x-request-id", request_id.encode())]
            await send({"type": "http.response.start", "status": status, "headers": marked})
            body = b"" if head_only else response.body
            await send({"type": "http.response.body", "body": body})
        except Disconnected:
            pass
        finally:
            self._report(exchange, status, time.perf_counter() - started)

    def _report(self, exchange: Exchange, status: int, seconds: float) -> None:
        route = exchange.route or "unmatched"
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
