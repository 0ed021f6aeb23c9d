"""One process that answers over HTTP: model, service, application, and how they begin and end."""

from __future__ import annotations

import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from recsys.bundle import Bundle, latest
from recsys.config import Config
from serving.assembly import open_service
from serving.http.api_keys import ApiKeys
from serving.http.app import create_app
from serving.models.holder import ModelHolder
from serving.models.loaded import LoadedModel, load_model
from serving.process.client_limits import MAX_HEAD_BYTES, limited_protocol
from serving.process.draining import DrainingServer
from serving.process.listening import bind, shown_url
from serving.process.warm_up import replay, sample_questions
from serving.request.service import RecommendationService
from serving.telemetry.sharing import WorkerMetrics
from serving.telemetry.text_log import log_event

__all__ = ["Place", "load_live_model", "run", "serve"]

log = logging.getLogger(__name__)

_SWITCH_S = 0.0005
_KEEP_ALIVE_S = 75  # longer than the usual load balancer's minute: it closes first
_MODEL_WAIT_S = 300.0  # for the first model before readiness is asked for without it
_LOOK_S = 0.2  # between two looks for a generation
_ALONE_S = 30.0  # a process that replaces another and finds nothing to serve says so after that
_READ_PARTS = ("recommender.json", "data", "content", "retrieval", "index", "ranking", "features")


@dataclass(frozen=True, slots=True)
class Place:
    """Which of several processes this is.

    Attributes:
        worker: its name.
        directory: where the processes find each other's metrics.
        replaces: one that ended while others answered: it takes no connection before it is warm.
    """

    worker: str
    directory: Path
    replaces: bool = False


class _Phase:
    """Why this process asks for no traffic; None when it does."""

    def __init__(self) -> None:
        self.reason: str | None = "warming_up"

    def held(self) -> str | None:
        return self.reason


def run(config: Config, *, host: str, port: int, on_start: Callable[[str], None]) -> None:
    """Serve from this process alone until SIGINT or SIGTERM; see `serve`.

    Args:
        config: the run's configuration.
        host: address to listen on.
        port: 0 takes a free one.
        on_start: called with the URL once requests are answered as fast as they will be.

    Raises:
        StageUnavailable: the address is taken or not ours.
    """
    with bind(host, port) as listener:
        serve(config, listener, on_ready=lambda: on_start(shown_url(host, listener)))


def serve(
    config: Config,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None],
    place: Place | None = None,
    parent: socket.socket | None = None,
) -> None:
    """Answer on ``listener`` until SIGINT or SIGTERM; requests under way are answered first.

    Args:
        config: the run's configuration.
        listener: a socket that is bound; connections that it takes wait until they are answered.
        on_ready: called once, when the process is warm, or when there is nothing to warm up with.
        place: this process among others. None: it is alone.
        parent: its other end is closed when the process that started this one is gone.
    """
    serving = config.serving
    # A thread that computes gives way soon to the one that reads and writes the sockets.
    sys.setswitchinterval(_SWITCH_S)
    with ExitStack() as ends:
        models = _model_holder(config) if serving.live else None
        service = ends.enter_context(open_service(config, models=models, logged=True))
        telemetry, phase = service.telemetry, _Phase()
        if models is not None:
            ends.callback(models.close)  # before the service, which it asks
            telemetry.watch_models(models.status)
            models.follow(lambda: _served(service))
        shared = None
        if place is not None:
            shared = WorkerMetrics(place.directory, place.worker, telemetry.registry)
            ends.callback(shared.close)
            telemetry.shared = shared
        telemetry.watch_ready(lambda: phase.reason is None and service.not_ready() is None)
        keys = ApiKeys.from_environment()
        keys.warn(listener.getsockname()[0], admin=serving.admin)
        app = create_app(
            service,
            keys=keys,
            admin=serving.admin,
            max_in_flight=serving.max_in_flight,
            max_waiting=serving.max_waiting,
            held=phase.held,
            with_metrics=serving.metrics,
        )

        def drain() -> None:
            phase.reason = "draining"

        ends.callback(drain)
        start = _Start(config, service, models, phase, on_ready, place)
        server = DrainingServer(
            uvicorn.Config(
                app,
                http=limited_protocol(serving.client_timeout_s, telemetry.client_dropped),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nothing here asks for the client's address
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=math.ceil(serving.client_timeout_s),
            ),
            drain_s=serving.drain_s,
            on_drain=drain,
            on_started=start.finish,
        )
        if parent is not None:
            threading.Thread(target=_outlive, args=(parent, server), daemon=True).start()
        try:
            if place is not None and place.replaces:
                start.ahead()
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            pass  # uvicorn has shut down in order and passes the signal on
    log_event(log, "stopped")


