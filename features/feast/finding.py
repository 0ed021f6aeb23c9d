"""What a check of a Feast repository found."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["FeastFinding"]


class FeastFinding(NamedTuple):
    """Outcome of one check.

    Attributes:
        state: "OK", "WARN" or "FAIL".
        check: what was looked at.
        detail: what was found.
        remedy: what to do; empty when it is OK.
        upstream: Feast's issues about it, such as "feast#6787".
    """

    state: Literal["OK", "WARN", "FAIL"]
    check: str
    detail: str
    remedy: str = ""
    upstream: tuple[str, ...] = ()

    def __str__(self) -> str:
        upstream = f" ({', '.join(self.upstream)})" if self.upstream else ""
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.state:<4}  {self.check}: {self.detail}{upstream}{remedy}"
