"""Reading the body of a request: JSON as it is, of bounded size."""

from __future__ import annotations

from starlette.types import Receive

from serving.http.error_table import Refusal
from serving.http.exchange import Disconnected, Exchange

__all__ = ["read_body"]


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
