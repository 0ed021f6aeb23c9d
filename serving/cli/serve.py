"""`recsys serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, read_config
from serving.cli.output import reporting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recsys.config import Config

__all__ = ["serve"]


def serve(
    config: ConfigPath = DEFAULT_CONFIG,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that answer on the one port.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="[text|json]", help="Of the log on stderr.")
    ] = None,
    drain: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="SECONDS", help="Answer on, not ready, after SIGTERM before closing."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer over HTTP until stopped; a second signal stops at once."""
    if log_format not in (None, "text", "json"):
        raise typer.BadParameter(f"--log-format must be text or json, got {log_format!r}")
    with reporting(as_json) as out:
        from serving.connection.environment import check_environment
        from serving.http.api_keys import ApiKeys
        from serving.telemetry.text_log import configure_logging

        settings = read_config(config)
        given = {
            "host": host,
            "port": port,
            "workers": workers,
            "log_format": log_format,
            "drain_s": drain,
        }
        update = {name: value for name, value in given.items() if value is not None}
        settings = settings.model_copy(
            update={"serving": settings.serving.model_copy(update=update)}
        )
        serving = settings.serving
        configure_logging(serving.log_format)
        check_environment()
        ApiKeys.from_environment()

        def on_start(url: str) -> None:
            out.emit({"url": url}, f"serving on {url}")

        if serving.workers > 1 or serving.update_features:
            _supervise(settings, config, update, on_start)
        else:
            from serving.process.server import run

            run(settings, host=serving.host, port=serving.port, on_start=on_start)


def _supervise(
    settings: Config, path: Path, given: Mapping[str, object], on_start: Callable[[str], None]
) -> None:
    import contextlib
    import tempfile

    from serving.process.listening import reserve, shown_url
    from serving.process.supervisor import Child, Supervisor, restart_registry
    from serving.process.worker import WorkerOrder
    from serving.telemetry.sharing import WorkerMetrics

    serving = settings.serving
    with contextlib.ExitStack() as opened:
        directory = opened.enter_context(tempfile.TemporaryDirectory(prefix="recsys-"))
        reserved = opened.enter_context(reserve(serving.host, serving.port))
        port = int(reserved.getsockname()[1])

        def worker(name: str) -> Child:
            def command(control: int) -> list[str]:
                replaces = child.was_ready and serving.workers > 1
                order = WorkerOrder(
                    str(path), dict(given), serving.host, port, control, name, directory, replaces
                )
                return order.command()

            child = Child(name, command)
            return child

        children = [worker(str(number)) for number in range(serving.workers)]
        if serving.update_features:
            children.append(Child("features", lambda fd: _follow(path, fd), is_worker=False))
        supervisor = Supervisor(
            children,
            on_ready=lambda: on_start(shown_url(serving.host, reserved)),
            patience_s=serving.drain_s + 2 * serving.client_timeout_s,
        )
        shared = WorkerMetrics(Path(directory), "supervisor", restart_registry(supervisor))
        try:
            supervisor.run()
        finally:
            shared.close()


def _follow(config: Path, control: int) -> list[str]:
    """`recsys features follow`, which ends with the process that started it."""
    import sys

    program = (
        "import sys; from serving.process.worker import end_with_parent; "
        "end_with_parent(int(sys.argv.pop(1))); from serving.cli import main; main()"
    )
    arguments = ["features", "follow", "--config", str(config)]
    return [sys.executable, "-c", program, str(control), *arguments]
