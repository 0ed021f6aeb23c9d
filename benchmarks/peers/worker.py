"""A contender in a process of its own, driven epoch by epoch over its standard input.

Nothing but numpy is imported, so that a contender may live in another environment.

    epoch         -> {"epoch": 3, "seconds": 1.25}
    vectors PATH  -> writes user and item vectors to PATH (.npz), {"vectors": PATH}
    stop          -> {"peak_mib": 812.4}, and the process ends
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Vectors = tuple[np.ndarray, np.ndarray]
"""[U, D] and [N + 1, D] float32."""


class Answers:
    """The contender's side: `wait` before each epoch, `report` after it.

    Args:
        vectors: the model as it stands.
    """

    def __init__(self, vectors: Callable[[], Vectors]) -> None:
        self._vectors = vectors
        # Libraries print; the answers keep the real standard output for themselves.
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._say({"ready": True})

    def wait(self) -> bool:
        """Answer commands until the next epoch is asked for; True to stop instead."""
        for line in sys.stdin:
            command, _, path = line.strip().partition(" ")
            if command == "epoch":
                return False
            if command == "vectors":
                user, item = self._vectors()
                np.savez(path, user=user, item=item)
                self._say({"vectors": path})
            if command == "stop":
                break
        self._say({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
        return True

    def report(self, epoch: int, seconds: float) -> None:
        """Answer that the epoch which was asked for is done."""
        self._say({"epoch": epoch, "seconds": seconds})

    def _say(self, answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=self._out, flush=True)


class Worker:
    """The driver's side.

    Args:
        command: argument list of the process.
        environment: variables on top of this process's own.

    Raises:
        RuntimeError: from any call, when the process has ended; with its last words.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, lives as long as the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | environment,
        )
        self._answer()

    def epoch(self) -> float:
        """Train one pass; its seconds."""
        return float(self._ask("epoch")["seconds"])

    def vectors(self) -> Vectors:
        """The model as it stands."""
        with tempfile.TemporaryDirectory() as directory:
            found = np.load(self._ask(f"vectors {Path(directory) / 'vectors.npz'}")["vectors"])
            return found["user"], found["item"]

    def stop(self) -> float:
        """End the process; its peak memory in MiB."""
        peak = float(self._ask("stop")["peak_mib"])
        self._process.wait()
        return peak

    def kill(self) -> None:
        """End the process now, whatever it does."""
        self._process.kill()
        self._process.wait()

    def _ask(self, command: str) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # `_answer` says why
            print(command, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"worker ended with {code}:\n{self._log.read()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found
