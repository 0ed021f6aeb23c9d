"""How content vectors are quantised."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.settings import Count, Positive, Settings

__all__ = ["SemanticIdOptions"]


class SemanticIdOptions(Settings):
    """Residual quantisation of the content vectors."""

    kind: Literal["rqvae", "residual_kmeans"] = "rqvae"
    """How the code books are found."""
    levels: Annotated[int, Field(ge=1, le=8)] = 3
    """Codes of an id, before the digit that tells equal ones apart."""
    codes: Annotated[int, Field(ge=2, le=32_768)] = 128
    """Codes of a level; fewer where there are fewer different items."""
    epochs: Count = 60
    """Passes over the items (rqvae)."""
    batch_size: Count = 1024
    """Items a step (rqvae)."""
    learning_rate: Positive = 1e-3
    """Of AdamW (rqvae)."""

    @model_validator(mode="after")
    def _fit_a_number(self) -> Self:
        if self.codes**self.levels > 2**46:
            raise ValueError(
                f"codes to the power of levels must be at most 2**46, got {self.codes} codes in "
                f"{self.levels} levels; lower one of them"
            )
        return self
