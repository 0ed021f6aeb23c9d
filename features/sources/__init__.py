"""Where feature tables live: the protocol, Parquet directories, memory.

Imports `tables` and `packing`; may be imported by `feast` and the other packages.
"""

from __future__ import annotations
