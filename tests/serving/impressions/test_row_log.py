from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from recsys.config.impressions import RowLogLimits
from serving.impressions import row_finisher, row_journal, row_recovery
from serving.impressions.row_journal import Journal, encode_frame, finished_files, new_stem
from serving.impressions.row_log import RowLog
from serving.impressions.row_recovery import Loss, Tally, read_losses, recover

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = {"user_id": pl.String(), "number": pl.Int64(), "moment": pl.Datetime("us")}
QUICK = RowLogLimits(flush_s=0.01)


def rows(start: int, stop: int) -> list[tuple[str, int, int]]:
    return [(f"u{number % 7}", number, number * 1_000_000) for number in range(start, stop)]


def numbers(directory: Path, name: str = "shown") -> list[int]:
    files = finished_files(directory, name)
    return sorted(pl.concat([pl.read_parquet(path) for path in files])["number"]) if files else []


def until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.005)
    pytest.fail("did not happen within 10 s")


@contextlib.contextmanager
def opened(directory: Path, limits: RowLogLimits = QUICK, **options: object) -> Iterator[RowLog]:
    log = RowLog(directory, SCHEMA, name="shown", limits=limits, **options)  # type: ignore[arg-type]
    try:
        yield log
    finally:
        log.close()


def leave_behind(directory: Path, accepted: int, *frames: tuple[int, int], base: int = 0) -> Path:
    """What a killed process leaves: a tally and a journal with rows start..stop a frame."""
    stem = new_stem("shown")
    tally = Tally(directory / f"_{stem}.tally")
    tally.accepted(accepted)
    path = directory / f"_{stem}-000001.journal"
    journal = Journal(path, base)
    for start, stop in frames:
        columns = zip(*rows(start, stop), strict=True)
        frame = pl.DataFrame(
            [
                pl.Series(name, values, dtype=dtype)
                for (name, dtype), values in zip(SCHEMA.items(), columns, strict=True)
            ]
        )
        journal.append(encode_frame(frame, stop), frame.height, fsync=False)
    journal.close()
    tally.close(remove=False)
    return path


def test_closing_writes_everything_and_leaves_parquet_files_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "logs" / "deep", RowLogLimits(flush_s=60.0)) as log:
        assert log.append(rows(0, 10))
        assert log.append([])
        assert log.append(rows(10, 12))
    stats = log.stats()
    assert (stats.accepted, stats.written, stats.pending, stats.files) == (12, 12, 0, 1)
    assert stats.bytes > 0
    (path,) = list((tmp_path / "logs" / "deep").iterdir())
    read = pl.read_parquet(path)
    assert dict(read.schema) == SCHEMA
    assert read.row(11) == ("u4", 11, pl.select(pl.datetime(1970, 1, 1, 0, 0, 11)).item())
    log.close()
    assert not log.append(rows(0, 3)), "a closed log takes nothing"
    assert log.stats().dropped == 3


def test_rows_that_wait_too_long_are_in_the_journal(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.append(rows(0, 5))
        until(lambda: log.stats().pending == 0)
        assert numbers(tmp_path) == []
        assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".journal", ".tally"]


