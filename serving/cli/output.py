"""What the `recsys` command prints, and how errors become messages and exit codes.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 it failed, 2 the data or the
configuration is wrong, 130 interrupted.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import typer

from serving.telemetry.text_log import DEBUG_VARIABLE, is_debugging

__all__ = ["Output", "reporting", "say", "table"]

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_SHOWN = 60
_INTERRUPTED = (
    "interrupted: nothing half-written is left; the same command continues at the first "
    "unfinished stage"
)


class Output:
    """Prints one result, as text for people or as one JSON value for programs.

    Args:
        as_json: which of the two.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def emit(self, values: Mapping[str, Any], text: str) -> None:
        """Print ``values`` as JSON or else ``text``."""
        say(json.dumps(values, indent=2, default=str) if self.as_json else text)

    def note(self, text: str) -> None:
        """Tell a person what goes on; silent under ``--json``."""
        if not self.as_json:
            say(text, err=True)


@contextmanager
def reporting(as_json: bool) -> Iterator[Output]:
    """Yield the output of a verb; an exception inside becomes a message and an exit code.

    With ``RECSYS_DEBUG=1`` the traceback is printed as well.
    """
    try:
        yield Output(as_json=as_json)
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        say(_INTERRUPTED, err=True)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if is_debugging():
            traceback.print_exc(file=sys.stderr)
        message, code = _explained(error)
        if as_json:
            problems = [asdict(problem) for problem in getattr(error, "problems", ())]
            detail: dict[str, Any] = {"type": type(error).__name__, "message": message}
            if problems:
                detail["problems"] = problems
            say(json.dumps({"error": detail}, indent=2, default=str))
        else:
            say(f"error: {message}", err=True)
        raise typer.Exit(code) from None


def say(text: str, *, err: bool = False) -> None:
    r"""Print a line; what the encoding of the stream lacks is escaped, as in ``\u65e5``."""
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of equal width, numbers to the right.

    >>> print(table(["item", "score"], [["a", 1.5], ["bcd", 10.0]]))
    item   score
    a     1.5000
    bcd  10.0000
    """
    texts = [[_cell(value) for value in row] for row in rows]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        for i in range(len(head))
    ]
    widths = [
        max(len(title), *(len(row[i]) for row in texts)) if texts else len(title)
        for i, title in enumerate(head)
    ]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [list(head), *texts]
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else _CONTROL.sub(" ", str(value))


def _explained(error: Exception) -> tuple[str, int]:
    # Imported here: `recsys --help` needs none of these.
    from features.errors import DataError, UnknownIdError
    from features.whole_files import disk_refusal
    from recsys.errors import ArtifactError, CollapseError, ConfigError, NotFittedError
    from serving.errors import ServingError

    if isinstance(error, DataError | ConfigError):
        return str(error), REFUSED
    if isinstance(error, UnicodeEncodeError) and _SURROGATE.search(error.object):
        shown = ascii(error.object[:_SHOWN])
        return f"arguments and names of files must be UTF-8 text, got {shown}", REFUSED
    refusal = disk_refusal(error)
    if refusal is not None:
        where = f": {refusal.filename}" if refusal.filename else ""
        return (
            f"{refusal.strerror}{where}; make room, or write elsewhere, and run the same command "
            "again: nothing half-written is left",
            FAILED,
        )
    if isinstance(error, MemoryError):
        return f"the memory is full ({error}); give the process more", FAILED
    failures = (
        ArtifactError,
        CollapseError,
        FloatingPointError,
        NotFittedError,
        UnknownIdError,
        ServingError,
        OSError,
    )
    if isinstance(error, failures):
        return str(error), FAILED
    if isinstance(error, ImportError):
        return f"{error}; run `make setup`, or install the extra that is named", FAILED
    return (
        f"{type(error).__name__}: {error} (this should not happen; set {DEBUG_VARIABLE}=1 for the "
        "traceback)",
        FAILED,
    )
