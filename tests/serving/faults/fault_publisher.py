"""Publishes in processes of their own that are killed at a chosen step.

Run as a program it reads one order a line, forks, and says how the fork ended. A step is a command,
or a pipeline of commands, that the publisher sends to the store.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import redis

ROOT = Path(__file__).resolve().parents[3]
LEASE_S = 0.1
DONE, REFUSED = 0, 3
WHERE = ("before it is sent", "half sent", "after it is sent")


class Publishers:
    """Starts publishers that die.

    Args:
        url: of the store.
    """

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def publish(self, generation: str, step: int, where: str) -> int:
        """Publish in a process that kills itself at a step.

        Args:
            generation: see `tests.serving.faults.fault_world.publish`.
            step: which one, from 0.
            where: one of `WHERE`.

        Returns:
            -9 when it was killed, `DONE` when there are fewer steps, `REFUSED` where it was.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([generation, step, where]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __enter__(self) -> Publishers:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def _main(url: str) -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _publish(url, *json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _publish(url: str, generation: str, step: int, where: str) -> None:
    code = 1
    try:
        _die_at(step, where)
        store = GenerationStore(connect(url), lease_s=LEASE_S)
        publish(store, generation)
        code = DONE
    except PublishRefused:
        code = REFUSED
    finally:
        os._exit(code)


def _die_at(step: int, where: str) -> None:
    steps = itertools.count()
    send = redis.connection.AbstractConnection.send_packed_command

    def sending(connection: Any, command: Any, **options: Any) -> None:
        # The thread that renews the lock sends as well.
        counts = threading.current_thread() is threading.main_thread()
        if not counts or next(steps) != step:
            send(connection, command, **options)
            return
        if where != WHERE[0]:
            data = b"".join([command] if isinstance(command, bytes) else command)
            send(connection, [data[: len(data) // 2] if where == WHERE[1] else data], **options)
        os.kill(os.getpid(), signal.SIGKILL)

    redis.connection.AbstractConnection.send_packed_command = sending


if __name__ == "__main__":
    from serving.connection import connect
    from serving.errors import PublishRefused
    from serving.store import GenerationStore
    from tests.serving.faults.fault_world import publish

    _main(sys.argv[1])