def load_live_model(config: Config, generation: str | None = None) -> LoadedModel:
    """A bundle's model, warm.

    Args:
        config: the run's configuration.
        generation: id of the bundle. None: the newest.

    Raises:
        ArtifactError: there is no such bundle, or it is damaged.
    """
    directory = config.output.directory
    bundle = latest(directory) if generation is None else Bundle.load(directory / generation)
    bundle.verify(_READ_PARTS)
    return load_model(bundle.path)


def _model_holder(config: Config) -> ModelHolder[LoadedModel]:
    return ModelHolder(
        lambda generation: load_live_model(config, generation),
        keep=config.serving.live_models,
        stamp=lambda generation: _stamp(config.output.directory / generation),
    )


def _stamp(bundle: Path) -> object:
    """Changes when a file that a model is read from comes, goes or is replaced."""
    try:
        parts = [bundle / part for part in (*_READ_PARTS, "candidates")]
        found = [path for path in parts if path.exists()]
        nested = [one for part in ("retrieval", "ranking") for one in (bundle / part).glob("*")]
        return tuple((str(path), path.stat().st_mtime_ns) for path in [*found, *sorted(nested)])
    except OSError:
        return None


def _served(service: RecommendationService) -> str | None:
    service.not_ready()  # reads the head if it is time to
    return service.served_generation()


class _Start:
    """What a process does before it asks for traffic."""

    def __init__(
        self,
        config: Config,
        service: RecommendationService,
        models: ModelHolder[LoadedModel] | None,
        phase: _Phase,
        on_ready: Callable[[], None],
        place: Place | None,
    ) -> None:
        self._config = config
        self._service = service
        self._models = models
        self._phase = phase
        self._on_ready = on_ready
        self._seed = 0 if place is None else sum(place.worker.encode())

    def ahead(self) -> None:
        """Warm up before the first connection is taken; others answer meanwhile."""
        until = time.monotonic() + _ALONE_S
        while _served(self._service) is None:
            if time.monotonic() >= until:
                return
            time.sleep(_LOOK_S)
        self._warm_up()

    def finish(self) -> None:
        """Warm up where that is still to do, while requests are answered; then tell."""
        told = False
        while _served(self._service) is None and self._phase.reason != "draining":
            self._phase.reason = "no_generation"
            if not told:
                told = True
                log.warning("nothing to serve yet; run `recsys publish`")
                self._on_ready()
            time.sleep(_LOOK_S)
        if self._phase.reason == "draining":
            return
        if self._phase.reason is not None:
            self._phase.reason = "warming_up"
            self._warm_up()
        if not told:
            self._on_ready()

    def _warm_up(self) -> None:
        began = time.perf_counter()
        if self._models is not None:
            self._models.wait(_MODEL_WAIT_S)
        generation = self._service.served_generation() or ""
        questions = sample_questions(
            self._config.output.directory / generation,
            seed=self._seed,
            live=self._models is not None and self._models.current() is not None,
        )
        report = replay(
            lambda question: self._service.recommend_many([question], logged=False),
            questions,
            limit_s=self._config.serving.warm_up_s,
        )
        self._service.telemetry.warmed_up(report.questions, time.perf_counter() - began)
        if self._phase.reason == "warming_up":
            self._phase.reason = None
        log_event(
            log,
            "ready",
            generation=generation,
            startup_s=round(time.perf_counter() - began, 2),
            questions=report.questions,
            failed=report.failed,
            first_ms=round(report.first_ms, 2),
            last_ms=round(report.last_ms, 2),
            steady=report.steady,
        )


def _outlive(parent: socket.socket, server: DrainingServer) -> None:
    """End when the process that started this one has ended, however it did."""
    try:
        while parent.recv(64):
            pass
    except OSError:
        pass
    log.warning("the supervisor is gone")
    server.drain()
