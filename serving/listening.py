"""The socket that clients connect to."""

from __future__ import annotations

import socket

from serving.errors import StageUnavailable

__all__ = ["bind", "shown_url"]


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        StageUnavailable: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Listening now: a client that connects while the model loads waits instead of failing.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StageUnavailable(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with --host and "
            "--port",
            stage="http",
        ) from error
    return listener


def shown_url(host: str, listener: socket.socket) -> str:
    """Where a client finds ``listener``."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"
