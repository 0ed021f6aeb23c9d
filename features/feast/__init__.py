"""Feast adapters; importing this package does not import Feast.

Imports `sources` and `packing`; may be imported from everywhere in the other packages.

Feast sets ``PROMETHEUS_MULTIPROC_DIR`` when it is imported, and from then on every metric of the
process lives in files by name, ours too. Whoever imports prometheus_client first keeps its metrics
in memory, so this package does.
"""

from __future__ import annotations

import contextlib

with contextlib.suppress(ImportError):
    import prometheus_client.values  # noqa: F401
