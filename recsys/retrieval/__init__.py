"""First stage: retrievers, the two towers and their training. Import from the modules."""

from __future__ import annotations
