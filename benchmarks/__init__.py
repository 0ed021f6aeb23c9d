"""Programs that measure; docs/benchmarks.md says of each what it asks and what came out.

They import each other by plain names, as `python benchmarks/NAME.py` finds them; this line makes
`python -m benchmarks.NAME` find them as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
