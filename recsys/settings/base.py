"""What every group of settings is made of: its base, bounds, and shared rules.

A setting is declared once, by the options of the layer that reads it: its type with its bounds, its
default, and one line below it that says what it means. The configuration is composed of these.

    class Shape(Settings):
        dim: Count = 64
        '''Dimensions of a vector.'''
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys.errors import ConfigError
from recsys.settings.messages import explain

__all__ = [
    "Closed01",
    "Count",
    "HalfOpen01",
    "Name",
    "Natural",
    "NonNegative",
    "Open01",
    "Positive",
    "Searched",
    "Settings",
    "Share",
    "check_distinct",
]

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Open01 = Annotated[float, Field(gt=0, lt=1)]
HalfOpen01 = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Closed01 = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")]

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class Searched:
    """The range that `recsys tune` searches a setting in where none is declared.

    Stands in the setting's annotation, beside its bounds.

    Attributes:
        low: smallest value.
        high: largest value.
        log: a factor of two is as likely at the low end as at the high one.
    """

    low: float
    high: float
    log: bool = False


class Settings(BaseModel):
    """Base of all groups of settings: immutable, and an unknown name is an error.

    Raises:
        ConfigError: settings that are unknown, missing, of a wrong type or out of range, one a
            line.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(explain(error, type(self))) from None

    # Pydantic then builds sections within sections by itself, and knows where in the file they are.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def but(self, **changes: Any) -> Self:
        """The same settings with some changed; checked like new ones."""
        return type(self)(**{**dict(self), **changes})

    def only(self, kind: type[S]) -> S:
        """Those of the settings that ``kind`` declares.

        Args:
            kind: a base of this class, or one whose settings this class has by the same names.
        """
        return kind(**{name: getattr(self, name) for name in kind.model_fields})

    @classmethod
    def default(cls, name: str) -> Any:
        """The default of a setting, for a function that takes it by itself."""
        return cls.model_fields[name].get_default(call_default_factory=True)

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
