"""The sockets that clients connect to."""

from __future__ import annotations

import socket

from serving.errors import StageUnavailable

__all__ = ["bind", "bind_each", "shown_url"]


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        StageUnavailable: the address is taken or not ours.
    """
    return _listen(host, port, shared=False)


def bind_each(host: str, port: int, count: int) -> list[socket.socket]:
    """Sockets that listen on one address, between which the system spreads the connections.

    Processes that accept from one socket do not: the one that wakes first takes all that wait. The
    connections of a process that dies wait in its socket for the next one.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        count: how many, >= 1.

    Raises:
        StageUnavailable: the address is taken or not ours.
    """
    if count == 1 or not hasattr(socket, "SO_REUSEPORT"):
        return [bind(host, port)] * count
    with _listen(host, port, shared=False) as alone:  # another server's port is not shared with it
        port = alone.getsockname()[1]
    listeners: list[socket.socket] = []
    try:
        for _ in range(count):
            listeners.append(_listen(host, port, shared=True))
    except StageUnavailable:
        for one in listeners:
            one.close()
        raise
    return listeners


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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
