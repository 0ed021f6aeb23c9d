"""How a row log stays whole when its process dies: counts that outlive it, and who takes over."""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from recsys.files.locking import try_lock
from serving.impressions.row_journal import finish_journal, finished_files, is_stem_of

__all__ = ["Loss", "Tally", "expire", "read_losses", "recover", "write_loss"]

_MAGIC = b"RSTALLY1"
_TALLY = struct.Struct("<8sQQQQ")  # accepted, dropped, refused, finished
_COUNT = struct.Struct("<Q")
_ACCEPTED, _DROPPED, _REFUSED, _FINISHED = 8, 16, 24, 32
_TALLY_BYTES = 4096
_STALE_DRAFT_S = 60.0


class Loss(NamedTuple):
    """Rows that one run of a process did not keep.

    Attributes:
        process: first part of its files' names.
        accepted: rows it had taken.
        lost: accepted rows that never reached a file: it was killed before.
        dropped: rows it could not take because its queue was full.
        refused: accepted rows whose values did not fit the columns.
        noticed_at: seconds since the epoch.
    """

    process: str
    accepted: int
    lost: int
    dropped: int
    refused: int
    noticed_at: float


class Tally:
    """Counts of one process in a mapped file, which outlive a kill, and the lock that it lives.

    Args:
        path: where; must not exist.

    Raises:
        OSError: the file cannot be made, for example because the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        draft = _draft(path)
        self._descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        try:
            # Locked before it has its name, so that nobody takes it for a dead process's.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            # Room is taken now: a write into a mapped hole on a full disk would kill the process.
            os.posix_fallocate(self._descriptor, 0, _TALLY_BYTES)
            self._map = mmap.mmap(self._descriptor, _TALLY_BYTES)
            self._map[: _TALLY.size] = _TALLY.pack(_MAGIC, 0, 0, 0, 0)
            os.rename(draft, path)
        except BaseException:
            os.close(self._descriptor)
            draft.unlink(missing_ok=True)
            raise

    def accepted(self, count: int) -> None:
        """Note how many rows were taken so far."""
        _COUNT.pack_into(self._map, _ACCEPTED, count)

    def dropped(self, count: int) -> None:
        """Note how many rows could not be taken so far."""
        _COUNT.pack_into(self._map, _DROPPED, count)

    def refused(self, count: int) -> None:
        """Note how many rows did not fit so far."""
        _COUNT.pack_into(self._map, _REFUSED, count)

    def finished(self, through: int) -> None:
        """Note how many rows are in Parquet files so far."""
        _COUNT.pack_into(self._map, _FINISHED, through)

    def close(self, *, remove: bool) -> None:
        """Release the lock; ``remove`` where nothing is left to take over."""
        if remove:
            self._path.unlink(missing_ok=True)
        self._map.close()
        os.close(self._descriptor)


def recover(directory: Path, name: str) -> list[Loss]:
    """Take over what dead processes left: their journals become Parquet files.

    A process is dead when nobody holds the lock on its tally. Of several callers one does the
    work; a call that was killed itself is repeated by the next one, with the same result.

    Returns:
        One entry for each dead process; those that lost something are also written down.

    Raises:
        OSError: a file could not be written; what was not taken over stays for the next call.
    """
    found = []
    for path in sorted(directory.glob(f"_{name}-*.tally")):
        if is_stem_of(_stem(path), name):
            with _claimed(path) as descriptor:
                if descriptor is not None:
                    found.append(_take_over(path, descriptor))
    for draft in directory.glob(f".{name}-*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > _STALE_DRAFT_S:
                draft.unlink()
    return found


def write_loss(directory: Path, loss: Loss) -> None:
    """Write down what a process did not keep; a second time it says the same."""
    target = _note(directory, loss.process)
    draft = _draft(target)
    draft.write_text(json.dumps(loss._asdict()) + "\n", encoding="utf-8")
    os.replace(draft, target)


def read_losses(directory: Path | str, name: str) -> list[Loss]:
    """What processes of a log did not keep, as far as it was noticed, oldest first.

    Args:
        directory: of the log.
        name: of the log.
    """
    return sorted(
        (
            Loss(**json.loads(path.read_text(encoding="utf-8")))
            for path in Path(directory).glob(f"_{name}-*.lost.json")
            if is_stem_of(_stem(path), name)
        ),
        key=lambda loss: loss.noticed_at,
    )


def expire(directory: Path, name: str, before: float) -> int:
    """Delete a log's finished files, and notes of losses, that were written before a moment.

    Args:
        directory: of the log.
        name: of the log.
        before: seconds since the epoch.

    Returns:
        How many Parquet files went.
    """
    gone = 0
    notes = [
        path for path in directory.glob(f"_{name}-*.lost.json") if is_stem_of(_stem(path), name)
    ]
    for path in [*finished_files(directory, name), *notes]:
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if path.stat().st_mtime < before:
                path.unlink()
                gone += path.suffix == ".parquet"
    return gone


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[int | None]:
    """The tally's descriptor, locked; None where its process lives or another took it over."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        locked = try_lock(descriptor)
        # One that was taken over meanwhile is unlinked: its lock is free and means nothing.
        yield descriptor if locked and os.fstat(descriptor).st_nlink else None
    finally:
        os.close(descriptor)


def _take_over(path: Path, descriptor: int) -> Loss:
    directory, stem = path.parent, _stem(path)
    magic, accepted, dropped, refused, through = _TALLY.unpack(
        os.pread(descriptor, _TALLY.size, 0).ljust(_TALLY.size, b"\0")
    )
    if magic != _MAGIC:
        accepted = dropped = refused = through = 0
    lost = 0
    journals = sorted(directory.glob(f"_{stem}-*.journal"))
    for journal in journals:
        finished = finish_journal(journal)
        if finished.base is not None:
            lost += max(finished.base - through, 0)
            through = max(through, finished.through)
    lost += max(accepted - through, 0)
    loss = Loss(stem, accepted, lost, dropped, refused, time.time())
    note = _note(directory, stem)
    if note.exists():  # whoever wrote it was killed in the next lines
        loss = Loss(**json.loads(note.read_text(encoding="utf-8")))
    elif lost or dropped or refused:
        write_loss(directory, loss)
    os.pwrite(descriptor, _COUNT.pack(accepted), _FINISHED)  # from here on nothing is missing
    for journal in journals:
        journal.unlink()
    path.unlink()
    return loss


def _note(directory: Path, stem: str) -> Path:
    return directory / f"_{stem}.lost.json"


def _stem(path: Path) -> str:
    return path.name.removeprefix("_").partition(".")[0]


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name.removeprefix('_')}.tmp")
