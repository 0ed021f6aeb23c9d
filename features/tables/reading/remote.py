"""Files behind URLs, by `fsspec` (the extra "remote"), with what reading needs of a path.

Their bytes are fetched once, whole, and let go when the file is read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeAlias

from features.errors import DataError

__all__ = ["File", "RemoteFile", "is_url", "location"]

_URL = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]+)*://", re.IGNORECASE)
_COLLAPSED = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@]*@")
_PLAIN = ("http://", "https://")


def is_url(text: str) -> bool:
    """Whether text names something behind a URL, such as ``s3://bucket/events.csv``."""
    return _URL.match(text) is not None


def location(place: Path | str) -> File:
    """What a path or a URL names; also of a URL that has been taken for a path."""
    text = str(place)
    if is_url(text):
        return RemoteFile(text)
    collapsed = _COLLAPSED.match(text) if isinstance(place, Path) else None
    if collapsed is not None and not Path(collapsed[1] + ":").exists():
        return RemoteFile(f"{collapsed[1]}://{text[collapsed.end() :]}")
    return Path(place)


class RemoteFile:
    """One file behind a URL, or a directory or a pattern of such.

    Args:
        url: as fsspec takes it, chained ones (``zip://a.csv::s3://b/c.zip``) as well.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._bytes: bytes | None = None

    def __str__(self) -> str:
        return _LOGIN.sub("***@", self.url)

    def __repr__(self) -> str:
        return f"RemoteFile({str(self)!r})"

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.url.partition("::")[0].partition("?")[0]).name

    @property
    def suffix(self) -> str:
        """The end of the name, from its last dot on."""
        return PurePosixPath(self.name).suffix

    @property
    def directories(self) -> tuple[str, ...]:
        """Names of the directories that it is in."""
        return PurePosixPath(self.url.partition("://")[2]).parts[:-1]

    def open(self, mode: str = "rb") -> BinaryIO:
        """The bytes, as a stream.

        Raises:
            DataError: they cannot be fetched.
            FileNotFoundError: there is no such file.
        """
        if self._bytes is None:
            with self._telling():
                system, path = self._system()
                self._bytes = system.cat_file(path)
        return io.BytesIO(self._bytes)

    def forget(self) -> None:
        """Let go of what was fetched."""
        self._bytes = None

    def expand(self) -> list[RemoteFile]:
        """The files of it: itself, those below a directory, or those of a pattern, sorted.

        Raises:
            DataError: there are none, or they cannot be listed.
            FileNotFoundError: there is no such file.
        """
        if self.url.lower().startswith(_PLAIN) or "::" in self.url:
            return [self]
        with self._telling():
            system, path = self._system()
            if any(mark in path for mark in "*?["):
                named = system.glob(path)
                found = [one for one in named if PurePosixPath(one).name[:1] != "."]
                what = "match the pattern, got none; check the pattern"
            elif system.isdir(path):
                found, what = [path], "be in the directory, got none; check the URL"
            elif system.exists(path):
                return [self]
            else:
                raise FileNotFoundError
            files: dict[str, Any] = {}
            for one in sorted(found):
                below = system.find(one, detail=True) if system.isdir(one) else {}
                kept = {
                    file: info
                    for file, info in sorted(below.items())
                    if not any(part[:1] in (".", "_") for part in file[len(one) :].split("/"))
                }
                files |= kept if system.isdir(one) else {one: system.info(one)}
            if not files:
                raise DataError(f"{self}: a file must {what}")
            full = [file for file, info in files.items() if info.get("size") != 0]
            return [RemoteFile(system.unstrip_protocol(file)) for file in full or list(files)[:1]]

    def _system(self) -> tuple[Any, str]:
        """The file system and the path on it."""
        try:
            import fsspec
        except ImportError:
            raise DataError(
                f"{self}: fsspec must be installed to read URLs, got none; "
                "`pip install recsys-plugin[remote]` installs it"
            ) from None
        system, path = fsspec.core.url_to_fs(self.url)
        return system, str(path)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Errors of whatever driver it is, told as ours."""
        try:
            yield
        except DataError:
            raise
        except FileNotFoundError:
            raise FileNotFoundError(f"{self}: no such file; check the URL") from None
        except ImportError as error:
            told = str(error).split("\n", 1)[0]
            raise DataError(
                f"{self}: its driver must be installed, got: {told}; install the package that is "
                "named"
            ) from None
        except Exception as error:  # each store has errors of its own
            told = str(error).split("\n", 1)[0].replace(self.url, str(self))
            raise DataError(
                f"{self}: must be readable, got {type(error).__name__}: {told}; check the URL, the "
                "network and the credentials"
            ) from None


File: TypeAlias = Path | RemoteFile
