"""The JSON and the vectors every index keeps beside its own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from recsys.errors import ArtifactError
from recsys.files.headers import read_header, write_header
from recsys.files.mapped_arrays import map_arrays

__all__ = ["DESCRIPTION", "read_description", "read_vectors", "write_index"]

DESCRIPTION = "index.json"
VECTORS = "vectors.safetensors"
FORMAT = 1


def write_index(
    directory: Path, kind: str, settings: Mapping[str, object], vectors: np.ndarray
) -> None:
    """Write ``index.json`` and ``vectors.safetensors`` into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    draft = directory / f".{VECTORS}"
    save_file({"vectors": vectors}, draft)
    draft.replace(directory / VECTORS)  # whoever has mapped the old one keeps it
    description = {
        "kind": kind,
        "num_items": vectors.shape[0] - 1,
        "dim": vectors.shape[1],
        "settings": dict(settings),
    }
    write_header(directory / DESCRIPTION, FORMAT, description)


def read_description(directory: Path, kind: str | None = None) -> dict[str, object]:
    """The content of ``index.json``, checked.

    Args:
        directory: where the index was saved.
        kind: what it must be. None: any kind.

    Raises:
        ArtifactError: missing, unreadable, or of another kind or format version.
    """
    path = directory / DESCRIPTION
    try:
        description = read_header(path, FORMAT, remedy="build the index again")
    except FileNotFoundError as e:
        raise ArtifactError(f"no index in {directory}: {DESCRIPTION} is missing") from e
    if kind is not None and description.get("kind") != kind:
        raise ArtifactError(
            f"{path} holds an index of kind {description.get('kind')!r}, not {kind!r}; "
            "use load_index"
        )
    return description


def read_vectors(directory: Path, description: Mapping[str, object]) -> np.ndarray:
    """The [N + 1, D] float32 vectors, of the size the description promises.

    They are a view into the file, which processes share; see `recsys.files.mapped_arrays`.

    Raises:
        ArtifactError: missing, unreadable or of another size.
    """
    path = directory / VECTORS
    try:
        vectors = map_arrays(path)["vectors"]
    except FileNotFoundError as e:
        raise ArtifactError(f"half an index in {directory}: {VECTORS} is missing") from e
    except (ArtifactError, KeyError) as e:
        raise ArtifactError(f"{path} is damaged ({e}); build the index again") from e
    num_items, dim = description.get("num_items"), description.get("dim")
    if vectors.ndim != 2 or [vectors.shape[0] - 1, vectors.shape[1]] != [num_items, dim]:
        raise ArtifactError(
            f"{path} holds shape {vectors.shape}, {DESCRIPTION} says {num_items} items of "
            f"dimension {dim}; build the index again"
        )
    return vectors
