"""The log of a serving process, for people or one JSON object a line; no user content in either."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

__all__ = ["DEBUG_VARIABLE", "configure_logging", "is_debugging", "log_event"]

DEBUG_VARIABLE = "RECSYS_DEBUG"

_NOISY = ("asyncio", "uvicorn.error", "uvicorn.access")
_REQUESTS = "serving.access"


def is_debugging() -> bool:
    """Whether ``RECSYS_DEBUG`` is set to anything but a no."""
    return os.environ.get(DEBUG_VARIABLE, "").strip().lower() not in ("", "0", "false", "no", "off")


def configure_logging(
    style: Literal["text", "json"] = "text",
    *,
    worker: str | None = None,
    stream: IO[str] | None = None,
) -> None:
    """Send the log of this process to one stream; called once, before anything is logged.

    Our own packages are heard from INFO on, others from WARNING on, requests that were not slow
    not at all. ``RECSYS_DEBUG=1`` shows everything.

    Args:
        style: ``text`` for people, ``json`` for collectors.
        worker: name of the process in every line. None: there is one only.
        stream: None: stderr.
    """
    debug = is_debugging()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json(worker, debug) if style == "json" else _Text(worker, debug))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("serving", "recsys", "features"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger(_REQUESTS).setLevel(logging.INFO if debug else logging.WARNING)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def log_event(
    log: logging.Logger, event: str, *, level: int = logging.INFO, **fields: object
) -> None:
    """Log something with its facts, which the JSON line holds by name.

    Args:
        log: of the module.
        event: what happened, in plain words; the same for every such event.
        level: of the line.
        **fields: plain JSON values, never ids of users or items.
    """
    if log.isEnabledFor(level):
        log.log(level, "%s", event, extra={"fields": fields}, stacklevel=2)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    found: dict[str, object] = getattr(record, "fields", {})
    return found


class _Line(logging.Formatter):
    def __init__(self, worker: str | None, debug: bool) -> None:
        super().__init__()
        self._worker = worker
        self._debug = debug

    def _error(self, record: logging.LogRecord) -> dict[str, object] | None:
        """What was raised and where; its text may hold an id, so only for debugging."""
        if record.exc_info is None or record.exc_info[1] is None:
            return None
        error = record.exc_info[1]
        frames = [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        told: dict[str, object] = {"type": type(error).__name__, "at": frames}
        if self._debug:
            told["message"] = str(error)
        return told


class _Json(_Line):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if self._worker is not None:
            line["worker"] = self._worker
        error = self._error(record)
        if error is not None:
            line["error"] = error
        return json.dumps(line, default=str)


class _Text(_Line):
    def format(self, record: logging.LogRecord) -> str:
        facts = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        parts = [_moment(record), record.levelname, record.getMessage(), facts]
        if self._worker is not None:
            parts.insert(2, f"[{self._worker}]")
        error = self._error(record)
        if error is not None:
            parts.append(json.dumps(error))
        return " ".join(part for part in parts if part)


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
