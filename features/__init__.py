"""Events and entities to model inputs. Needs polars and numpy; no torch, no network."""

from __future__ import annotations

from features.errors import DataError, Problem, UnknownIdError
from features.histories import Histories
from features.interactions import Interactions, read_interactions
from features.schema import EVENT, ITEM, TIMESTAMP, USER, WEIGHT, EventColumns
from features.tables import ItemTable, UserTable, read_items, read_users
from features.validation import find_problems
from features.vocabulary import Vocabulary

__all__ = [
    "EVENT",
    "ITEM",
    "TIMESTAMP",
    "USER",
    "WEIGHT",
    "DataError",
    "EventColumns",
    "Histories",
    "Interactions",
    "ItemTable",
    "Problem",
    "UnknownIdError",
    "UserTable",
    "Vocabulary",
    "find_problems",
    "read_interactions",
    "read_items",
    "read_users",
]
