"""Every error that HTTP may answer: its code, its status, and what the client reads."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from starlette.responses import Response

from serving import errors
from serving.http.bodies import ErrorAnswer

__all__ = [
    "ERRORS",
    "ERROR_TABLE",
    "ErrorRow",
    "Refusal",
    "answers",
    "error_response",
    "invalid",
    "row_for",
]

log = logging.getLogger(__name__)


class ErrorRow(NamedTuple):
    """One line of the table.

    Attributes:
        status: HTTP status.
        code: fixed word for programs.
        message: what the client reads where nothing more exact is known; what a backend said goes
            to the log only.
    """

    status: int
    code: str
    message: str


_ROWS = (
    ErrorRow(400, "bad_request", "the request cannot be understood"),
    ErrorRow(400, "malformed_json", "the body must be one JSON value in UTF-8"),
    ErrorRow(400, "json_too_deep", "the body must not nest lists and objects deeper than 200"),
    ErrorRow(400, "cursor_mismatch", "the cursor belongs to another question; start without one"),
    ErrorRow(401, "unauthorized", "send a valid key as Authorization: Bearer or as X-Api-Key"),
    ErrorRow(403, "forbidden", "the key has no scope for this"),
    ErrorRow(403, "admin_disabled", "admin verbs are off; set serving.admin = true to allow them"),
    ErrorRow(404, "not_found", "there is nothing at this path"),
    ErrorRow(404, "unknown_generation", "the generation is unknown, unfinished or expired"),
    ErrorRow(405, "method_not_allowed", "the path takes other methods; see the header Allow"),
    ErrorRow(409, "not_supported", "the process has no model for this; run `recsys train` first"),
    ErrorRow(409, "head_conflict", "somebody else moved the head meanwhile; look and try again"),
    ErrorRow(409, "publish_refused", "a check failed; readers see what they saw before"),
    ErrorRow(410, "cursor_expired", "the generation of the cursor is gone; start without one"),
    ErrorRow(413, "body_too_large", "the body has too many bytes"),
    ErrorRow(415, "unsupported_media_type", "send the body as Content-Type: application/json"),
    ErrorRow(415, "unsupported_encoding", "send the body as it is, without Content-Encoding"),
    ErrorRow(422, "invalid_request", "a field breaks its rule; the message says which"),
    ErrorRow(422, "too_many_items", "a list is longer than it may be; the message says which"),
    ErrorRow(500, "corrupt_value", "a stored value is damaged; publish again"),
    ErrorRow(500, "serving_error", "the request failed inside the service"),
    ErrorRow(500, "internal", "the request failed inside the service"),
    ErrorRow(503, "no_generation", "nothing is published yet; run `recsys publish` and try again"),
    ErrorRow(503, "unavailable", "a backend does not answer; try again soon"),
    ErrorRow(503, "overloaded", "too many requests at once; try again soon"),
    ErrorRow(504, "deadline_exceeded", "a stage took too long; try again"),
)
ERRORS: Mapping[str, ErrorRow] = {row.code: row for row in _ROWS}
"""All errors, by code."""

ERROR_TABLE: Mapping[type[Exception], ErrorRow] = {
    errors.CursorExpired: ERRORS["cursor_expired"],
    errors.CursorMismatch: ERRORS["cursor_mismatch"],
    errors.NotSupported: ERRORS["not_supported"],
    errors.NoGeneration: ERRORS["no_generation"],
    errors.StageUnavailable: ERRORS["unavailable"],
    errors.DeadlineExceeded: ERRORS["deadline_exceeded"],
    errors.CorruptValue: ERRORS["corrupt_value"],
    errors.HeadConflict: ERRORS["head_conflict"],
    errors.PublishRefused: ERRORS["publish_refused"],
    errors.ServingError: ERRORS["serving_error"],
    Exception: ERRORS["internal"],
}
"""Domain errors; the first class of an error's method resolution order that is here counts."""

_TOLD = 5  # problems of a body that one message names


class Refusal(Exception):
    """A request that goes no further than the HTTP boundary.

    Args:
        code: one of `ERRORS`.
        message: None: the table's.
    """

    def __init__(self, code: str, message: str | None = None) -> None:
        self.row = ERRORS[code] if message is None else ERRORS[code]._replace(message=message)
        super().__init__(self.row.message)


def row_for(error: Exception) -> ErrorRow:
    """What ``error`` is answered with."""
    if isinstance(error, Refusal):
        return error.row
    return next(ERROR_TABLE[kind] for kind in type(error).__mro__ if kind in ERROR_TABLE)


def told(row: ErrorRow, request_id: str | None) -> dict[str, Any]:
    """What every error says: ``code``, ``message`` and ``request_id``."""
    return {"code": row.code, "message": row.message, "request_id": request_id}


def error_response(row: ErrorRow, request_id: str | None) -> Response:
    """``{"error": {"code", "message", "request_id"}}`` with the row's status."""
    headers = {}
    if row.status == 503:
        headers["Retry-After"] = "1"
    elif row.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    content = json.dumps({"error": told(row, request_id)}).encode()
    return Response(content, row.status, headers, "application/json")


def logged(error: Exception) -> ErrorRow:
    """`row_for`, with a line in the log for what is not the client's doing."""
    row = row_for(error)
    if row.status == 500:
        log.error("request failed", exc_info=error)
    elif not isinstance(error, Refusal):
        log.warning("request failed: %s", error)
    return row


def invalid(error: ValidationError) -> Refusal:
    """What a body that breaks rules is answered: places and rules, never values.

    A value may be what a user typed.
    """
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    if problems and problems[0]["type"] == "json_invalid":
        message = problems[0]["msg"]
        return Refusal("json_too_deep" if "recursion limit" in message else "malformed_json")
    lines = [f"{_place(one['loc'])}: {one['msg']}" for one in problems[:_TOLD]]
    if len(problems) > _TOLD:
        lines.append(f"and {len(problems) - _TOLD} more")
    long = any(one["type"] == "too_long" for one in problems)
    return Refusal("too_many_items" if long else "invalid_request", "; ".join(lines) or None)


def _place(location: Iterable[int | str]) -> str:
    """``events.3.timestamp``; a field that nobody knows by name is cut to a readable length."""
    parts = [str(part)[:64] for part in location]
    return "".join(one if one.isprintable() else "?" for one in ".".join(parts)) or "body"


def answers(codes: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    """The error answers of one operation, for its OpenAPI document."""
    found: dict[int | str, dict[str, Any]] = {}
    for row in sorted(ERRORS[code] for code in codes):
        line = f"`{row.code}`: {row.message}"
        one = found.setdefault(row.status, {"model": ErrorAnswer, "description": ""})
        one["description"] = f"{one['description']}\n\n{line}".strip()
    return found
