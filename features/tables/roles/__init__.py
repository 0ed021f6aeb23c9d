"""Which columns play which role, found from the values of whole tables; names are a prior.

Imports of `features` only the tables; may be imported from everywhere.
"""

from __future__ import annotations

from features.tables.roles.codes import find_codes
from features.tables.roles.facts import LogFacts, log_facts, met_again
from features.tables.roles.found import Found, percent
from features.tables.roles.ids import find_described, find_key
from features.tables.roles.kinds import is_purchase, weight_of
from features.tables.roles.log import LogRoles, find_log_roles

__all__ = [
    "Found",
    "LogFacts",
    "LogRoles",
    "find_codes",
    "find_described",
    "find_key",
    "find_log_roles",
    "is_purchase",
    "log_facts",
    "met_again",
    "percent",
    "weight_of",
]
