from __future__ import annotations

import select
import socket

import pytest

from serving.errors import StageUnavailable
from serving.process.listening import bind, join, reserve, shown_url


def test_connections_are_spread_over_the_sockets_of_one_address() -> None:
    reserved = reserve("127.0.0.1", 0)
    address = reserved.getsockname()
    listeners = [join(*address) for _ in range(3)]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    unready = listeners.pop()  # never listens, and gets none
    for listener in listeners:
        listener.listen()
    clients = [socket.create_connection(address) for _ in range(64)]
    accepted = []
    for listener in listeners:
        listener.setblocking(False)
        count = 0
        while select.select([listener], [], [], 0.2)[0]:
            listener.accept()[0].close()
            count += 1
        accepted.append(count)
    assert sum(accepted) == 64
    assert min(accepted) >= 8  # one socket would have all of them
    listeners.pop().close()  # the connections of one that is gone go to the other
    for _ in range(20):
        socket.create_connection(address).close()
    for one in (*clients, *listeners, unready, reserved):
        one.close()


def test_a_taken_address_is_told() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StageUnavailable, match=f"cannot listen on 127.0.0.1:{port}"):
            reserve("127.0.0.1", port)
        assert shown_url("127.0.0.1", taken) == f"http://127.0.0.1:{port}"
    with reserve("127.0.0.1", port), join("127.0.0.1", port) as worker:
        worker.listen()
        with pytest.raises(StageUnavailable, match="cannot listen"):
            reserve("127.0.0.1", port)  # not shared with another server
