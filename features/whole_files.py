"""Files that are there whole or not at all, and what a disk that takes no more is told as."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["disk_refusal", "telling_refusal", "whole_file"]

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_NUMBER = re.compile(r"\bos error (\d+)\b|\[Errno (\d+)\]")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` when the block ends well.

    Otherwise nothing of it is left, and a file that was there before stays as it was. What is no
    file, such as a pipe, is written to as it is.

    Args:
        path: of the file; its directory must be there.

    Raises:
        OSError: the disk takes no more; it names ``path``.
    """
    target = Path(os.path.realpath(path))  # what a link names is written, the link stays
    if target.exists() and not target.is_file():  # a terminal or a pipe
        yield target
        return
    draft = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    try:
        with telling_refusal(path):
            yield draft
            os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def telling_refusal(place: Path) -> Iterator[None]:
    """Run a block that writes to ``place``; that the disk takes no more is told as one error.

    Libraries have errors of their own for it, and few name a file.

    Raises:
        OSError: the disk takes no more; it names ``place``, or the file in it.
    """
    try:
        yield
    except Exception as error:
        refusal = disk_refusal(error)
        if refusal is None or (isinstance(error, OSError) and error.filename is not None):
            raise
        raise OSError(refusal.errno, refusal.strerror, str(place)) from error


def disk_refusal(error: Exception) -> OSError | None:
    """What the system said, where an error is or tells that a disk takes no more; else None."""
    if isinstance(error, OSError) and error.errno is not None:
        return error if error.errno in _REFUSALS else None
    told = _NUMBER.search(str(error))
    number = 0 if told is None else int(told[1] or told[2])
    return OSError(number, os.strerror(number)) if number in _REFUSALS else None
