"""An HTTP server that tells the load balancer before it goes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

__all__ = ["DrainingServer"]


class DrainingServer(uvicorn.Server):
    """Ends in three steps.

    1. SIGTERM: ``on_drain`` is called (readiness says no from now on) and requests are answered
       as before, new connections too, for ``drain_s``. Each answer closes its connection, so
       that clients come back through the load balancer.
    2. The socket is closed and requests under way are answered.
    3. The application is shut down.

    SIGINT, which a person sends, begins with the second step; a second signal of either kind
    ends at once, without waiting for anybody.

    Args:
        config: of the server; its ``timeout_graceful_shutdown`` bounds the second step.
        drain_s: of the first step; 0: there is none.
        on_drain: called once, in a signal handler; must be quick.
        on_started: called once when connections are accepted; must be quick.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_s: float = 0.0,
        on_drain: Callable[[], None] = lambda: None,
        on_started: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._drain_s = drain_s
        self._on_drain = on_drain
        self._on_started = on_started
        self._told = False
        self._drains_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What a signal does."""
        if self._drains_until is not None or self.should_exit:
            self.should_exit = self.force_exit = True
            return
        self._captured_signals.append(sig)
        self.drain(0.0 if sig == signal.SIGINT else self._drain_s)

    def drain(self, seconds: float | None = None) -> None:
        """Begin to end, as SIGTERM does; from any thread.

        Args:
            seconds: of the first step. None: as configured.
        """
        seconds = self._drain_s if seconds is None else seconds
        self._drains_until = time.monotonic() + seconds
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers.append((b"connection", b"close"))
        self._on_drain()
        if seconds == 0:
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends the first step."""
        if not self._told:
            self._told = True
            threading.Thread(target=self._on_started, name="recsys-started", daemon=True).start()
        if self._drains_until is not None and time.monotonic() >= self._drains_until:
            self.should_exit = True
        return await super().on_tick(counter)
