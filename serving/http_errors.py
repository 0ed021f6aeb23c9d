"""Which error answers with which status; the one place that knows both."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.errors import (
    CorruptValue,
    DeadlineExceeded,
    NoGeneration,
    ServingError,
    StageUnavailable,
)

__all__ = ["ERROR_TABLE", "HTTP_CODES", "error_response", "install_error_handlers"]

log = logging.getLogger(__name__)


class ErrorRow(NamedTuple):
    """One line of the table.

    Attributes:
        status: HTTP status.
        code: fixed word for programs.
        message: what the client reads; the error's own text goes to the log only.
    """

    status: int
    code: str
    message: str


ERROR_TABLE: Mapping[type[Exception], ErrorRow] = {
    NoGeneration: ErrorRow(
        503, "no_generation", "nothing is published yet; run `recsys publish` and try again"
    ),
    StageUnavailable: ErrorRow(503, "unavailable", "a backend does not answer; try again soon"),
    DeadlineExceeded: ErrorRow(504, "deadline_exceeded", "a stage took too long; try again"),
    CorruptValue: ErrorRow(500, "corrupt_value", "a stored value is damaged; publish again"),
    ServingError: ErrorRow(500, "serving_error", "the request failed inside the service"),
    Exception: ErrorRow(500, "internal", "the request failed inside the service"),
}
"""Domain errors; the first class of an error's method resolution order that is here counts."""

HTTP_CODES: Mapping[int, str] = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
}
"""Codes of errors that start at the HTTP boundary."""


def error_response(request: Request, status: int, code: str, message: str) -> JSONResponse:
    """``{"error": {"code", "message", "request_id"}}`` with ``status``."""
    request_id = getattr(request.state, "request_id", None)
    body = {"error": {"code": code, "message": message, "request_id": request_id}}
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse(body, status_code=status, headers=headers)


def row_for(error: Exception) -> ErrorRow:
    """The table's line for ``error``."""
    return next(ERROR_TABLE[kind] for kind in type(error).__mro__ if kind in ERROR_TABLE)


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of ``app`` in the one shape."""

    async def domain_error(request: Request, error: Exception) -> JSONResponse:
        row = row_for(error)
        if row.status == 500:
            log.error("request failed", exc_info=error)
        else:
            log.warning("request failed: %s", error)
        return error_response(request, *row)

    async def invalid_request(request: Request, error: Exception) -> JSONResponse:
        problems = error.errors() if isinstance(error, RequestValidationError) else []
        # Location and rule only: the value may be what a user typed.
        told = [
            f"{'.'.join(str(part) for part in one['loc'] if part != 'body') or 'body'}: "
            f"{one['msg']}"
            for one in problems[:5]
        ]
        return error_response(request, 422, HTTP_CODES[422], "; ".join(told) or "invalid request")

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = str(error.detail) if isinstance(error, HTTPException) else ""
        return error_response(request, status, HTTP_CODES.get(status, "http_error"), detail)

    app.add_exception_handler(ServingError, domain_error)
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.add_exception_handler(HTTPException, http_error)