@pytest.mark.parametrize("limit", [{"rotate_rows": 10}, {"rotate_mb": 1e-5}])
def test_a_full_journal_becomes_a_file(tmp_path: Path, limit: dict[str, int]) -> None:
    with opened(tmp_path, RowLogLimits(flush_s=0.01, **limit)) as log:  # type: ignore[arg-type]
        for start in (0, 10, 20):
            log.append(rows(start, start + 10))
            until(lambda count=start // 10 + 1: log.stats().files == count)  # type: ignore[misc]
        assert numbers(tmp_path) == list(range(30))
        assert len(finished_files(tmp_path, "shown")) == 3


def test_a_jump_of_the_wall_clock_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = [0.0]
    limits = RowLogLimits(flush_s=0.01, rotate_minutes=100 / 60, keep_days=1.0)
    real = time.time
    with opened(tmp_path, limits, clock=lambda: ticks[0]) as log:
        for number, jump in enumerate((0.0, 10 * 365 * 86_400.0, -10 * 365 * 86_400.0)):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            log.append(rows(number, number + 1))
            until(lambda: log.stats().pending == 0)
            assert log.stats().files == number, "only the monotonic clock turns a file over"
            ticks[0] += 100.0
            until(lambda count=number + 1: log.stats().files == count)  # type: ignore[misc]
    assert numbers(tmp_path) == [0, 1, 2]


def test_old_files_go_and_those_of_others_stay(tmp_path: Path) -> None:
    other = RowLog(tmp_path, SCHEMA, name="clicks", limits=QUICK)
    other.append(rows(0, 1))
    other.close()
    leave_behind(tmp_path, 5)
    with opened(tmp_path) as log:
        log.append(rows(0, 1))
    (tmp_path / "shown-by-hand.parquet").write_bytes(b"")
    for path in tmp_path.iterdir():
        os.utime(path, (0, time.time() - 2 * 86_400))
    with opened(tmp_path, RowLogLimits(flush_s=0.01, keep_days=3.0)) as log:
        log.append(rows(1, 2))
    assert numbers(tmp_path) == [0, 1]
    with opened(tmp_path, RowLogLimits(flush_s=0.01, keep_days=1.0)):
        pass
    assert numbers(tmp_path) == [1]
    assert read_losses(tmp_path, "shown") == []
    assert numbers(tmp_path, "clicks") == [0]
    assert (tmp_path / "shown-by-hand.parquet").exists()


def test_a_full_queue_drops_and_counts_whole_slates(tmp_path: Path) -> None:
    limits = RowLogLimits(flush_s=60.0, queue_rows=100)
    with opened(tmp_path, limits) as log:
        assert log.append(rows(0, 50))
        assert log.append(rows(0, 101)) is False
        assert log.stats().dropped == 101
    (loss,) = read_losses(tmp_path, "shown")
    assert loss[1:5] == (50, 0, 101, 0)
    assert len(numbers(tmp_path)) == 50


class Broken:
    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[object, ...]]:
        raise AttributeError("secret: not a number")


def test_rows_that_do_not_fit_cost_only_their_slate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path, RowLogLimits(flush_s=60.0)) as log:
        log.append(rows(0, 3))
        log.append([("secret", "not a number", 0)])
        log.append([("u", 1)])
        log.append([("\ud800", 1, 1)])
        log.append(Broken())
        log.append(rows(3, 5))
    stats = log.stats()
    assert (stats.accepted, stats.written, stats.refused, stats.pending) == (9, 5, 4, 0)
    assert numbers(tmp_path) == list(range(5))
    assert "1 rows do not fit" in caplog.text
    assert "not a number" not in caplog.text
    assert read_losses(tmp_path, "shown")[0].refused == 4


