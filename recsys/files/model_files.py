"""The pair of files a small model is kept in: ``NAME.json`` and ``NAME.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsys.errors import ArtifactError
from recsys.files.mapped_arrays import map_arrays

__all__ = ["read_model", "write_model"]

FORMAT = 1
NAME = "model"


def write_model(
    directory: Path, kind: str, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Write a model's settings and tensors below ``directory``, which is made if missing.

    Args:
        directory: one model's own directory.
        kind: what `read_model` must ask for.
        settings: plain JSON values.
        tensors: arrays of any shape; empty ones are allowed.
    """
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    draft = directory / f".{NAME}.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, draft)
    draft.replace(directory / f"{NAME}.safetensors")  # whoever has mapped the old one keeps it
    header = {"format": FORMAT, "kind": kind, "settings": dict(settings)}
    (directory / f"{NAME}.json").write_text(json.dumps(header, indent=2) + "\n")


def read_model(directory: Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The settings and tensors that `write_model` wrote.

    The tensors are views into the file, which processes share; see `recsys.files.mapped_arrays`.

    Raises:
        ArtifactError: a file is missing or damaged, or it is of another kind or format.
    """
    for suffix in ("json", "safetensors"):
        if not (directory / f"{NAME}.{suffix}").is_file():
            raise ArtifactError(
                f"no {kind} model in {directory}: {NAME}.{suffix} is missing; train again or "
                "restore the bundle"
            )
    try:
        header = json.loads((directory / f"{NAME}.json").read_text())
        tensors = map_arrays(directory / f"{NAME}.safetensors")
        if not isinstance(header, dict) or "settings" not in header:
            raise ValueError(f"{NAME}.json is no header")
    except (ValueError, ArtifactError) as error:
        raise ArtifactError(
            f"{directory} holds a damaged {kind} model ({error}); restore the bundle"
        ) from error
    found = (header.get("format"), header.get("kind"))
    if found != (FORMAT, kind):
        raise ArtifactError(
            f"{directory} must hold a {kind!r} model of format {FORMAT}, got {found[1]!r} of "
            f"format {found[0]!r}; train again with this version"
        )
    return header["settings"], tensors
