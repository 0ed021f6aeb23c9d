from __future__ import annotations

import select
import socket

import pytest

from serving.errors import StageUnavailable
from serving.listening import bind, bind_each, shown_url


def test_connections_are_spread_over_the_sockets_of_one_address() -> None:
    listeners = bind_each("127.0.0.1", 0, 2)
    address = listeners[0].getsockname()
    assert listeners[1].getsockname() == address
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
    for one in (*clients, *listeners):
        one.close()


def test_a_taken_address_is_told() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        for count in (1, 3):
            with pytest.raises(StageUnavailable, match=f"cannot listen on 127.0.0.1:{port}"):
                bind_each("127.0.0.1", port, count)
        assert shown_url("127.0.0.1", taken) == f"http://127.0.0.1:{port}"
    others = bind_each("127.0.0.1", port, 2)
    with pytest.raises(StageUnavailable, match="cannot listen"):  # not shared with another server
        bind_each("127.0.0.1", port, 2)
    for one in others:
        one.close()
