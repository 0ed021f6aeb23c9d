"""Training in several processes on this machine: start them, listen, clean up."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from recsys.errors import CollapseError
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.training.epoch_report import EpochReport
from recsys.retrieval.training.inputs import TrainingInputs
from recsys.retrieval.training.options import TrainingOptions

__all__ = ["options_from_json", "train_in_processes"]

log = logging.getLogger(__name__)

_POLL_S = 0.1
_GRACE_S = 5.0  # between one process's failure and the end of the others
_ERRORS: Mapping[str, type[Exception]] = {
    "CollapseError": CollapseError,
    "FloatingPointError": FloatingPointError,
    "ImportError": ImportError,
    "ValueError": ValueError,
}


def train_in_processes(
    inputs: TrainingInputs,
    *,
    towers: TowerOptions,
    training: TrainingOptions,
    seed: int,
    workers: int,
    timeout_s: float | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> TwoTowerRetriever:
    """`train_two_tower` with ``workers`` gloo processes that talk over the loopback interface.

    No process outlives this call, however it ends; they also end when this process dies.
    """
    with tempfile.TemporaryDirectory(prefix="recsys-train-") as name:
        directory = Path(name)
        inputs.save(directory / "inputs")
        job = {
            "towers": dict(towers),
            "training": dict(training),
            "seed": seed,
            "workers": workers,
            "threads": max(1, torch.get_num_threads() // workers),
        }
        (directory / "job.json").write_text(json.dumps(job))
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(workers):
                processes.append(_start(directory, rank))
            _listen(processes, directory, timeout_s=timeout_s, on_epoch=on_epoch)
        finally:
            _stop(processes)
        return TwoTowerRetriever.load(directory / "retriever")


def options_from_json(job: Mapping[str, Any]) -> tuple[TowerOptions, TrainingOptions]:
    """The options of a job file."""
    return TowerOptions(**job["towers"]), TrainingOptions(**job["training"])


def _start(directory: Path, rank: int) -> subprocess.Popen[bytes]:
    """One worker; it writes what it says to ``stderr-RANK`` and reads nothing."""
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    with (directory / f"stderr-{rank}").open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "recsys.retrieval.training.worker", str(directory), str(rank)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": loopback},
            start_new_session=True,  # Ctrl-C reaches this process, which then stops them
        )


def _listen(
    processes: list[subprocess.Popen[bytes]],
    directory: Path,
    *,
    timeout_s: float | None,
    on_epoch: Callable[[EpochReport], None] | None,
) -> None:
    """Pass epoch reports on until all processes are done; raise when one fails."""
    lines: queue.Queue[bytes] = queue.Queue()
    output = processes[0].stdout
    reader = threading.Thread(target=_forward_lines, args=(output, lines), daemon=True)
    reader.start()
    deadline = time.monotonic() + (float("inf") if timeout_s is None else timeout_s)
    while True:
        running = [process for process in processes if process.poll() is None]
        failed = [rank for rank, process in enumerate(processes) if process.poll()]
        if not running:
            reader.join()
        _report(lines, on_epoch)
        if failed:
            _fail(processes, directory, failed[0])
        if not running:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"training in {len(processes)} processes took longer than {timeout_s} s; raise "
                "timeout_s or train fewer epochs"
            )
        time.sleep(_POLL_S)


def _forward_lines(output: IO[bytes] | None, lines: queue.Queue[bytes]) -> None:
    if output is not None:
        for line in output:
            lines.put(line)


def _report(lines: queue.Queue[bytes], on_epoch: Callable[[EpochReport], None] | None) -> None:
    while not lines.empty():
        line = lines.get()
        try:
            report = EpochReport(**json.loads(line))
        except (ValueError, TypeError):
            log.debug("training process: %s", line.decode(errors="replace").rstrip())
            continue
        log.info("%s", report)
        if on_epoch is not None:
            on_epoch(report)


def _fail(processes: list[subprocess.Popen[bytes]], directory: Path, rank: int) -> None:
    """Raise what the failed process said; its peers fail too, soon after, and less clearly."""
    until = time.monotonic() + _GRACE_S
    while time.monotonic() < until and any(process.poll() is None for process in processes):
        time.sleep(_POLL_S)
    for told in sorted(directory.glob("error-*.json")):
        error = json.loads(told.read_text())
        raise _ERRORS[error["type"]](error["message"])
    said = (directory / f"stderr-{rank}").read_text(errors="replace").strip().splitlines()
    raise RuntimeError(
        f"training process {rank} of {len(processes)} ended with exit code "
        f"{processes[rank].returncode}; its last words: " + " / ".join(said[-3:])
    )


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
    for process in processes:
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
