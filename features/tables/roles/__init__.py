"""Which columns play which role, found from the values of whole tables; names are a prior.

Imports of `features` only the tables; may be imported from everywhere.
"""

from __future__ import annotations
