"""The files that a path names, and their bytes and text."""

from __future__ import annotations

import glob
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from features.errors import DataError
from features.tables.reading.options import Compression, ReadOptions
from features.tables.reading.remote import File, RemoteFile
from features.whole_files import is_text

__all__ = ["BLOCK", "as_utf8", "expand", "first_block", "open_bytes", "open_text"]

BLOCK = 1 << 18
"""Bytes that are looked at to find how a file is written."""

_CHARACTERS = 1 << 22
_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def expand(path: File) -> list[File]:
    """The files of a path, a directory or a pattern, sorted; hidden ones and ``_SUCCESS`` not.

    Raises:
        DataError: a directory or a pattern holds no file, or it must not be looked into.
        FileNotFoundError: there is no such file.
    """
    found = list[File](path.expand()) if isinstance(path, RemoteFile) else _local(path)
    for file in found:
        if not is_text(str(file)):
            raise DataError(f"{file}: names of files must be UTF-8 text; rename it")
    return found


def _local(path: Path) -> list[File]:
    try:
        if path.is_file():
            return [path]
        if path.is_dir():
            found = list[File](_below(path))
            if not found:
                raise DataError(f"{path}: the directory must hold files, got none; check the path")
            return found
    except PermissionError:
        raise DataError(f"{path}: must be readable, got no permission; change its mode") from None
    if any(mark in str(path) for mark in "*?["):
        named = (Path(name) for name in sorted(glob.glob(str(path), recursive=True)))
        matched: list[File] = [
            file for one in named for file in ([one] if one.is_file() else _below(one))
        ]
        if not matched:
            raise DataError(f"{path}: a file must match the pattern, got none; check the pattern")
        return matched
    raise FileNotFoundError(f"{path}: no such file; check the path")


def _below(directory: Path) -> list[Path]:
    return [
        one
        for one in sorted(directory.rglob("*"))
        if one.is_file() and not any(p[0] in "._" for p in one.relative_to(directory).parts)
    ]


def compression_of(path: File) -> Compression:
    """What the first bytes say."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "none")


@contextmanager
def open_bytes(path: File, compression: Compression | None) -> Iterator[BinaryIO]:
    """The bytes of a file as they were before it was compressed; None: find how it was.

    Raises:
        DataError: the file must not be read, is cut off, or is compressed otherwise.
    """
    try:
        compression = compression or compression_of(path)
        with _opened(path, compression) as file:
            yield file
    except PermissionError:
        raise DataError(f"{path}: must be readable, got no permission; change its mode") from None
    except (EOFError, zlib.error):
        raise DataError(f"{path}: {_cut_off('gzip')}") from None
    except gzip.BadGzipFile as error:
        raise DataError(f"{path}: must be a gzip file, got: {error}; copy it again") from None
    except OSError as error:
        if compression != "zstd":
            raise
        raise DataError(f"{path}: {_cut_off('zstd')} ({error})") from None


def _cut_off(kind: str) -> str:
    return f"must be a whole {kind} file, got one that is cut off or damaged; copy it again"


def _opened(path: File, compression: Compression) -> BinaryIO:
    source = path.open("rb") if isinstance(path, RemoteFile) else str(path)
    if compression == "gzip":
        return cast("BinaryIO", gzip.open(source, "rb"))
    if compression == "zstd":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(source, compression="zstd"), 1 << 16)
    return path.open("rb")


def first_block(path: File, compression: Compression | None) -> bytes:
    """The first bytes; errors as of `open_bytes`."""
    with open_bytes(path, compression) as file:
        return file.read(BLOCK)


@contextmanager
def open_text(
    path: File, found: ReadOptions, *, strict: bool = False
) -> Iterator[io.TextIOWrapper]:
    """The text of a file; what is no text of the encoding is marked.

    It begins behind the lines that are skipped. In UTF-8 bytes that are none are lone surrogates,
    in other encodings U+FFFD; there they raise an error if ``strict``.
    """
    encoding = found.encoding or "utf-8"
    plain = encoding == "utf-8"
    with (
        open_bytes(path, found.compression) as file,
        io.TextIOWrapper(
            cast("io.BufferedReader", file),
            encoding="utf-8-sig" if plain else encoding,
            errors="surrogateescape" if plain else "strict" if strict else "replace",
            newline="",
        ) as text,
    ):
        for _ in range(found.skip_lines or 0):
            text.readline()
        yield text


def as_utf8(path: File, found: ReadOptions) -> io.BytesIO:
    """The text of a file in UTF-8, without a mark; bytes of a UTF-8 file are as they are.

    Raises:
        UnicodeError: the file is not of the encoding.
    """
    held = io.BytesIO()
    with open_text(path, found, strict=True) as text:
        while part := text.read(_CHARACTERS):
            held.write(part.encode("utf-8", errors="surrogateescape"))
    held.seek(0)
    return held
