"""JSON files that say which format they, and the files beside them, are of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.errors import ArtifactError

__all__ = ["read_header", "write_header"]


def write_header(
    path: Path, version: int, values: Mapping[str, Any], *, indent: int | None = 2
) -> None:
    """Write ``values`` and their format.

    Args:
        path: of the file.
        version: number of the format, which `read_header` must ask for.
        values: plain JSON values.
        indent: of the JSON. None: one line, for long arrays.
    """
    text = json.dumps({"format": version, **values}, indent=indent)
    path.write_text(text + "\n", encoding="utf-8")


def read_header(path: Path, version: int, *, remedy: str) -> dict[str, Any]:
    """The values that `write_header` wrote, without their format.

    Args:
        path: of the file.
        version: number of the format that is read.
        remedy: what to do about a file that cannot be read.

    Raises:
        FileNotFoundError: there is none.
        ArtifactError: it is damaged or of another format.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"it must hold an object, got {type(values).__name__}")
    except FileNotFoundError:
        raise
    except (OSError, RecursionError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); {remedy}") from error
    written = values.pop("format", None)
    if written != version:
        raise ArtifactError(f"{path} must have format {version}, got {written!r}; {remedy}")
    return values
