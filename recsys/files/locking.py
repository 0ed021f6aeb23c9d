"""Locks between processes; the system takes them back when their process dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from features.whole_files import telling_refusal
from recsys.errors import ArtifactError

__all__ = ["directory_lock", "one_holder", "try_lock"]


def try_lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; False at once where another opening of it holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Let one process at a time change what ``directory`` holds; the others wait."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def one_holder(directory: Path, refusal: Callable[[str], str]) -> Iterator[None]:
    """Hold ``directory`` alone; nobody waits.

    Args:
        directory: gets a file ``.lock``, which names the holder.
        refusal: what is told where another process holds it, given that process's id.

    Raises:
        ArtifactError: another process holds it.
    """
    with (directory / ".lock").open("a+", encoding="utf-8") as file:
        if not try_lock(file.fileno()):
            file.seek(0)
            raise ArtifactError(refusal(file.read().strip() or "unknown"))
        with telling_refusal(directory / ".lock"):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield
