"""What every benchmark prints: the machine and the settings, tables, and one JSON line at the end.

The last line of standard output is::

    {"benchmark": ..., "machine": ..., "settings": {...}, "data": ..., "seconds": ...,
     "results": {...}, "bars": {NAME: {"value": ..., "bar": ">= 6", "holds": true}}, "holds": true}

A bar is a number that was decided on before measuring. Progress goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["Report", "add_threads", "say", "text_of"]

_SIGNS: Mapping[str, tuple[str, Callable[[float, float], bool]]] = {
    "at_least": (">=", operator.ge),
    "at_most": ("<=", operator.le),
    "above": (">", operator.gt),
    "below": ("<", operator.lt),
    "equal_to": ("=", operator.eq),
}


class Report:
    """Says on what it runs when made, and what came out when closed.

    Args:
        benchmark: name of its file.
        options: what it was called with.
        packages: distributions whose versions matter, besides numpy.
    """

    def __init__(
        self, benchmark: str, options: argparse.Namespace, packages: Sequence[str] = ()
    ) -> None:
        self._began = time.perf_counter()
        versions = [f"{name} {version(name)}" for name in ("numpy", *packages)]
        python = f"Python {platform.python_version()}"
        machine = ", ".join([_processor(), f"{os.cpu_count()} cores", python, *versions])
        settings = {name: value for name, value in vars(options).items() if value is not None}
        self._found: dict[str, Any] = {
            "benchmark": benchmark,
            "machine": machine,
            "settings": settings,
        }
        self._bars: dict[str, dict[str, Any]] = {}
        print(f"machine: {machine}")
        print(f"settings: {text_of(settings)}", flush=True)

    def data(self, text: str) -> None:
        """Say what is measured on."""
        self._found["data"] = text
        print(f"data: {text}", flush=True)

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        """Print ``rows``; ``columns`` are those of the first row unless given."""
        names = list(columns or rows[0])
        lines = [names, *([text_of(row.get(name)) for name in names] for row in rows)]
        width = [max(len(line[place]) for line in lines) for place in range(len(names))]
        print()
        for line in lines:
            cells = [cell.rjust(most) for cell, most in zip(line[1:], width[1:], strict=True)]
            print("  ".join([line[0].ljust(width[0]), *cells]).rstrip())
        sys.stdout.flush()

    def bar(self, name: str, value: float, **bounds: float) -> None:
        """Hold ``value`` against bounds, by the names of `_SIGNS`; NaN misses."""
        text = " and ".join(f"{_SIGNS[bound][0]} {limit:g}" for bound, limit in bounds.items())
        holds = all(_SIGNS[bound][1](value, limit) for bound, limit in bounds.items())
        self.judged(name, value, text, holds=holds)

    def judged(self, name: str, value: float, bar: str, *, holds: bool) -> None:
        """A bar that is no comparison of two numbers: ``bar`` says what it is."""
        if name in self._bars:
            raise ValueError(f"name must be new, got {name!r} twice; say what tells them apart")
        shown: float | None = value
        if not isinstance(value, int):
            shown = float(f"{value:.6g}") if math.isfinite(value) else None
        self._bars[name] = {"value": shown, "bar": bar, "holds": bool(holds)}

    def close(self, **results: Any) -> None:
        """Print the bars, how long it took, and the JSON line with ``results`` in it."""
        print()
        for name, bar in self._bars.items():
            state = "held" if bar["holds"] else "MISSED"
            print(f"{state:6s}  {name}: {text_of(bar['value'])} (bar {bar['bar']})")
        seconds = time.perf_counter() - self._began
        print(f"it took {seconds:.0f} s")
        last = {
            "seconds": round(seconds, 1),
            "results": results,
            "bars": self._bars,
            "holds": all(bar["holds"] for bar in self._bars.values()),
        }
        print(json.dumps(self._found | last, default=str), flush=True)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The option ``--threads``."""
    parser.add_argument("--threads", type=int, default=1, help="of torch; default 1")


def say(text: str) -> None:
    """Progress, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def text_of(value: Any) -> str:
    """A value as people read it: thousands apart, pairs as ranges, - for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool | str | Path):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text_of(one)}" for name, one in value.items())
    if isinstance(value, Sequence):
        return " ".join(text_of(one) for one in value)
    return f"{value:,}"


def _processor() -> str:
    """The model where Linux tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {models[0]}" if models else platform.machine()
