"""What a client may not do to a connection: leave a request half sent, or an answer unread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

__all__ = ["MAX_HEAD_BYTES", "limited_protocol"]

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of a request line and its headers."""
_LOOKS = 4  # in one time limit
_READ_BYTES = 16 * 1024  # of an answer, in one time limit


def limited_protocol(
    timeout_s: float,
    on_drop: Callable[[str], None] = lambda reason: None,
    *,
    protocol: Any = AutoHTTPProtocol,
) -> type[asyncio.Protocol]:
    """A uvicorn HTTP protocol which drops a connection whose client owes something too long.

    A client owes the rest of a request from its first byte on (of a new connection: from its
    beginning), and the reading of an answer from the moment the kernel takes no more of it. It
    has ``timeout_s`` for a request and for every 16 KiB of an answer, and up to a quarter more,
    as a connection is looked at four times in that time. Sending or reading a byte now and then
    is no excuse.

    Args:
        timeout_s: > 0.
        on_drop: called with ``slow_request``, ``slow_reader`` or ``large_head``.
        protocol: of uvicorn, which picks the fastest one installed.
    """

    class LimitedProtocol(protocol):  # type: ignore[misc]
        """See `limited_protocol`."""

        _timer: asyncio.TimerHandle | None = None
        _owed: Hashable = None  # what the client owed at the last look
        _looks = 0  # in a row that it owed that
        _pauses = 0  # times the kernel took no more of an answer
        _head_bytes = 0
        _begun: tuple[
            Any, ...
        ] = ()  # requests without a whole answer, of a client that sent several

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=0)  # be told as soon as bytes are left over
            self._timer = self.loop.call_later(timeout_s / _LOOKS, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)
            for cycle in self._begun:  # uvicorn knows of the newest only
                cycle.disconnected = True

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            begun = (*self._begun, self.cycle)
            self._begun = tuple(one for one in begun if one and not one.response_complete)

        def pause_writing(self) -> None:
            self._pauses += 1
            super().pause_writing()

        def data_received(self, data: bytes) -> None:
            if self._request() is None:
                self._head_bytes = 0
            super().data_received(data)
            if self._is_in_head():
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD_BYTES:
                    self._drop("large_head")
            else:
                self._head_bytes = 0

        def _is_in_head(self) -> bool:
            return self.cycle is None or (
                self.cycle.response_complete and self.timeout_keep_alive_task is None
            )

        def _request(self) -> Hashable:
            """What is missing of a request; None: nothing."""
            if self._is_in_head():
                return ("head", id(self.cycle))
            if self.cycle.more_body and not self.cycle.response_complete:
                return ("body", id(self.cycle))
            return None

        def _look(self) -> None:
            unread = self.transport.get_write_buffer_size()
            owed = (self._pauses, unread // _READ_BYTES) if unread else self._request()
            self._looks = self._looks + 1 if owed is not None and owed == self._owed else 0
            self._owed = owed
            if self._looks >= _LOOKS:
                self._drop("slow_reader" if unread else "slow_request")
            else:
                self._timer = self.loop.call_later(timeout_s / _LOOKS, self._look)

        def _drop(self, reason: str) -> None:
            on_drop(reason)
            self.transport.abort()

    return LimitedProtocol
