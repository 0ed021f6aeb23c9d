"""An HTTP client that asks at given times, whether or not earlier answers have come.

Latency counts from the moment a question was meant to be sent, so a server that stalls is charged
for everybody who waited (Tene, "How NOT to measure latency", 2013). One thread, plain sockets: the
client takes little of the processors that it shares with the server.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

__all__ = ["Load", "ask_at", "ask_closed", "post"]

GIVE_UP_S = 10.0


class Load(NamedTuple):
    """What came back.

    Attributes:
        latency: [n] seconds from the intended moment to the last byte of the answer.
        errors: answers of another status than 200, and questions without an answer.
        degraded: answers that say so.
        seconds: from the first question to the last answer.
    """

    latency: np.ndarray
    errors: int
    degraded: int
    seconds: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.latency.size / self.seconds

    def ms(self, quantile: float) -> float:
        """A quantile of the latency in milliseconds."""
        return float(np.quantile(self.latency, quantile) * 1e3)


def post(path: str, body: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection:
    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=GIVE_UP_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.intended = 0.0
        self._read = bytearray()
        self._whole = -1

    def send(self, request: bytes, intended: float) -> None:
        self.intended = intended
        self._read.clear()
        self._whole = -1
        self.socket.sendall(request)

    def receive(self) -> bytes | None:
        """The answer when it is complete."""
        part = self.socket.recv(262_144)
        if not part:
            raise ConnectionError("the server closed the connection")
        self._read += part
        if self._whole < 0:
            end = self._read.find(b"\r\n\r\n")
            if end < 0:
                return None
            head = bytes(self._read[:end]).lower()
            at = head.index(b"content-length:") + 15
            self._whole = (
                end + 4 + int(head[at : head.find(b"\r\n", at) if b"\r\n" in head[at:] else None])
            )
        return bytes(self._read) if len(self._read) >= self._whole else None


class _Client:
    def __init__(self, url: str, connections: int) -> None:
        parts = urlsplit(url)
        self._address = (str(parts.hostname), int(parts.port or 80))
        self.free = deque(_Connection(self._address) for _ in range(connections))
        self.selector = selectors.SelectSelector()  # epoll would round waits up to milliseconds
        for one in self.free:
            self.selector.register(one.socket, selectors.EVENT_READ, one)
        self.latency: list[float] = []
        self.errors = self.degraded = self.busy = 0

    def ask(self, request: bytes, intended: float) -> None:
        self.free.popleft().send(request, intended)
        self.busy += 1

    def wait(self, timeout: float) -> None:
        for key, _ in self.selector.select(max(timeout, 0.0)):
            one = key.data
            answer = one.receive()
            if answer is None:
                continue
            self.latency.append(time.perf_counter() - one.intended)
            self.errors += not answer.startswith(b"HTTP/1.1 200")
            self.degraded += b'"degraded":true' in answer
            self.busy -= 1
            self.free.append(one)

    def close(self) -> None:
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()

    def load(self, asked: int, seconds: float) -> Load:
        missing = asked - len(self.latency)
        return Load(np.array(self.latency), self.errors + missing, self.degraded, seconds)


def ask_at(
    url: str, requests: Sequence[bytes], moments: np.ndarray, *, connections: int = 64
) -> Load:
    """Send each request at its moment, or as soon as a connection is free.

    Args:
        url: of the server.
        requests: taken in turn.
        moments: [n] seconds from now, rising.
        connections: questions under way at most.
    """
    client = _Client(url, connections)
    began = time.perf_counter()
    asked = 0
    deadline = began + float(moments[-1]) + GIVE_UP_S
    while asked < moments.size or client.busy:
        now = time.perf_counter()
        if now > deadline:
            break
        while asked < moments.size and began + moments[asked] <= now and client.free:
            client.ask(requests[asked % len(requests)], began + float(moments[asked]))
            asked += 1
        due = began + moments[asked] - time.perf_counter() if asked < moments.size else 0.1
        client.wait(float(due) if client.free else 0.1)
    seconds = time.perf_counter() - began
    client.close()
    return client.load(moments.size, seconds)


def ask_closed(url: str, requests: Sequence[bytes], *, seconds: float, connections: int) -> Load:
    """Each connection asks again as soon as it has its answer: how much the server can do."""
    client = _Client(url, connections)
    began = time.perf_counter()
    asked = 0
    while (now := time.perf_counter()) < began + seconds or client.busy:
        while client.free and now < began + seconds:
            client.ask(requests[asked % len(requests)], time.perf_counter())
            asked += 1
        client.wait(0.1)
    took = time.perf_counter() - began
    client.close()
    return client.load(asked, took)
