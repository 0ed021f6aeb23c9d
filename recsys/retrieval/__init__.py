"""First stage: retrievers, the two towers and their training. Import from the modules.

Its own files know `towers`; may be imported by `recommender` and `pipeline`.
"""

from __future__ import annotations
