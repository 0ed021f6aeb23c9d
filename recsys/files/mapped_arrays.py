"""Arrays of a safetensors file as views into it.

Nothing is read until it is used, and processes on one machine share what they use.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from recsys.errors import ArtifactError

__all__ = ["map_arrays"]

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
_DAMAGE = (AttributeError, KeyError, OverflowError, RecursionError, TypeError)
_MAX_HEADER_BYTES = 100_000_000  # as safetensors itself


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of ``path``, as `safetensors.numpy.load_file` gives them.

    They may be written to, which copies the touched pages for this process alone and never reaches
    the file. The file must not be cut short or overwritten meanwhile, or its readers are killed;
    it may be renamed, replaced by a rename, or removed.

    Args:
        path: a safetensors file.

    Raises:
        FileNotFoundError: there is none.
        ArtifactError: it is damaged, or holds a type that numpy does not have.
    """
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError as error:  # an empty file
            raise ArtifactError(f"{path} is damaged ({error}); restore the bundle") from error
    try:
        header_bytes = int.from_bytes(mapped[:8], "little")
        begin = 8 + header_bytes
        if len(mapped) < 8 or header_bytes > _MAX_HEADER_BYTES or begin > len(mapped):
            raise ValueError(f"a header of {header_bytes} bytes in a file of {len(mapped)}")
        header = json.loads(mapped[8:begin])
        header.pop("__metadata__", None)
        return {name: _view(mapped, begin, name, entry) for name, entry in header.items()}
    except (*_DAMAGE, ValueError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); restore the bundle") from error


def _view(mapped: mmap.mmap, begin: int, name: str, entry: dict[str, Any]) -> np.ndarray:
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    first, last = entry["data_offsets"]
    if dtype not in _DTYPES:
        raise ValueError(f"{name} is of type {dtype!r}")
    kind = np.dtype(_DTYPES[dtype])
    count = int(np.prod(shape, dtype=np.int64))
    if not 0 <= first <= last <= len(mapped) - begin or last - first != count * kind.itemsize:
        raise ValueError(f"{name} of shape {shape} lies at bytes {first}..{last}")
    array: np.ndarray = np.frombuffer(mapped, kind, count, begin + first).reshape(shape)
    return array if array.flags.aligned else array.copy()
