"""The process behind `recsys serve`: binds a socket, loads the model, runs the application."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from recsys.artifacts import latest
from recsys.config import Config
from serving.api import create_app
from serving.assembly import LiveModel, make_service
from serving.errors import StageUnavailable

__all__ = ["run"]


def run(config: Config, *, host: str, port: int, on_start: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered first.

    Args:
        config: the run's configuration.
        host: address to listen on.
        port: 0 takes a free one.
        on_start: called with the URL once the socket is bound and the model loaded.

    Raises:
        StageUnavailable: the address is taken or not ours.
    """
    listener = _bind(host, port)
    with listener:
        live = load_live_model(config) if config.serving.live else None
        service = make_service(config, live=live)
        app = create_app(service, max_in_flight=config.serving.max_in_flight)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10)
        )
        shown = f"[{host}]" if ":" in host else host
        on_start(f"http://{shown}:{listener.getsockname()[1]}")
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            # uvicorn has shut down in order and passes the signal on.
            return


def load_live_model(config: Config) -> LiveModel:
    """The newest bundle's model, for requests that say what the user just did; called once.

    Raises:
        ArtifactError: there is no bundle, or it is damaged.
        DataError: the configured files break a rule.
    """
    from recsys.dataset import read_dataset
    from recsys.recommender import Recommender  # loads torch

    bundle = latest(config.output.directory)
    recommender = Recommender.load(bundle.path, interactions=read_dataset(config).interactions)
    live = LiveModel(recommender)
    # The first call compiles and allocates; without this it would miss its deadline.
    live.recommend(recommender.item_ids.ids([1]), 1, user_id=None, exclude=(), only=None)
    return live


def _bind(host: str, port: int) -> socket.socket:
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
