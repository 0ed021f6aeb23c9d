"""When an item may be shown again to who met it: never, at once, or after a while."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from features.moments import duration_us

__all__ = ["ALLOW", "EXCLUDE", "NEVER_AGAIN", "RepeatRule"]

EXCLUDE, ALLOW = "exclude", "allow"
_AFTER = re.compile(r"after +(.+)")
_FOREVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class RepeatRule:
    """For how long an event hides its item from its user.

    ``"exclude"``: for good. ``"allow"``: not at all. ``"after 7d"``: for so long, in minutes (m),
    hours (h), days (d) or weeks (w). An item that several events hide is hidden by the longest.
    What was disliked is hidden for good whatever the rule says.

    Attributes:
        general: of events of any kind.
        kinds: kind of event -> the rule of its own.

    Raises:
        ValueError: a rule is none of the above.
    """

    general: str = EXCLUDE
    kinds: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for rule in (self.general, *self.kinds.values()):
            _hidden_us(rule)

    @property
    def excludes_all(self) -> bool:
        """Whether nothing is ever shown again."""
        return all(rule == EXCLUDE for rule in (self.general, *self.kinds.values()))

    def until_us(self, happened_us: int, kind: str | None = None) -> int:
        """The first moment at which the item of one event may be shown again.

        Args:
            happened_us: microseconds since the epoch.
            kind: of the event. None: not known.
        """
        rule = self.general if kind is None else self.kinds.get(kind, self.general)
        return min(_FOREVER, happened_us + _hidden_us(rule))

    def hidden_until(
        self, happened_us: np.ndarray, kind: pl.Series | np.ndarray
    ) -> np.ndarray | None:
        """The same of many events.

        Args:
            happened_us: [E] int64 microseconds since the epoch.
            kind: [E] text.

        Returns:
            [E] int64 microseconds; None: for good, all of them.
        """
        if self.excludes_all:
            return None
        general = _hidden_us(self.general)
        of_kind = {one: _hidden_us(rule) for one, rule in self.kinds.items()}
        if of_kind:
            kinds = pl.Series(list(kind), dtype=pl.String)
            hidden = kinds.replace_strict(
                of_kind, default=general, return_dtype=pl.Int64
            ).to_numpy()
        else:
            hidden = np.full(happened_us.shape, general, dtype=np.int64)
        return np.where(hidden < _FOREVER - happened_us, happened_us + hidden, _FOREVER)


def _hidden_us(rule: str) -> int:
    """Microseconds for which a rule hides an item."""
    if rule in (EXCLUDE, ALLOW):
        return _FOREVER if rule == EXCLUDE else 0
    found = _AFTER.fullmatch(rule)
    hidden = None if found is None else duration_us(found[1])
    if hidden is None or not 0 < hidden < _FOREVER // 2:
        raise ValueError(
            f"repeats must be 'exclude', 'allow' or 'after' a time such as 'after 7d' (m, h, d or "
            f"w), got {rule!r}"
        )
    return hidden


NEVER_AGAIN = RepeatRule()
"""What a user met is hidden for good."""
