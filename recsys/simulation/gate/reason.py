"""One finding of the gate."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["HOLD", "PROMOTE", "SUSPICIOUS", "Reason", "Verdict"]

Verdict = Literal["PROMOTE", "HOLD", "SUSPICIOUS"]
PROMOTE: Literal["PROMOTE"] = "PROMOTE"
HOLD: Literal["HOLD"] = "HOLD"
SUSPICIOUS: Literal["SUSPICIOUS"] = "SUSPICIOUS"


class Reason(NamedTuple):
    """What one rule found.

    Attributes:
        rule: its name, as in the documentation.
        verdict: what it asks for; PROMOTE where it speaks for the candidate.
        says: a sentence for somebody who did not write the code.
        value: what was measured, if it is a number.
        bound: what it was compared with.
        slice: group of users or items it is about; "" for all.
    """

    rule: str
    verdict: Verdict
    says: str
    value: float | None = None
    bound: float | None = None
    slice: str = ""
