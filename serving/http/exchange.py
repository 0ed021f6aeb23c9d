"""One request as HTTP brings it: headers, key, body; and what the log says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive

from serving.http.error_table import Refusal

__all__ = ["Disconnected", "Exchange", "read_body"]

_BEARER = "bearer "


class Disconnected(Exception):
    """The client went away before its request was whole; there is nobody to answer."""


@dataclass(slots=True)
class Exchange:
    """What is known of a request beside its body.

    Attributes:
        request_id: comes back in the answer and in the log.
        headers: by lower-case name; of several with one name the last.
        route: path of the operation; None: there is none.
        told: goes into the log line; no ids of users or items.
    """

    request_id: str
    headers: dict[bytes, bytes]
    route: str | None = None
    told: dict[str, Any] = field(default_factory=dict)

    def header(self, name: bytes) -> str:
        """A header's value, empty when it is missing."""
        return self.headers.get(name, b"").decode("latin-1")

    def secret(self) -> str | None:
        """The API key that the client sent."""
        given = self.header(b"authorization")
        if given[: len(_BEARER)].lower() == _BEARER:
            return given[len(_BEARER) :].strip()
        return self.header(b"x-api-key") or None


async def read_body(exchange: Exchange, receive: Receive, most: int) -> bytes:
    """The body of a request that declares JSON as it is.

    A request without ``application/json`` is refused: it is what a page of another site could
    make a browser send to a service on this machine.

    Args:
        exchange: of the request.
        receive: gives its parts.
        most: bytes that it may have, whether or not they are declared.

    Raises:
        Refusal: another media type, an encoding, or too many bytes.
        Disconnected: the client went away.
    """
    if exchange.headers.get(b"content-type") != b"application/json":
        _check_media_type(exchange.header(b"content-type"))
    if exchange.header(b"content-encoding").strip().lower() not in ("", "identity"):
        raise Refusal("unsupported_encoding")
    declared = exchange.header(b"content-length")
    if declared.isdecimal() and int(declared) > most:
        raise _too_large(most)
    message = await receive()
    content: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts, size = [content], len(content)
        while message.get("more_body", False) and size <= most:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        content = b"".join(parts)
    if message["type"] == "http.disconnect":
        raise Disconnected
    if len(content) > most:
        raise _too_large(most)
    return content


def _too_large(most: int) -> Refusal:
    return Refusal("body_too_large", f"the body must have at most {most} bytes")


def _check_media_type(given: str) -> None:
    kind, _, rest = given.partition(";")
    parameters = {one.strip().lower().replace('"', "") for one in rest.split(";")} - {""}
    if kind.strip().lower() != "application/json" or not parameters <= {"charset=utf-8"}:
        raise Refusal("unsupported_media_type")
