"""How content vectors are made."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from recsys.settings import Count, NonNegative, Settings

__all__ = ["ContentOptions"]


class ContentOptions(Settings):
    """Item content vectors: text and attributes, fused by weight."""

    dim: Count = 64
    """Dimensions of a vector."""
    text_weight: NonNegative = 1.0
    """Weight of the text columns."""
    attribute_weight: NonNegative = 1.0
    """Weight of the category, list and number columns."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.text_weight + self.attribute_weight == 0:
            raise ValueError("text_weight and attribute_weight must not both be 0")
        return self
