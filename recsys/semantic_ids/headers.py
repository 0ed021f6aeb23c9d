"""The JSON header beside a quantiser's tensors: kind, format, settings, fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.errors import ArtifactError
from recsys.files import headers

__all__ = ["read_header", "write_header"]

_FORMAT = 1


def write_header(
    directory: Path, *, kind: str, fingerprint: str, settings: Mapping[str, Any]
) -> None:
    """Write ``quantizer.json``."""
    values = {"kind": kind, "fingerprint": fingerprint, "settings": dict(settings)}
    headers.write_header(directory / "quantizer.json", _FORMAT, values)


def read_header(directory: Path, *, kind: str | None = None) -> dict[str, Any]:
    """Read ``quantizer.json``.

    Raises:
        ArtifactError: it is missing, of another format version, or not of ``kind``.
    """
    path = directory / "quantizer.json"
    if not path.exists() or not (directory / "quantizer.safetensors").exists():
        raise ArtifactError(f"no quantizer in {directory}")
    header = headers.read_header(path, _FORMAT, remedy="fit the quantizer again")
    if kind is not None and header.get("kind") != kind:
        raise ArtifactError(f"{path} must hold a {kind!r}, got {header.get('kind')!r}")
    return header
