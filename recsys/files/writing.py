"""Files that are on disk whole: checksums, and names that survive a power cut."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["sha256", "sync_directory"]


def sha256(path: Path) -> str:
    """Checksum (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(directory: Path) -> None:
    """Make renames in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
