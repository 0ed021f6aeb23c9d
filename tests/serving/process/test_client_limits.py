"""Clients that misbehave, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.process.client_limits import limited_protocol
from serving.process.draining import DrainingServer
from serving.process.listening import bind

PROTOCOLS = {"h11": H11Protocol}
with contextlib.suppress(ImportError):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    PROTOCOLS["httptools"] = HttpToolsProtocol

LARGE = 12 * 1024 * 1024  # more than both kernels' buffers take
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope, receive, send):
    """Answers /large with much, /slow after a moment, anything else with the size of the body."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    if scope["path"] == "/slow":
        await scope["app_gate"]()
    body = bytes(LARGE) if scope["path"] == "/large" else str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Running:
    """A server in a thread."""

    def __init__(self, application=app, *, timeout_s=0.2, protocol=H11Protocol, drain_s=0.0):
        self.dropped: list[str] = []
        self.drained = threading.Event()
        self.started = threading.Event()
        self.listener = bind("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.server = DrainingServer(
            uvicorn.Config(
                application,
                http=limited_protocol(timeout_s, self.dropped.append, protocol=protocol),
                ws="none",
                loop="asyncio",
                log_config=None,
                timeout_graceful_shutdown=5,
            ),
            drain_s=drain_s,
            on_drain=self.drained.set,
            on_started=self.started.set,
        )
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        assert self.started.wait(10)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def close(self):
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture(params=sorted(PROTOCOLS))
def running(request):
    server = Running(protocol=PROTOCOLS[request.param])
    yield server
    server.close()


def is_closed(client) -> bool:
    """Wait for the other side to close; what it sent before is thrown away."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def answer(client) -> bytes:
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += client.recv(4096) or pytest.fail("closed")
    head, body = received.split(b"\r\n\r\n", 1)
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < size:
        body += client.recv(65536) or pytest.fail("closed")
    assert len(body) == size
    return bytes(body)


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
    ],
    ids=["nothing", "half a line", "half the headers", "half a body"],
)
def test_half_a_request_is_dropped(running, half):
    with running.connect() as client:
        client.sendall(half)
        assert is_closed(client)
    assert running.dropped == ["slow_request"]


def test_a_byte_now_and_then_is_no_excuse(running):
    with running.connect() as client, contextlib.suppress(OSError):
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        while not running.dropped:
            client.sendall(b"y")
            time.sleep(0.02)
    assert running.dropped == ["slow_request"]


def test_half_a_second_request_is_dropped_too(running):
    with running.connect() as client:
        client.sendall(GET % b"/")
        assert answer(client) == b"0"
        client.sendall(b"GET / HTTP/1.1\r\nHo")
        assert is_closed(client)
    assert running.dropped == ["slow_request"]


def test_endless_headers_are_dropped_at_once(running):
    with running.connect() as client, contextlib.suppress(OSError):
        client.sendall(b"GET / HTTP/1.1\r\n")
        for number in range(10_000):
            client.sendall(b"X-%d: %s\r\n" % (number, b"v" * 100))
    with running.connect() as client:
        client.sendall(GET % b"/")
        assert answer(client) == b"0"
    assert running.dropped in (["large_head"], [])  # h11 has a limit of its own


def test_a_client_that_never_reads_is_dropped(running):
    with running.connect() as client:
        client.sendall(GET % b"/large")
        while not running.dropped:
            time.sleep(0.01)
        assert running.dropped == ["slow_reader"]
    while running.server.server_state.connections:
        time.sleep(0.01)
    assert not running.server.server_state.tasks


def test_a_client_that_reads_gets_all_of_it(running):
    with running.connect() as client:
        client.sendall(GET % b"/large")
        assert answer(client) == bytes(LARGE)
        time.sleep(0.5)  # an idle connection owes nothing
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        client.sendall(b"body")
        assert answer(client) == b"4"
    assert running.dropped == []


def test_a_slow_answer_is_not_the_clients_fault():
    import asyncio

    async def slow(scope, receive, send):
        async def gate():
            await asyncio.sleep(0.5)

        await app({**scope, "app_gate": gate}, receive, send)

    server = Running(slow)
    try:
        with server.connect() as client:
            client.sendall(GET % b"/slow")
            assert answer(client) == b"0"
        assert server.dropped == []
    finally:
        server.close()


def test_bad_clients_do_not_hold_up_the_end():
    server = Running(timeout_s=1.0)
    clients = [server.connect() for _ in range(4)]
    for client, sent in zip(
        clients,
        (
            b"GET / HT",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
            GET % b"/large",
            b"",
        ),
        strict=True,
    ):
        client.sendall(sent)
    while len(server.server.server_state.connections) < 4:
        time.sleep(0.01)
    server.server.drain()
    server.thread.join(4)  # less than the 5 s after which uvicorn gives up waiting
    assert not server.thread.is_alive()
    for client in clients:
        client.close()


def test_a_draining_server_answers_and_sends_clients_away():
    server = Running(timeout_s=5, drain_s=60.0)
    with server.connect() as old:
        old.sendall(GET % b"/")
        assert answer(old) == b"0"
        server.server.drain()
        assert server.drained.is_set()
        for client in (old, server.connect()):
            with client:
                client.sendall(GET % b"/")
                received = b""
                while chunk := client.recv(4096):  # to the end: the connection is closed
                    received += chunk
                assert received.lower().count(b"connection: close\r\n") == 1
    assert server.thread.is_alive()
    server.server.handle_exit(15, None)  # the second signal
    server.thread.join(5)
    assert not server.thread.is_alive()


def test_sigint_does_not_wait_for_a_load_balancer():
    server = Running(timeout_s=5, drain_s=60.0)
    server.server.handle_exit(2, None)
    server.thread.join(5)
    assert not server.thread.is_alive()
    assert server.drained.is_set()
