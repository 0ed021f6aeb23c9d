"""What every section of the configuration is made of: its base, bounds, and shared rules."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Closed01",
    "Count",
    "Name",
    "Natural",
    "NonNegative",
    "Open01",
    "Positive",
    "Section",
    "Share",
    "check_distinct",
]

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Open01 = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Closed01 = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")]


class Section(BaseModel):
    """Base of all sections: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def fingerprint(self) -> str:
        """Sha256 (hex) of the values; equal values give equal fingerprints in any process."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def check_distinct(values: tuple[Any, ...], noun: str) -> tuple[Any, ...]:
    """``values``, which must not be empty nor hold anything twice.

    Raises:
        ValueError: they are or do; ``noun`` says what one of them is.
    """
    if not values:
        raise ValueError(f"needs at least one {noun}, got none")
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"each {noun} may appear once, got {twice[0]} twice")
    return values
