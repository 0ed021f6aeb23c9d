"""Which columns play which role, found from the values of whole tables; names are a prior.

Imports of `features` only the tables; may be imported from everywhere.
"""

from __future__ import annotations

from features.tables.roles.codes import find_codes
from features.tables.roles.found import Found, percent
from features.tables.roles.log import LogRoles, find_log_roles

__all__ = ["Found", "LogRoles", "find_codes", "find_log_roles", "percent"]
