"""The sockets that clients connect to."""

from __future__ import annotations

import socket

from serving.errors import StageUnavailable

__all__ = ["bind", "join", "reserve", "shown_url"]

_WAITING = 2048


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        StageUnavailable: the address is taken or not ours.
    """
    listener = _bound(host, port, shared=False)
    # Listening now: a client that connects while the model loads waits instead of failing.
    listener.listen(_WAITING)
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """A socket that holds an address for processes that `join` it, and takes no connection itself.

    Raises:
        StageUnavailable: the address is taken or not ours.
    """
    with _bound(host, port, shared=False) as alone:  # another server's port is not shared with it
        port = int(alone.getsockname()[1])
    return _bound(host, port, shared=True)


def join(host: str, port: int) -> socket.socket:
    """A socket on an address that is reserved, beside others; it takes connections once it listens.

    The system spreads the connections between those that listen; processes that accept from one
    socket get what they wake up for. The socket of a process that dies goes with it, and new
    connections go to the others.

    Raises:
        StageUnavailable: the address is not reserved, or not ours.
    """
    return _bound(host, port, shared=True)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
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
