"""The directory that a training run leaves: its manifest, its files, its comparison.

Imports `files`; may be imported by `pipeline` and what joins the stages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from recsys.bundle.bundle import Bundle, BundleDraft, bundles, compare, latest

__all__ = ["Bundle", "BundleDraft", "bundles", "compare", "latest"]

__getattr__, __dir__ = lazy_names(__name__, __file__)
