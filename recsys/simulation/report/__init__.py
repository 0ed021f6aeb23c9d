"""Pages of tables and plots.

Imports no other folder of `simulation`; may be imported by all of them.
"""

from __future__ import annotations
