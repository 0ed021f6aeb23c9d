"""What the rows of a log mean: kinds that weigh, negatives, returns, repeats, and what is missing.

A log is ruled before it is checked: `EventRules` say what its rows mean, and every row that a rule
takes away or changes is counted.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

__all__ = [
    "CONDITION",
    "DISLIKE",
    "RETURN",
    "EventRules",
    "Missing",
    "NegativeQuantity",
    "Repeats",
    "SameTime",
    "Undescribed",
    "fulfils",
]

Missing: TypeAlias = Literal["refuse", "drop"]
NegativeQuantity: TypeAlias = Literal["cancel", "drop"]
Repeats: TypeAlias = Literal["refuse", "sum", "first", "keep"]
Undescribed: TypeAlias = Literal["refuse", "take", "drop"]
SameTime: TypeAlias = Literal["basket", "shuffle"]

CONDITION = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
"""A comparison with a number: its sign, and the number."""
DISLIKE = "dislike"
"""Kind of an event that is disliked by its weight, whatever kind it had."""
RETURN = "return"
"""Kind of a row that gave back what was bought."""
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class EventRules:
    """What the rows of a log mean.

    Attributes:
        kinds: kind of event -> its weight. Above 0 it is a like that counts so much, 0 counts for
            nothing but tells the ranker what was met and not wanted, below 0 it is a dislike: no
            like, nothing its user is shown again, an example of what is not wanted. With none given
            all kinds count 1; otherwise all must be given.
        targets: kinds that are to be predicted; the others are history alone. Empty: all likes.
        positive: condition on the weight column, such as ">= 4": only such rows are likes. None:
            all above 0.
        negative: condition on the weight column, such as "< 0": such rows are dislikes, of the kind
            "dislike".
        negative_quantity: a row of a quantity below 0 takes back what its user bought before, and
            is a dislike of the kind "return" where nothing is kept ("cancel"), or is left out
            ("drop").
        missing: rows without user, item, time, kind or weight are a problem, or left out.
        repeats: rows of one user, item, time and kind are a problem, one event of their summed
            weight, their first one, or as many events.
        undescribed: events of items without a row are a problem, make a row without values, or are
            left out.
        same_time: events of a user at one time are one moment, none of which came before another
            ("basket"), or their order is drawn and divides them ("shuffle").

    Raises:
        ValueError: a value is none of those above.
    """

    kinds: Mapping[str, float] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    positive: str | None = None
    negative: str | None = None
    negative_quantity: NegativeQuantity = "cancel"
    missing: Missing = "refuse"
    repeats: Repeats = "refuse"
    undescribed: Undescribed = "refuse"
    same_time: SameTime = "basket"

    def __post_init__(self) -> None:
        for name, kind in (
            ("negative_quantity", NegativeQuantity),
            ("missing", Missing),
            ("repeats", Repeats),
            ("undescribed", Undescribed),
            ("same_time", SameTime),
        ):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(repr(one) for one in get_args(kind))
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        for name in ("positive", "negative"):
            condition = getattr(self, name)
            if condition is not None and not CONDITION.fullmatch(condition):
                raise ValueError(
                    f"{name} must be a comparison with a number, such as '>= 4', got {condition!r}"
                )
        unknown = [kind for kind in self.targets if self.kinds and kind not in self.kinds]
        if unknown:
            raise ValueError(
                f"targets must be kinds of [data.kinds], got {unknown[0]!r}; known: "
                f"{', '.join(self.kinds)}"
            )
        refused = [kind for kind in self.targets if self.kinds.get(kind, 1.0) <= 0]
        if refused:
            raise ValueError(
                f"targets must be kinds that weigh above 0, got {refused[0]!r} of "
                f"{self.kinds[refused[0]]:g}"
            )

    def kind_of(self, kind: str, weight: float) -> str:
        """The kind of an event whose weight `weight_of` gave: dislikes have kinds of their own."""
        return DISLIKE if weight < 0 and self.kinds.get(kind, 0.0) >= 0 else kind

    def weight_of(self, kind: str, weight: float | None, usual: float) -> float:
        """What one event weighs, as a row of the log would: above 0 a like, below 0 a dislike.

        Args:
            kind: of the event.
            weight: its own. None: it says none.
            usual: weight of an event that says none, where kinds do not differ.
        """
        own, sign = usual if weight is None else weight, 1.0
        if weight is not None:
            if self.positive is not None:
                sign = float(fulfils(self.positive, weight))
            elif weight <= 0:
                sign = 0.0
            if self.negative is not None and fulfils(self.negative, weight):
                sign = -1.0
            own = abs(own) or 1.0
        if not self.kinds:
            return sign * own
        of_kind = self.kinds.get(kind, 0.0)
        value = abs(of_kind * sign) * (own if weight is not None else 1.0)
        return -value if of_kind < 0 or sign < 0 else value


def fulfils(condition: str, value: Any) -> Any:
    """Whether a number, or where a column, fulfils a condition such as ">= 4"."""
    sign, number = CONDITION.fullmatch(condition).groups()  # type: ignore[union-attr]
    return _COMPARISONS[sign](value, float(number))
