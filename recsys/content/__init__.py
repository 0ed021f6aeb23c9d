"""Item content to vectors: text, attributes, and their fusion.

Imports `files`; may be imported by `pipeline`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from recsys.content.encoder import ContentEncoder
    from recsys.content.text import encode_text

__all__ = [
    "ContentEncoder",
    "encode_text",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
