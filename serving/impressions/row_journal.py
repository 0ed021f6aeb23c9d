"""Files of a row log: what a process writes while it runs, and how a dead one's is taken over.

```
_<name>-<host>-<pid>-<random>.tally           what the process accepted; locked while it lives
_<name>-<host>-<pid>-<random>-000001.journal  rows on their way into a Parquet file
<name>-<host>-<pid>-<random>-000001.parquet   finished; never changed
_<name>-<host>-<pid>-<random>.lost.json       what that process did not keep, if anything
```

Readers of directories of Parquet files, such as Arrow and Spark, pass over names that begin with
"_" or ".".

A journal is a header and frames ``length u32 | crc32 u32 | through u64 | Arrow IPC stream``, little
endian. ``through`` counts the rows the process had dealt with up to and with this frame, so that
the tally and the last whole frame say exactly how many rows a kill took.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

__all__ = [
    "Finished",
    "Journal",
    "encode_frame",
    "finish_journal",
    "finished_files",
    "is_stem_of",
    "new_stem",
]

_JOURNAL_MAGIC = b"RSROWS1\n"
_JOURNAL_HEADER = struct.Struct("<8sQ")
_FRAME_HEADER = struct.Struct("<IIQ")
_COUNT = struct.Struct("<Q")


class Journal:
    """One journal being written.

    Args:
        path: where; must not exist.
        base: rows the process had dealt with before.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path, base: int) -> None:
        self.path = path
        self.rows = 0
        self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        self.bytes = 0
        try:
            self._write(_JOURNAL_HEADER.pack(_JOURNAL_MAGIC, base), fsync=False)
        except BaseException:
            os.close(self._descriptor)
            path.unlink(missing_ok=True)
            raise

    def append(self, frame: bytes, rows: int, *, fsync: bool) -> None:
        """Write one frame, whole or not at all.

        Raises:
            OSError: it could not be written; what was written of it is taken back.
        """
        self._write(frame, fsync=fsync)
        self.rows += rows

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _write(self, data: bytes, *, fsync: bool) -> None:
        left, offset = memoryview(data), self.bytes
        try:
            while left:
                done = os.pwrite(self._descriptor, left, offset)
                left, offset = left[done:], offset + done
            if fsync:
                os.fsync(self._descriptor)
        except OSError:
            # A torn frame that stays is written over by the next try, or cut off by the reader.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.bytes)
            raise
        self.bytes = offset


def encode_frame(rows: pl.DataFrame, through: int) -> bytes:
    """A frame of a journal.

    Args:
        rows: what it holds.
        through: rows the process has dealt with once this frame is written.
    """
    buffer = io.BytesIO()
    rows.write_ipc_stream(buffer, compression="lz4")
    payload = buffer.getvalue()
    checked = _COUNT.pack(through) + payload
    return _FRAME_HEADER.pack(len(payload), zlib.crc32(checked), through) + payload


class Finished(NamedTuple):
    """What was in a journal.

    Attributes:
        rows: whole ones.
        base: rows its process had dealt with before it; None: not even the header is whole.
        through: rows dealt with at the last whole frame.
    """

    rows: int
    base: int | None
    through: int


def finish_journal(path: Path) -> Finished:
    """Turn a journal into its Parquet file; the journal stays.

    Frames behind a torn or damaged one are left out. A journal without rows becomes no file.

    Raises:
        OSError: the file could not be written.
    """
    base, through, frames = _read_journal(path)
    rows = sum(frame.height for frame in frames)
    if rows:
        parquet = io.BytesIO()
        pl.concat([frame for frame in frames if frame.height]).write_parquet(parquet)
        target = path.with_name(f"{path.stem.removeprefix('_')}.parquet")
        draft = path.with_name(f".{target.name}.tmp")
        try:
            with draft.open("wb") as file:
                file.write(parquet.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
    return Finished(rows, base, through)


def finished_files(directory: Path | str, name: str) -> list[Path]:
    """Parquet files of a log, sorted by name; files of other names are not its own."""
    return sorted(
        path
        for path in Path(directory).glob(f"{name}-*.parquet")
        if is_stem_of(path.stem.rpartition("-")[0], name)
    )


def new_stem(name: str) -> str:
    """First part of this process's file names; no two are alike, whatever the clock does."""
    host = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())[:40] or "host"
    return f"{name}-{host}-{os.getpid()}-{secrets.token_hex(6)}"


def is_stem_of(stem: str, name: str) -> bool:
    """Whether a file name so begun is one of the log ``name``."""
    return re.fullmatch(rf"{re.escape(name)}-\w+-\d+-[0-9a-f]{{12}}", stem) is not None


def _read_journal(path: Path) -> tuple[int | None, int, list[pl.DataFrame]]:
    """Base, rows dealt with at the last good frame, and the good frames.

    The base is None where not even the header is whole.
    """
    data = path.read_bytes()
    if len(data) < _JOURNAL_HEADER.size:
        return None, 0, []
    magic, base = _JOURNAL_HEADER.unpack_from(data)
    if magic != _JOURNAL_MAGIC:
        return None, 0, []
    through, frames = base, []
    for frame_through, payload in _frames(memoryview(data)[_JOURNAL_HEADER.size :]):
        through = frame_through
        frames.append(pl.read_ipc_stream(io.BytesIO(payload)))
    return base, through, frames


def _frames(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    while len(data) >= _FRAME_HEADER.size:
        length, crc, through = _FRAME_HEADER.unpack_from(data)
        payload = data[_FRAME_HEADER.size : _FRAME_HEADER.size + length]
        if len(payload) < length or zlib.crc32(payload, zlib.crc32(_COUNT.pack(through))) != crc:
            return
        yield through, payload
        data = data[_FRAME_HEADER.size + length :]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
