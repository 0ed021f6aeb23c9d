"""The request path over HTTP: bodies, keys, errors, operations.

Imports `request`; may be imported by `process` and `cli`.
"""

from __future__ import annotations
