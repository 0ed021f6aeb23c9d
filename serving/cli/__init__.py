"""The `recsys` command, one file a verb or a family of them.

Nothing imports it but the entry point.
"""

from __future__ import annotations

from serving.cli.command import app, main

__all__ = ["app", "main"]
