"""Training in two processes: the same model, the same files, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from features.tables import Histories
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.training import launch, train_two_tower
from recsys.retrieval.training.train import EpochReport, TowerOptions, TrainingOptions

NUM_ITEMS = 40
SMALL = TowerOptions(
    dim=16, history_length=10, half_lives=(float("inf"), 3.0), hidden_dim=16, id_dropout=0
)
QUICK = TrainingOptions(epochs=3, batch_size=140, negatives=32, history_dropout=0.0)
World = tuple[Histories, Histories]


def test_two_processes_train_the_model_that_one_does(planted: World, tmp_path: Path) -> None:
    seen, target = planted
    tokens = np.zeros((NUM_ITEMS + 1, 1), dtype=np.int64)
    tokens[1:, 0] = 1 + np.arange(NUM_ITEMS) // 10
    content = np.zeros((NUM_ITEMS + 1, 4), dtype=np.float32)
    content[1:] = np.random.default_rng(0).normal(size=(NUM_ITEMS, 4))
    reports: dict[int, list[EpochReport]] = {1: [], 2: []}
    trained = {
        workers: train_two_tower(
            seen,
            num_items=NUM_ITEMS,
            content=content,
            prefix_tokens=tokens,
            validation=target,
            towers=SMALL,
            training=QUICK.but(epochs=1, batch_size=210),
            workers=workers,
            on_epoch=reports[workers].append,
            timeout_s=90,
        )
        for workers in (1, 2)
    }
    # Two steps: rounding has no time to grow through Adam's division by tiny gradients.
    np.testing.assert_allclose(trained[1].item_vectors, trained[2].item_vectors, atol=1e-3)
    assert set(trained[1].tables) == set(trained[2].tables)
    assert [r.epoch for r in reports[2]] == [1]
    assert reports[1][0].loss == pytest.approx(reports[2][0].loss, rel=1e-3)
    assert reports[1][0].recall == pytest.approx(reports[2][0].recall, abs=0.05)
    assert reports[2][0].recall is not None
    assert reports[2][0].recall > 0.9
    for workers, retriever in trained.items():
        retriever.save(tmp_path / str(workers))
        again = TwoTowerRetriever.load(tmp_path / str(workers))
        np.testing.assert_array_equal(again.item_vectors, retriever.item_vectors)
    names = [sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("1", "2")]
    assert names[0] == names[1]


def test_two_processes_read_sequences_as_one_does(planted: World) -> None:
    one, two = (
        train_two_tower(
            planted[0],
            num_items=NUM_ITEMS,
            towers=SMALL.but(pooling="sequence", reader_dropout=0.0),
            training=QUICK.but(epochs=1, batch_size=210),
            workers=workers,
            timeout_s=90,
        )
        for workers in (1, 2)
    )
    np.testing.assert_allclose(one.item_vectors, two.item_vectors, atol=1e-3)
    np.testing.assert_allclose(
        one.user_vectors(planted[0]), two.user_vectors(planted[0]), atol=5e-3
    )


def test_what_goes_wrong_in_a_process_is_raised_here(planted: World) -> None:
    content = np.zeros((NUM_ITEMS + 1, 4), dtype=np.float32)
    content[1:] = np.inf
    began = time.monotonic()
    with pytest.raises(FloatingPointError, match=r"loss 'sampled_softmax' is nan at step 1"):
        train_two_tower(
            planted[0],
            num_items=NUM_ITEMS,
            content=content,
            towers=SMALL,
            training=QUICK,
            workers=2,
            timeout_s=90,
        )
    assert time.monotonic() - began < 60


def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that `launch` starts from now on."""
    processes: list[subprocess.Popen[bytes]] = []
    start = launch._start

    def recorded(directory: Path, rank: int) -> subprocess.Popen[bytes]:
        processes.append(start(directory, rank))
        return processes[-1]

    monkeypatch.setattr(launch, "_start", recorded)
    return processes


def test_a_killed_process_ends_the_run(planted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = started(monkeypatch)

    def kill() -> None:
        while len(processes) < 2:
            time.sleep(0.01)
        os.kill(processes[1].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    monkeypatch.setattr(launch, "_GRACE_S", 0.2)
    with pytest.raises(RuntimeError, match="training process 1 of 2 ended with exit code -9"):
        train_two_tower(
            planted[0], num_items=NUM_ITEMS, towers=SMALL, training=QUICK, workers=2, timeout_s=90
        )
    killer.join()
    assert all(process.poll() is not None for process in processes)


def test_time_is_limited_and_nothing_is_left(
    planted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = started(monkeypatch)
    with pytest.raises(TimeoutError, match=r"took longer than 0\.5 s"):
        train_two_tower(
            planted[0], num_items=NUM_ITEMS, towers=SMALL, training=QUICK, workers=2, timeout_s=0.5
        )
    assert len(processes) == 2
    assert all(process.poll() is not None for process in processes)


def test_a_worker_ends_when_its_parent_does(tmp_path: Path) -> None:
    job = {"workers": 2, "threads": 1, "seed": 0}
    (tmp_path / "job.json").write_text(json.dumps(job))  # it waits for a peer that never comes
    process = launch._start(tmp_path, 0)
    time.sleep(0.5)
    assert process.poll() is None
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    assert process.wait(timeout=30) == 1
    process.stdout.close()


def test_options_survive_the_job_file() -> None:
    towers = SMALL.but(half_lives=(float("inf"), 3.0))
    training = TrainingOptions(loss="bpr", positive_half_life=30.0, gamma=2.0)
    job = {"towers": dict(towers), "training": dict(training)}
    assert launch.options_from_json(json.loads(json.dumps(job))) == (towers, training)


@pytest.mark.parametrize("changed", [{"smoothing": 0.1}, {"hard_epochs": 1}, {"loss": "mawu"}])
def test_what_looks_at_whole_tables_is_refused(planted: World, changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="workers=1"):
        train_two_tower(
            planted[0],
            num_items=NUM_ITEMS,
            towers=SMALL,
            training=QUICK.but(**changed),
            workers=2,
        )
