"""Logs and entity tables as users have them: reading, checks, ids, histories.

May be imported from everywhere.
"""

from __future__ import annotations

from features.tables.entities import ItemTable, UserTable, read_items, read_users
from features.tables.histories import Histories
from features.tables.interactions import Interactions, read_interactions
from features.tables.schema import CREATED, EVENT, ITEM, TIMESTAMP, USER, WEIGHT, EventColumns
from features.tables.tables import Tables, find_problems
from features.tables.vocabulary import Vocabulary

__all__ = [
    "CREATED",
    "EVENT",
    "ITEM",
    "TIMESTAMP",
    "USER",
    "WEIGHT",
    "EventColumns",
    "Histories",
    "Interactions",
    "ItemTable",
    "Tables",
    "UserTable",
    "Vocabulary",
    "find_problems",
    "read_interactions",
    "read_items",
    "read_users",
]
