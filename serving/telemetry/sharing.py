"""Metrics of several processes behind one port: whoever is scraped asks the others.

Every process of a service leaves a Unix socket in one directory and answers there with its own
families. The samples of each get a label ``worker`` and are not summed here: a worker that is
started again begins at zero, which ``rate()`` understands of one worker's series and of a sum it
does not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Exemplar, GaugeMetricFamily, Metric

__all__ = ["WorkerMetrics"]

log = logging.getLogger(__name__)

_SUFFIX = ".metrics"


class WorkerMetrics:
    """Answers for one process and asks the others.

    Args:
        directory: where the sockets are; only its owner may enter, and its path is short enough
            for a socket.
        worker: name of this process, unique in the directory.
        registry: what it answers with.
        timeout_s: for the others to answer, all at once.
    """

    def __init__(
        self, directory: Path, worker: str, registry: CollectorRegistry, *, timeout_s: float = 0.5
    ) -> None:
        self._directory = directory
        self._worker = worker
        self._registry = registry
        self._timeout_s = timeout_s
        self._path = directory / f"{worker}{_SUFFIX}"
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen(16)
        threading.Thread(target=self._answer, name="recsys-metrics", daemon=True).start()

    def gather(self, own: CollectorRegistry) -> list[Metric]:
        """The families of this process and of the others, each sample with its ``worker``.

        ``recsys_worker_up`` is 0 for a process that did not answer in time.

        Args:
            own: registry of this process.
        """
        names = sorted(path.stem for path in self._directory.glob(f"*{_SUFFIX}"))
        others = [name for name in names if name != self._worker]
        until = time.monotonic() + self._timeout_s
        with ThreadPoolExecutor(max(1, len(others))) as pool:
            answers = list(pool.map(lambda name: self._asked(name, until), others))
        merged: dict[str, Metric] = {}
        up = GaugeMetricFamily("recsys_worker_up", "1 when it answered.", labels=["worker"])
        _merge(merged, list(own.collect()), self._worker)
        up.add_metric([self._worker], 1.0)
        for name, answer in zip(others, answers, strict=True):
            up.add_metric([name], float(answer is not None))
            _merge(merged, answer or [], name)
        return [*merged.values(), up]

    def close(self) -> None:
        """Stop answering."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _answer(self) -> None:
        while True:
            try:
                asking, _ = self._listener.accept()
            except OSError:
                return
            with asking:
                try:
                    asking.settimeout(self._timeout_s)
                    asking.sendall(json.dumps(_to_json(self._registry.collect())).encode())
                except Exception as error:
                    log.warning("a scrape of another process failed: %s", error)

    def _asked(self, name: str, until: float) -> list[Metric] | None:
        chunks = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            try:
                asked.settimeout(max(0.001, until - time.monotonic()))
                asked.connect(str(self._directory / f"{name}{_SUFFIX}"))
                while chunk := asked.recv(1 << 16):
                    chunks.append(chunk)
                    asked.settimeout(max(0.001, until - time.monotonic()))
                return _from_json(json.loads(b"".join(chunks)))
            except (OSError, ValueError):
                return None


def _merge(merged: dict[str, Metric], families: list[Metric], worker: str) -> None:
    for family in families:
        into = merged.setdefault(
            family.name, Metric(family.name, family.documentation, family.type, family.unit)
        )
        into.samples += [
            sample._replace(labels={**sample.labels, "worker": worker}) for sample in family.samples
        ]


def _to_json(families: Any) -> list[Any]:
    return [
        [
            family.name,
            family.documentation,
            family.type,
            family.unit,
            [
                [
                    sample.name,
                    sample.labels,
                    float(sample.value),
                    None if sample.exemplar is None else list(sample.exemplar),
                ]
                for sample in family.samples
            ],
        ]
        for family in families
    ]


def _from_json(values: list[Any]) -> list[Metric]:
    families = []
    for name, documentation, kind, unit, samples in values:
        family = Metric(name, documentation, kind, unit)
        for sample, labels, value, exemplar in samples:
            family.add_sample(
                sample,
                labels,
                value,
                exemplar=None if exemplar is None else Exemplar(*exemplar),
            )
        families.append(family)
    return families
