"""One of several serving processes: ``python -m serving.process.worker '<json>'``.

A supervisor starts it. The JSON value is a `WorkerOrder`; nobody types it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["WorkerOrder", "end_with_parent", "main", "pin"]


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What a worker is told.

    Attributes:
        config: path of the configuration.
        serving: settings of its ``[serving]`` that were given otherwise.
        host: address to listen on,
        port: which the supervisor reserved.
        control: file descriptor of the connection to the supervisor.
        worker: its name.
        directory: where the processes find each other's metrics.
        replaces: one that ended, and others answer meanwhile.
    """

    config: str
    serving: dict[str, Any]
    host: str
    port: int
    control: int
    worker: str
    directory: str
    replaces: bool = False

    def command(self) -> list[str]:
        """The command line that carries the order out."""
        return [sys.executable, "-m", "serving.process.worker", json.dumps(asdict(self))]


def main(text: str) -> int:
    """Serve until told to stop; the exit code.

    Args:
        text: a `WorkerOrder` as JSON.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the server takes over
    order = WorkerOrder(**json.loads(text))
    control = socket.socket(fileno=order.control)
    try:
        from recsys.config import load_config
        from serving.process.listening import join
        from serving.process.server import Place, serve
        from serving.telemetry.text_log import configure_logging

        config = load_config(order.config)
        config = config.model_copy(
            update={"serving": config.serving.model_copy(update=order.serving)}
        )
        configure_logging(config.serving.log_format, worker=order.worker)
        if config.serving.pin_workers:
            pin(order.worker)
        serve(
            config,
            join(order.host, order.port),
            on_ready=lambda: control.sendall(b"ready\n"),
            place=Place(order.worker, Path(order.directory), order.replaces),
            parent=control,
        )
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".replace("\n", " ")
        control.sendall(f"failed {cause}\n".encode())
        return 1
    return 0


def pin(worker: str) -> None:
    """Keep this process, and what it starts from now on, on one of the processors it may use.

    Its threads hand one request on to each other; on processors of their own each begins with
    cold caches. Does nothing where the system cannot.

    Args:
        worker: its number; workers of neighbouring numbers get different processors.
    """
    if hasattr(os, "sched_setaffinity") and worker.isdecimal():
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {usable[int(worker) % len(usable)]})


def end_with_parent(control: int) -> None:
    """Send SIGTERM to this process when the one that started it is gone, however it ended.

    Args:
        control: file descriptor of the connection to it.
    """

    def watch() -> None:
        with socket.socket(fileno=control) as connection:
            while connection.recv(64):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="recsys-parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
