"""An append-only log of rows that never makes a request wait, and counts what it does not keep.

A request puts rows into a bounded queue. One thread writes them to a journal every ``flush_s``,
another one turns full journals into Parquet files. Several processes may log into one directory.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import polars as pl

from recsys.config.impressions import RowLogLimits
from serving.impressions.row_finisher import Finisher, Troubles
from serving.impressions.row_journal import Journal, encode_frame, new_stem
from serving.impressions.row_recovery import Loss, Tally, write_loss

__all__ = ["RowLog", "RowLogStats", "Rows"]

log = logging.getLogger(__name__)

FRAME_ROWS = 4096
"""Rows turned into columns at once; more would hold up the interpreter's other threads."""
_WRITE = "write"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Rows(Protocol):
    """Rows of a log; what they hold is asked for by the writer's thread, maybe twice."""

    def __len__(self) -> int:
        """How many."""
        ...

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Values in the order of the schema; times as microseconds since the epoch."""
        ...


class RowLogStats(NamedTuple):
    """Counts of one log in one process, in rows.

    ``accepted = written + refused + pending`` while the writer is at rest.

    Attributes:
        accepted: taken into the queue.
        written: in a journal or a Parquet file.
        dropped: not taken because the queue was full or the log closed.
        refused: taken, but the values did not fit the columns.
        lost_before: accepted by processes that died since and in no file of theirs, as far as
            this process found it; `serving.impressions.row_recovery.read_losses` has all.
        pending: taken and not written yet.
        errors: writes that failed; they are tried again.
        bytes: written to journals.
        files: Parquet files this process finished.
    """

    accepted: int
    written: int
    dropped: int
    refused: int
    lost_before: int
    pending: int
    errors: int
    bytes: int
    files: int


class _Frame(NamedTuple):
    data: bytes
    rows: int
    base: int
    taken: int


class RowLog:
    """Writes rows to Parquet files in a directory, in the background.

    A killed process loses at most what it accepted within ``flush_s`` and the time of one write;
    the next process that opens the directory takes over its journal and says exactly how much is
    missing. While the disk is full rows are kept up to ``queue_rows`` and further ones dropped and
    counted; writing goes on once there is room. Open it after a fork, never before.

    Args:
        directory: made where it is missing. Files of other names in it are left alone.
        schema: the columns and their types.
        name: of the log, small letters, digits and "_"; first part of its files' names.
        limits: of memory, files and time.
        clock: seconds, only differences count.

    Raises:
        ValueError: the name is not plain.
        OSError: the directory cannot be made or written to; a full disk alone is no error.
    """

    def __init__(
        self,
        directory: Path | str,
        schema: Mapping[str, pl.DataType],
        *,
        name: str,
        limits: RowLogLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", name):
            raise ValueError(f"name must be small letters, digits and '_', got {name!r}")
        self.directory = Path(directory)
        self.name = name
        self.limits = RowLogLimits() if limits is None else limits
        self._schema = dict(schema)
        self._clock = clock
        self._stem = new_stem(name)
        self._lock = threading.Lock()  # of the queue, the counts and the tally
        self._queue: deque[Rows] = deque()
        self._accepted = self._written = self._dropped = self._refused = 0
        self._pending = self._bytes = 0
        self._tally: Tally | None = None
        self._closing = False
        self._give_up = 0.0
        self._wake = threading.Event()
        self._troubles = Troubles(f"{name} log in {self.directory}")
        # Of the writer's thread alone.
        self._frame: _Frame | None = None  # encoded and not written yet
        self._through = 0  # rows in frames or refused
        self._journal: Journal | None = None
        self._opened = 0.0
        self._number = 0
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._open_tally()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._troubles.failed(_WRITE, error)
        self._finisher = Finisher(
            self.directory,
            name,
            keep_days=self.limits.keep_days,
            clock=clock,
            on_finished=self._note_finished,
        )
        self._writer = threading.Thread(target=self._run, name=f"{name}-writer", daemon=True)
        self._writer.start()

    def append(self, rows: Rows) -> bool:
        """Take rows, all or none, without waiting for anything.

        Args:
            rows: such as a list of tuples; not to be changed afterwards.

        Returns:
            False when the queue is full or the log closed: the rows are dropped and counted.
        """
        count = len(rows)
        if not count:
            return True
        with self._lock:
            tally = self._tally
            if self._closing or self._pending + count > self.limits.queue_rows:
                self._dropped += count
                if tally is not None:
                    tally.dropped(self._dropped)
                return False
            self._queue.append(rows)
            self._pending += count
            self._accepted += count
            if tally is not None:
                tally.accepted(self._accepted)
            filling = self._pending > self.limits.queue_rows // 2
        if filling and not self._wake.is_set():
            self._wake.set()
        return True

    def stats(self) -> RowLogStats:
        """Counts so far."""
        with self._lock:
            return RowLogStats(
                accepted=self._accepted,
                written=self._written,
                dropped=self._dropped,
                refused=self._refused,
                lost_before=self._finisher.lost_before,
                pending=self._pending,
                errors=self._troubles.count + self._finisher.troubles.count,
                bytes=self._bytes,
                files=self._finisher.files,
            )

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is pending and finish the last file; a second call does nothing.

        What could not be written within ``timeout_s`` is taken over, or counted as lost, by the
        next process that opens the directory.
        """
        with self._lock:
            if self._closing:
                return
            self._give_up = time.monotonic() + timeout_s
            self._closing = True
        self._wake.set()
        self._writer.join(timeout_s + self.limits.flush_s)
        done = self._finisher.close(max(self._give_up - time.monotonic(), self.limits.flush_s))
        stats = self.stats()
        done = done and not stats.pending
        if not done:
            log.error(
                "%s log in %s: closed before all was written, %d rows are missing",
                self.name,
                self.directory,
                stats.pending,
            )
        with self._lock:
            tally, self._tally = self._tally, None
        if tally is None:
            return
        if done and (stats.dropped or stats.refused):
            loss = Loss(self._stem, stats.accepted, 0, stats.dropped, stats.refused, time.time())
            with contextlib.suppress(OSError):
                write_loss(self.directory, loss)
        tally.close(remove=done)

    def _run(self) -> None:
        while True:
            began, closing = self._clock(), self._closing
            try:
                self._write_pending()
                self._rotate(closing)
            except OSError as error:
                self._troubles.failed(_WRITE, error)
            except Exception:  # the log outlives whatever one batch does
                log.exception("%s log in %s: unexpected", self.name, self.directory)
            if not closing:
                left = self.limits.flush_s - (self._clock() - began)
                self._wake.wait(min(max(left, 0.0), self.limits.flush_s))
                self._wake.clear()
            elif not self.stats().pending or time.monotonic() > self._give_up:
                break
            else:
                time.sleep(min(self.limits.flush_s, 0.05))
        if self._journal is not None:
            self._journal.close()

    def _write_pending(self) -> None:
        while True:
            if self._frame is None:
                self._frame = self._next_frame()
            frame = self._frame
            if frame is None:
                return
            if self._journal is None:
                self._journal = self._next_journal(frame.base)
            before = self._journal.bytes
            self._journal.append(frame.data, frame.rows, fsync=self.limits.fsync)
            self._frame = None
            self._troubles.worked(_WRITE)
            with self._lock:
                self._pending -= frame.taken
                self._written += frame.rows
                self._bytes += self._journal.bytes - before
            self._rotate(False)

    def _next_frame(self) -> _Frame | None:
        groups: list[Rows] = []
        taken = 0
        with self._lock:
            while self._queue and (not groups or taken + len(self._queue[0]) <= FRAME_ROWS):
                groups.append(self._queue.popleft())
                taken += len(groups[-1])
        if not groups:
            return None
        try:
            rows = self._columns(groups)
        except Exception:  # whatever was put in, the rows of others are written
            rows = self._fitting(groups)
        base, self._through = self._through, self._through + taken
        return _Frame(encode_frame(rows, self._through), rows.height, base, taken)

    def _columns(self, groups: Sequence[Rows]) -> pl.DataFrame:
        columns = zip(*itertools.chain.from_iterable(groups), strict=True)
        return pl.DataFrame(
            [
                pl.Series(name, values, dtype=dtype)
                for (name, dtype), values in zip(self._schema.items(), columns, strict=True)
            ]
        )

    def _fitting(self, groups: Sequence[Rows]) -> pl.DataFrame:
        """The groups that fit; the others are counted."""
        frames = [pl.DataFrame(schema=self._schema)]
        for group in groups:
            try:
                frames.append(self._columns([group]))
            except Exception as error:
                kind = type(error).__name__  # its text may hold the values
                log.warning("%s log: %d rows do not fit: %s", self.name, len(group), kind)
                with self._lock:
                    self._refused += len(group)
                    if self._tally is not None:
                        self._tally.refused(self._refused)
        return pl.concat(frames)

    def _next_journal(self, base: int) -> Journal:
        if self._tally is None:
            self._open_tally()
        path = self.directory / f"_{self._stem}-{self._number + 1:06d}.journal"
        journal = Journal(path, base)
        self._number += 1
        self._opened = self._clock()
        return journal

    def _rotate(self, now: bool) -> None:
        journal, limits = self._journal, self.limits
        if journal is not None and (
            now
            or journal.rows >= limits.rotate_rows
            or journal.bytes >= limits.rotate_bytes
            or self._clock() - self._opened >= limits.rotate_s
        ):
            self._journal = None
            journal.close()
            self._finisher.finish(journal.path)

    def _open_tally(self) -> None:
        tally = Tally(self.directory / f"_{self._stem}.tally")
        with self._lock:
            tally.accepted(self._accepted)
            tally.dropped(self._dropped)
            tally.refused(self._refused)
            self._tally = tally

    def _note_finished(self, through: int) -> None:
        with self._lock:
            if self._tally is not None:
                self._tally.finished(through)
