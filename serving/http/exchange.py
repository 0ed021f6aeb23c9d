"""One request and its answer, as the shell around the operations sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

__all__ = ["Disconnected", "Exchange", "begin", "exchange_of"]

_KEY = "recsys.exchange"
_BEARER = "bearer "


class Disconnected(Exception):
    """The client went away before its request was whole; there is nobody to answer."""


@dataclass(slots=True)
class Exchange:
    """What is known of a request beside its body.

    Attributes:
        request_id: comes back in the answer and in the log.
        headers: by lower-case name; of several with one name the last.
        route: template of the path; None: no operation matched.
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


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that the gate began for this request."""
    found: Exchange = scope[_KEY]
    return found


def begin(scope: Scope, exchange: Exchange) -> None:
    """Let `exchange_of` find ``exchange``."""
    scope[_KEY] = exchange