def test_many_threads_append_and_nothing_is_missing(tmp_path: Path) -> None:
    limits = RowLogLimits(flush_s=0.01, rotate_rows=2000)
    with opened(tmp_path, limits) as log:

        def work(worker: int) -> None:
            for step in range(100):
                start = worker * 1000 + step * 10
                log.append(rows(start, start + 10))

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert numbers(tmp_path) == list(range(8000))
    assert log.stats().accepted == log.stats().written == 8000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rotate_minutes": 0}, "rotate_minutes must be > 0, got 0"),
        ({"queue_rows": -1}, "queue_rows must be >= 1, got -1"),
        ({"keep_days": 0.0}, r"keep_days must be > 0, got 0\.0"),
    ],
)
def test_a_limit_out_of_range(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RowLogLimits(**values)  # type: ignore[arg-type]


def test_a_name_that_is_not_plain(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name must be small letters.* got 'a-b'"):
        RowLog(tmp_path, SCHEMA, name="a-b")


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        RowLog(tmp_path / "file" / "logs", SCHEMA, name="shown")


# -- killed processes ---------------------------------------------------------------------------

CHILD = """
import os, sys, time
import polars as pl
from serving.impressions.row_log import RowLog, RowLogLimits

SCHEMA = {"user_id": pl.String(), "number": pl.Int64(), "moment": pl.Datetime("us")}
def rows(start, stop):
    return [(f"u{n % 7}", n, n * 1_000_000) for n in range(start, stop)]
def say(*what):
    os.write(1, (" ".join(map(str, what)) + "\\n").encode())
directory = sys.argv[1]
"""


def start(directory: Path, code: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + textwrap.dedent(code), str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def said(child: subprocess.Popen[str]) -> list[str]:
    assert child.stdout is not None
    return child.stdout.readline().split()


def killed(child: subprocess.Popen[str]) -> str:
    child.send_signal(signal.SIGKILL)
    return child.communicate()[0]


def test_a_kill_loses_what_was_not_flushed_and_it_is_counted(tmp_path: Path) -> None:
    child = start(
        tmp_path,
        """
        limits = RowLogLimits(flush_s=60, queue_rows=100)
        log = RowLog(directory, SCHEMA, name="shown", limits=limits)
        log.append(rows(0, 60))  # more than half of the queue is written at once
        while log.stats().pending:
            time.sleep(0.001)
        time.sleep(0.2)  # the writer goes to sleep again
        for start in range(60, 100, 10):
            log.append(rows(start, start + 10))
        log.append(rows(0, 61))  # too many
        say("done")
        time.sleep(60)
        """,
    )
    assert said(child) == ["done"]
    with opened(tmp_path) as log:
        assert numbers(tmp_path) == [], "the owner lives: nobody touches its journal"
        assert log.stats().lost_before == 0
    killed(child)
    with opened(tmp_path) as log:
        until(lambda: log.stats().lost_before > 0)
        assert log.stats().lost_before == 40
        assert numbers(tmp_path) == list(range(60))
    (loss,) = read_losses(tmp_path, "shown")
    assert loss[1:5] == (100, 40, 61, 0)
    assert f"-{child.pid}-" in loss.process
    with opened(tmp_path) as log:
        until(lambda: log.stats().errors == 0)
    assert log.stats().lost_before == 0, "counted once"
    assert {path.suffix for path in tmp_path.iterdir()} == {".parquet", ".json"}


def test_a_kill_in_full_flight_keeps_a_beginning_without_gaps(tmp_path: Path) -> None:
    child = start(
        tmp_path,
        """
        limits = RowLogLimits(flush_s=0.02, rotate_rows=500)
        log = RowLog(directory, SCHEMA, name="shown", limits=limits)
        for start in range(0, 10**9, 10):
            log.append(rows(start, start + 10))
            say(start + 10)
            time.sleep(0.0005)
        """,
    )
    until(lambda: len(finished_files(tmp_path, "shown")) > 2)
    accepted = int(killed(child).split()[-1])
    (loss,) = recover(tmp_path, "shown")
    assert loss.accepted in (accepted, accepted + 10)  # it may have died before it could say so
    kept = numbers(tmp_path)
    assert kept == list(range(loss.accepted - loss.lost))
    assert read_losses(tmp_path, "shown") == ([loss] if loss.lost else [])


def test_processes_share_a_directory_and_take_over_from_the_dead(tmp_path: Path) -> None:
    code = """
        log = RowLog(directory, SCHEMA, name="shown", limits=RowLogLimits(flush_s=0.01))
        for start in range({0}, {0} + 300, 10):
            log.append(rows(start, start + 10))
        while log.stats().pending:
            time.sleep(0.001)
        say("written")
        sys.stdin.read() if {1} else time.sleep(60)
        log.close()
        """
    children = [start(tmp_path, code.format(index * 1000, int(index != 1))) for index in range(3)]
    for child in children:
        assert said(child) == ["written"]
    killed(children[1])
    for child in (children[0], children[2]):
        child.communicate()
        assert child.returncode == 0
    found = [loss for _ in range(2) for loss in recover(tmp_path, "shown")]
    assert [(loss.accepted, loss.lost) for loss in found] in ([(300, 0)], [])
    assert numbers(tmp_path) == [n + base for base in (0, 1000, 2000) for n in range(300)]
    assert {path.suffix for path in tmp_path.iterdir()} == {".parquet"}


def test_two_that_take_over_at_once_do_it_once(tmp_path: Path) -> None:
    for _ in range(5):
        leave_behind(tmp_path, 10, (0, 4))
    found: list[Loss] = []
    threads = [
        threading.Thread(target=lambda: found.extend(recover(tmp_path, "shown"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [loss.lost for loss in found] == [6] * 5
    assert len(read_losses(tmp_path, "shown")) == 5
    assert numbers(tmp_path) == sorted(list(range(4)) * 5)


def test_a_journal_cut_anywhere_gives_its_whole_frames(tmp_path: Path) -> None:
    whole = leave_behind(tmp_path, 9, (0, 3), (3, 5), (5, 9)).read_bytes()
    recover(tmp_path, "shown")
    sizes = set()
    for cut in range(0, len(whole), 37):
        directory = tmp_path / str(cut)
        directory.mkdir()
        leave_behind(directory, 9).write_bytes(whole[:cut])
        (loss,) = recover(directory, "shown")
        kept = numbers(directory)
        assert kept == list(range(len(kept)))
        assert loss.lost == 9 - len(kept)
        sizes.add(len(kept))
    assert sizes == {0, 3, 5}


@pytest.mark.parametrize(("part", "kept"), [(0.0, 0), (0.5, 3), (0.99, 5)])
def test_a_damaged_frame_ends_the_journal(tmp_path: Path, part: float, kept: int) -> None:
    path = leave_behind(tmp_path, 9, (0, 3), (3, 5), (5, 9))
    data = bytearray(path.read_bytes())
    data[int(part * len(data))] ^= 0x10
    path.write_bytes(data)
    (loss,) = recover(tmp_path, "shown")
    assert numbers(tmp_path) == list(range(kept))
    assert loss.lost == 9 - kept


def test_a_damaged_tally_still_gives_the_rows(tmp_path: Path) -> None:
    path = leave_behind(tmp_path, 5, (0, 5))
    path.with_name(path.name.replace("-000001.journal", ".tally")).write_bytes(b"")
    (loss,) = recover(tmp_path, "shown")
    assert numbers(tmp_path) == [0, 1, 2, 3, 4]
    assert (loss.accepted, loss.lost) == (0, 0)


@pytest.mark.parametrize("step", ["write_loss", "pwrite", "journal", "tally"])
def test_taking_over_again_after_a_kill_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    leave_behind(tmp_path, 12, (0, 4), (4, 10))

    class Killed(Exception):
        pass

    real = Path.unlink

    def unlink(path: Path, **options: bool) -> None:
        if path.suffix == f".{step}":
            raise Killed
        real(path, **options)

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if step == "write_loss":
            patch.setattr(row_recovery, "write_loss", die)
        elif step == "pwrite":
            patch.setattr(os, "pwrite", die)
        else:
            patch.setattr(Path, "unlink", unlink)
        with pytest.raises(Killed):
            recover(tmp_path, "shown")
    (loss,) = recover(tmp_path, "shown")
    assert (loss.accepted, loss.lost) == (12, 2)
    assert read_losses(tmp_path, "shown") == [loss]
    assert numbers(tmp_path) == list(range(10))
    assert recover(tmp_path, "shown") == []


# -- a full disk --------------------------------------------------------------------------------


def test_a_full_disk_holds_nobody_up_and_writing_goes_on(tmp_path: Path) -> None:
    # The kernel refuses to let any file of the child grow beyond the limit.
    child = start(
        tmp_path,
        """
        import resource, secrets
        limits = RowLogLimits(flush_s=0.01, queue_rows=2000)
        log = RowLog(directory, SCHEMA, name="shown", limits=limits)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        number = 0
        while not log.stats().dropped:
            if log.append([(secrets.token_hex(20), number, 0)]):
                number += 1
            time.sleep(0.0001)
        full = log.stats()
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        while log.stats().pending:
            time.sleep(0.01)
        assert log.append([("after", number, 0)])
        log.close()
        after = log.stats()
        say(full.errors > 0, full.pending, number + 1 == after.accepted == after.written)
        """,
    )
    out, _ = child.communicate()
    errors, pending, complete = out.split()
    assert (errors, complete) == ("True", "True")
    assert int(pending) > 1000
    kept = numbers(tmp_path)
    assert kept == list(range(len(kept)))
    assert len(kept) > 2000
    (loss,) = read_losses(tmp_path, "shown")
    assert (loss.accepted, loss.lost) == (len(kept), 0)
    assert loss.dropped >= 1


def no_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_frame_torn_by_a_full_disk_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.pwrite
    calls = []

    def half(descriptor: int, data: memoryview, offset: int) -> int:
        calls.append(len(data))
        return real(descriptor, data[: len(data) // 2], offset) if len(calls) % 2 else no_room()

    with opened(tmp_path) as log:
        log.append(rows(0, 5))
        until(lambda: log.stats().pending == 0)
        (journal,) = tmp_path.glob("*.journal")
        size = journal.stat().st_size
        monkeypatch.setattr(os, "pwrite", half)
        log.append(rows(5, 9))
        until(lambda: log.stats().errors >= 3)
        monkeypatch.setattr(os, "pwrite", real)
        until(lambda: log.stats().pending == 0)
        assert journal.stat().st_size > size
    assert numbers(tmp_path) == list(range(9))
    assert log.stats().written == 9
    told = [record.getMessage() for record in caplog.records]
    assert sum("cannot write" in line for line in told) == 1, "told once, not at every try"
    assert sum("can write again" in line for line in told) == 1


def test_a_disk_that_is_full_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_room)
        log = RowLog(tmp_path, SCHEMA, name="shown", limits=QUICK)
        log.append(rows(0, 5))
        until(lambda: log.stats().errors >= 2)
        assert log.stats().pending == 5
    until(lambda: log.stats().pending == 0)
    log.close()
    assert numbers(tmp_path) == list(range(5))
    assert {path.suffix for path in tmp_path.iterdir()} == {".parquet"}


def test_a_file_that_cannot_be_finished_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_finisher, "_PAUSE_S", 0.01)
    with opened(tmp_path, RowLogLimits(flush_s=0.01, rotate_rows=2)) as log:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", no_room)
            log.append(rows(0, 3))
            until(lambda: log.stats().errors >= 3)
            log.append(rows(3, 6))
            until(lambda: log.stats().written == 6)
            assert numbers(tmp_path) == []
        until(lambda: log.stats().files == 2)
    assert numbers(tmp_path) == list(range(6))


def test_closing_on_a_full_disk_leaves_the_rest_to_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        log = RowLog(tmp_path, SCHEMA, name="shown", limits=QUICK)
        log.append(rows(0, 4))
        until(lambda: log.stats().pending == 0)
        patch.setattr(os, "pwrite", no_room)
        log.append(rows(4, 9))
        log.close(timeout_s=0.1)
        assert log.stats().pending == 5
    (loss,) = recover(tmp_path, "shown")
    assert (loss.accepted, loss.lost) == (9, 5)
    assert numbers(tmp_path) == [0, 1, 2, 3]


def test_fsync_is_called_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(row_journal.os, "fsync", synced.append)
    with opened(tmp_path / "a", RowLogLimits(flush_s=0.01, fsync=True)) as log:
        log.append(rows(0, 1))
        until(lambda: log.stats().pending == 0)
        assert len(synced) == 1
    synced.clear()
    with opened(tmp_path / "b") as log:
        log.append(rows(0, 1))
        until(lambda: log.stats().pending == 0)
        assert synced == []


def test_notes_of_losses_are_plain_json(tmp_path: Path) -> None:
    leave_behind(tmp_path, 3)
    recover(tmp_path, "shown")
    (path,) = tmp_path.glob("*.lost.json")
    assert json.loads(path.read_text())["lost"] == 3
