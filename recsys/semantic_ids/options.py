"""How content vectors are quantised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recsys.settings import Count, Positive, Settings

__all__ = ["SemanticIdOptions"]


class SemanticIdOptions(Settings):
    """Residual quantisation of the content vectors."""

    kind: Literal["rqvae", "residual_kmeans"] = "rqvae"
    """How the code books are found."""
    levels: Annotated[int, Field(ge=1, le=8)] = 3
    """Codes of an id, before the digit that tells equal ones apart."""
    codes: Annotated[int, Field(ge=2, le=32_768)] = 128
    """Codes of a level."""
    epochs: Count = 60
    """Passes over the items (rqvae)."""
    batch_size: Count = 1024
    """Items a step (rqvae)."""
    learning_rate: Positive = 1e-3
    """Of AdamW (rqvae)."""
