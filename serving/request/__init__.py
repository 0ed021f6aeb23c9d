"""One request from its arrival to its answer; knows nothing of HTTP.

May be imported by `http`, `assembly` and above.
"""

from __future__ import annotations
