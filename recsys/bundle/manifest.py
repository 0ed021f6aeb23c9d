"""The manifest of a bundle: what it says of itself, and how that is read and written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from features.whole_files import whole_file
from recsys.errors import ArtifactError
from recsys.files.headers import read_header
from recsys.files.writing import sha256, sync_directory

__all__ = ["MANIFEST", "FileRecord", "Manifest"]

FORMAT = 1
MANIFEST = "manifest.json"


class FileRecord(NamedTuple):
    """Checksum (hex) and size in bytes of one file."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        id: sorts by time of creation; the published generation carries the same one.
        parent: id of the bundle this one continues, or None.
        created_at: ISO 8601, UTC.
        config: all settings as used, see `recsys.config.Config.as_used`.
        data_fingerprint: sha256 (hex) of the content of the input tables.
        versions: library name -> version.
        git_commit: commit of the code, with "-dirty" if it had changes; None outside a checkout.
        metrics: names -> numbers or further mappings; the measured table.
        files: path below the bundle -> checksum and size.
        lineage: how it continues which bundles: "from", "refresh-users", "compatible-with" -> id.
    """

    id: str
    parent: str | None
    created_at: str
    config: Mapping[str, Any]
    data_fingerprint: str
    versions: Mapping[str, str]
    git_commit: str | None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    lineage: Mapping[str, str] = field(default_factory=dict)


def records(path: Path, root: Path) -> dict[str, FileRecord]:
    """Records of ``path`` or of all files below it, named relative to ``root``."""
    files = [path] if path.is_file() else sorted(found for found in path.rglob("*"))
    return {
        file.relative_to(root).as_posix(): FileRecord(sha256(file), file.stat().st_size)
        for file in files
        if file.is_file()
    }


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a bundle directory.

    Raises:
        ArtifactError: there is none, it is damaged, or it is of another format.
    """
    path = directory / MANIFEST
    try:
        values = read_header(path, FORMAT, remedy="train again")
    except FileNotFoundError:
        raise ArtifactError(f"{directory} is no bundle: it has no {MANIFEST}") from None
    try:
        files = {name: FileRecord(**record) for name, record in values.pop("files").items()}
        return Manifest(files=files, **values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); train again") from error


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write or replace the manifest: on disk whole before it has its name."""
    values = {"format": FORMAT, **asdict(manifest)}
    values["files"] = {name: record._asdict() for name, record in manifest.files.items()}
    with (
        whole_file(directory / MANIFEST) as draft,
        draft.open("w", encoding="utf-8") as file,
    ):
        json.dump(values, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    sync_directory(directory)
