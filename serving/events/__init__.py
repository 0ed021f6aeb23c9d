"""What users did: taken in, kept as sessions, followed into feature state.

Imports `store` and `connection`; may be imported by `request` and above.
"""

from __future__ import annotations
