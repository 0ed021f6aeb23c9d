"""Rolling origins: models of several past days, judged on the weeks after each, and how they age.

Imports `pipeline`; may be imported by `serving`.
"""

from __future__ import annotations
