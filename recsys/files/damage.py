"""Damage of files told as such, whatever library stumbled over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from safetensors import SafetensorError

from features.errors import DataError
from recsys.errors import ArtifactError, ConfigError

__all__ = ["telling_damage"]

_STUMBLES = (
    AttributeError,
    LookupError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)


@contextmanager
def telling_damage(path: Path) -> Iterator[None]:
    """Run a block that reads ``path`` and builds something of it; its errors become one.

    Raises:
        ArtifactError: the block failed, other than with an error of ours.
    """
    try:
        yield
    except (ArtifactError, ConfigError, DataError):
        raise
    except _STUMBLES as error:
        raise ArtifactError(f"{path} is damaged ({error!r}); restore the bundle") from error
