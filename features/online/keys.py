"""Where the state of a plan is kept: the key and the field of each group."""

from __future__ import annotations

import struct

from features.computation.questions import Group
from features.online.plan import StatePlan
from features.online.store import Field

__all__ = ["CLOCK", "SEEN", "StateKeys"]

SEEN = "seen"
CLOCK = struct.Struct("<q")
"""The newest arrival: microseconds since 1970-01-01 UTC."""


class StateKeys:
    """Names of keys and fields.

    Args:
        plan: what is kept; its digest begins every key, so state of another plan is not read.

    Attributes:
        cells: what is kept in the fields of a name, see `name_of`.
        tapes: how many of a user's newest events are.
    """

    def __init__(self, plan: StatePlan) -> None:
        self._prefix = plan.digest
        self.cells = {f"c{place}": cell for place, cell in enumerate(plan.cells)}
        self.tapes = {f"t{place}": size for place, (_, size) in enumerate(plan.pasts)}
        self._number = {cell.group: name for name, cell in self.cells.items()}
        self._tape = {event: f"t{place}" for place, (event, _) in enumerate(plan.pasts)}

    @property
    def clock(self) -> Field:
        """The newest arrival."""
        return f"{self._prefix}:clock", "arrived"

    @staticmethod
    def name_of(field: Field) -> str:
        """What kind of value a field holds: a key of ``cells`` or ``tapes``, or `SEEN`."""
        return field[1].partition("|")[0]

    def user(self, user_id: str) -> str:
        """Key of a user."""
        return f"{self._prefix}:u:{user_id}"

    def item(self, item_id: str) -> str:
        """Key of an item."""
        return f"{self._prefix}:i:{item_id}"

    def attribute(self, column: str, value: str) -> str:
        """Key of an attribute's value."""
        return f"{self._prefix}:a:{column}:{value}"

    def everybody(self) -> str:
        """Key of all events."""
        return f"{self._prefix}:g"

    def cell(self, group: Group, user_id: str, item_id: str, value: str) -> Field:
        """Where a group's cell is; what the group does not look at is ignored."""
        number = self._number[group]
        match group.by:
            case "global":
                return self.everybody(), number
            case "item":
                return self.item(item_id), number
            case "attribute":
                return self.attribute(str(group.column), value), number
            case "user":
                return self.user(user_id), number
            case "user_item":
                return self.user(user_id), f"{number}|{item_id}"
            case _:
                return self.user(user_id), f"{number}|{value}"

    def tape(self, user_id: str, event: str | None) -> Field:
        """Where a user's newest events of a kind are."""
        return self.user(user_id), self._tape[event]

    def seen(self, user_id: str) -> Field:
        """Where a user's known events are."""
        return self.user(user_id), SEEN
