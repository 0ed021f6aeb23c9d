from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

import pytest

from serving.errors import StageUnavailable
from serving.process.supervisor import Child, Supervisor, restart_registry

# A worker as the supervisor sees it: tells on its descriptor, and ends as its arguments say.
PROGRAM = """
import os, signal, socket, sys, time
control = socket.socket(fileno=int(sys.argv[1]))
log, what = sys.argv[2], sys.argv[3]
def note(text):
    with open(log, "a") as file:
        file.write(f"{text} {os.getpid()}\\n")
def on_signal(number, frame):
    note(signal.Signals(number).name)
    if what == "stubborn":
        return
    sys.exit(0)
signal.signal(signal.SIGTERM, on_signal)
signal.signal(signal.SIGINT, on_signal)
note("started")
if what == "fails":
    control.sendall(b"failed ArtifactError: no bundle\\n")
    sys.exit(3)
control.sendall(b"ready\\n")
if what == "crashes once" and open(log).read().count("started") == 1:
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGSEGV)
while control.recv(1) or what == "stubborn":
    time.sleep(0.01)
note("orphaned")
"""


class Pool:
    def __init__(self, directory, *whats, **options):
        self.logs = [directory / f"{number}.log" for number in range(len(whats))]
        self.ready = threading.Event()
        self.children = [
            Child(str(number), self._command(number, what), is_worker=what != "helper")
            for number, what in enumerate(whats)
        ]
        options = {"patience_s": 10.0, **options}
        self.supervisor = Supervisor(self.children, on_ready=self._on_ready, **options)
        self.then: list = []

    def _command(self, number, what):
        return lambda control: [
            sys.executable, "-c", PROGRAM, str(control), str(self.logs[number]), what
        ]  # fmt: skip

    def _on_ready(self):
        self.ready.set()

    def said(self, number, word):
        path = self.logs[number]
        lines = path.read_text().split("\n") if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[:1] == [word]]


def run_until(pool, *steps):
    """Run the supervisor here; a thread goes through ``steps`` and ends it."""

    def drive():
        for step in steps:
            deadline = time.monotonic() + 15
            while not step():
                if time.monotonic() > deadline:
                    problems.append(step)
                    break
                time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    problems: list = []
    thread = threading.Thread(target=drive)
    thread.start()
    try:
        pool.supervisor.run()
    finally:
        thread.join()
    assert not problems


@pytest.fixture(autouse=True)
def _survive_sigterm():
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)


def test_workers_run_until_a_signal_which_is_passed_on(tmp_path):
    pool = Pool(tmp_path, "runs", "runs", "helper")
    run_until(pool, pool.ready.is_set)
    for number in range(3):
        assert pool.said(number, "started") == pool.said(number, "SIGTERM")
    assert pool.supervisor.restarts == {"0": 0, "1": 0, "2": 0}


def test_a_worker_that_dies_is_started_again(tmp_path, caplog):
    pool = Pool(tmp_path, "runs", "crashes once")
    with caplog.at_level(logging.INFO):
        run_until(pool, lambda: len(pool.said(1, "started")) == 2 and pool.children[1].ready)
    first, second = pool.said(1, "started")
    assert pool.said(1, "SIGTERM") == [second] != [first]
    assert len(pool.said(0, "started")) == 1, "the others are left alone"
    assert pool.supervisor.restarts == {"0": 0, "1": 1}
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert record.fields["code"] == -signal.SIGSEGV
    assert record.fields["process"] == "1"
    samples = [one for family in restart_registry(pool.supervisor).collect()
               for one in family.samples]  # fmt: skip
    assert {one.labels["process"]: one.value for one in samples} == {"0": 0, "1": 1}


def test_workers_that_cannot_start_end_it_with_the_cause(tmp_path):
    pool = Pool(tmp_path, "runs", "fails", start_tries=2)
    message = "worker 1 ended 2 times before .*code 3: ArtifactError: no bundle"
    with pytest.raises(StageUnavailable, match=message):
        pool.supervisor.run()
    assert len(pool.said(1, "started")) == 2
    assert len(pool.said(0, "SIGTERM")) == 1, "the others are ended"
    assert not pool.ready.is_set()


def test_a_helper_that_fails_does_not_end_it(tmp_path):
    pool = Pool(tmp_path, "runs", "fails", start_tries=1)
    pool.children[1].is_worker = False
    run_until(pool, pool.ready.is_set, lambda: len(pool.said(1, "started")) >= 2)
    assert pool.supervisor.restarts["1"] >= 1


def test_whoever_does_not_end_is_killed(tmp_path, caplog):
    pool = Pool(tmp_path, "stubborn", "runs", patience_s=0.5)
    run_until(pool, pool.ready.is_set)
    assert pool.said(0, "SIGTERM") == pool.said(0, "started")
    assert "are killed" in caplog.text
    assert all(child.process is None for child in pool.children)


def test_a_second_signal_is_passed_on_as_well(tmp_path):
    pool = Pool(tmp_path, "stubborn", patience_s=60.0)

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        while not pool.said(0, "SIGINT"):
            time.sleep(0.01)
        return True

    import serving.process.supervisor as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_KILL_AFTER_S", 0.3)
        run_until(pool, pool.ready.is_set, twice)
    assert len(pool.said(0, "SIGINT")) == 1
    assert len(pool.said(0, "SIGTERM")) == 1


def test_workers_notice_that_the_supervisor_is_gone(tmp_path):
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from serving.process.supervisor import Child, Supervisor
command = [sys.executable, "-c", {PROGRAM!r}]
child = Child("0", lambda control: [*command, str(control), sys.argv[1], "runs"])
Supervisor([child], on_ready=lambda: print("ready", flush=True)).run()
"""
    import subprocess

    log = tmp_path / "0.log"
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(log)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
    deadline = time.monotonic() + 10
    while "orphaned" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
