"""Item content to vectors: text, attributes, and their fusion.

Imports `files`; may be imported by `pipeline`.
"""

from __future__ import annotations

from recsys.content.encoder import ContentEncoder
from recsys.content.text import encode_text

__all__ = ["ContentEncoder", "encode_text"]
