"""The pair of files a small model is kept in: ``NAME.json`` and ``NAME.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsys.errors import ArtifactError
from recsys.files.headers import read_header, write_header
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
    header = {"kind": kind, "settings": dict(settings)}
    write_header(directory / f"{NAME}.json", FORMAT, header)


def read_model(directory: Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The settings and tensors that `write_model` wrote.

    The tensors are views into the file, which processes share; see `recsys.files.mapped_arrays`.

    Raises:
        ArtifactError: a file is missing or damaged, or it is of another kind or format.
    """
    remedy = "train again or restore the bundle"
    path = directory / f"{NAME}.json"
    try:
        header = read_header(path, FORMAT, remedy=remedy)
        tensors = map_arrays(directory / f"{NAME}.safetensors")
    except FileNotFoundError as error:
        raise ArtifactError(
            f"no {kind} model in {directory}: {Path(error.filename).name} is missing; {remedy}"
        ) from error
    if header.get("kind") != kind:
        raise ArtifactError(
            f"{path} must hold a {kind!r} model, got {header.get('kind')!r}; {remedy}"
        )
    if not isinstance(header.get("settings"), dict):
        raise ArtifactError(f"{path} is damaged (no settings); {remedy}")
    return header["settings"], tensors
