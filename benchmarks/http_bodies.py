"""What does it cost to read the body of a request: by `serving.http.routes`, and by FastAPI?

Two servers in processes of their own answer `POST /v1/recommend` from memory, in turn asked by one
connection and by four. Both check the same declared body and write the same answer in a thread;
FastAPI's does nothing else, ours also looks for a key, counts and logs.

    python benchmarks/http_bodies.py [--rounds 10] [--seconds 1]
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import multiprocessing.context
import os
import socket
import statistics
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from open_loop import ask_closed, post
from reporting import Report
from starlette.responses import Response
from starlette.types import ASGIApp

from serving.http.answers import recommendations_json
from serving.http.app import create_app
from serving.http.bodies import RecommendBody
from serving.http.workers import Workers
from serving.messages import Recommendations, RecommendedItem, RecommendRequest
from serving.process.client_limits import limited_protocol
from serving.telemetry.metrics import Telemetry

BODY = b'{"user_id": "u77", "k": 10, "exclude": ["i3", "i4"], "context": {"recent_items": ["i7"]}}'
ITEMS = tuple(RecommendedItem(f"i{place}", 1 - place / 100, "tower") for place in range(10))


class Constant:
    """A service that has one answer."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()

    def warm_up(self) -> None:
        """Nothing is cold."""

    def recommend(self, request: RecommendRequest) -> Recommendations:
        """The same items for everybody."""
        return Recommendations(ITEMS, "cache", "g1", request.request_id or "")


def by_fastapi() -> ASGIApp:
    """The operation as FastAPI reads it."""
    app, workers, service = FastAPI(), Workers(32, 64), Constant()

    @app.post("/v1/recommend")
    async def recommend(body: RecommendBody) -> Response:
        found = await workers.run(service.recommend, body.to_request("r"))
        return Response(recommendations_json(found), media_type="application/json")

    return app


def by_routes() -> ASGIApp:
    """The application that production runs."""
    return create_app(Constant())  # type: ignore[arg-type]


KINDS = {"routes": by_routes, "fastapi": by_fastapi}


def serve(kind: str, listener: socket.socket) -> None:
    """Answer until terminated."""
    logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()])
    protocol = limited_protocol(10.0, lambda reason: None)
    config = uvicorn.Config(KINDS[kind](), http=protocol, log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def cpu_s(pid: int) -> float:
    """Processor time that a process has taken, as Linux tells it."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    options = parser.parse_args()
    report = Report("http_bodies", options, ("fastapi", "pydantic", "uvicorn"))
    report.data(f"a body of {len(BODY)} bytes, answers of {len(ITEMS)} items from memory")
    urls: dict[str, str] = {}
    processes: dict[str, multiprocessing.context.ForkProcess] = {}
    for kind in KINDS:
        listener = socket.create_server(("127.0.0.1", 0))
        urls[kind] = f"http://127.0.0.1:{listener.getsockname()[1]}"
        context = multiprocessing.get_context("fork")
        processes[kind] = context.Process(target=serve, args=(kind, listener))
        processes[kind].start()
    asked = [post("/v1/recommend", BODY)]
    p50: dict[str, list[float]] = {kind: [] for kind in KINDS}
    rate: dict[str, list[float]] = {kind: [] for kind in KINDS}
    taken, answers = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0)
    try:
        for url in urls.values():
            ask_closed(url, asked, seconds=options.seconds, connections=1)
        for number in range(options.rounds):
            for kind in sorted(KINDS, reverse=bool(number % 2)):
                before = cpu_s(processes[kind].pid or 0)
                alone = ask_closed(urls[kind], asked, seconds=options.seconds, connections=1)
                four = ask_closed(urls[kind], asked, seconds=options.seconds, connections=4)
                p50[kind].append(alone.ms(0.5))
                rate[kind].append(four.rate)
                taken[kind] += cpu_s(processes[kind].pid or 0) - before
                answers[kind] += alone.latency.size + four.latency.size
    finally:
        for process in processes.values():
            process.terminate()
            process.join()
    rows = [
        {
            "read by": kind,
            "p50 ms, one by one": round(statistics.median(p50[kind]), 2),
            "answers/s": round(statistics.median(rate[kind])),
            "best answers/s": round(max(rate[kind])),
            "CPU us an answer": round(taken[kind] / answers[kind] * 1e6),
        }
        for kind in KINDS
    ]
    report.table(rows)
    report.close(rows=rows)


if __name__ == "__main__":
    main()
