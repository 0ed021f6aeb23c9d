"""How content vectors are made."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from recsys.content.text import TextEncoderName
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
    text_encoder: TextEncoderName = "wordllama"
    """What makes vectors of text: "wordllama", static vectors of word pieces, or
    "sentence-transformers", a transformer that text_model holds (the package is not installed with
    this one)."""
    text_model: Path | None = None
    """Directory of the encoder's weights. Not said: those that come with wordllama."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.text_weight + self.attribute_weight == 0:
            raise ValueError("text_weight and attribute_weight must not both be 0")
        if self.text_encoder == "sentence-transformers" and self.text_model is None:
            raise ValueError(
                "text_model must be the directory of a saved model with text_encoder = "
                "'sentence-transformers', got none"
            )
        return self

    def below(self, directory: Path) -> Self:
        """The same with a path that is relative taken from ``directory``."""
        if self.text_model is None:
            return self
        return self.model_copy(update={"text_model": directory / self.text_model})
