"""Formats in which a text may be a time, told by its shape."""

from __future__ import annotations

import re
from itertools import permutations

__all__ = ["formats_like"]

_WEEKDAY = re.compile(r"^(mon|tue|wed|thu|fri|sat|sun)(day|sday|nesday|rsday|urday)?\b", re.I)
_MONTH = re.compile(
    r"(?<![a-z])(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
    r"(uary|ruary|ch|il|e|y|ust|tember|ober|ember)?(?![a-z])",
    re.I,
)
_TIME = re.compile(
    r"(?<!\d)(?P<hour>\d{1,2})(?P<mark>[:.])\d{2}(?P<second>(?P=mark)\d{2})?(?P<fraction>[.]\d+)?"
    r"(?P<half>\s*[ap]m)?(?![\d.])",
    re.I,
)
_OFFSET = re.compile(r"(?<=[MSfp])(\s*)(?:GMT|UTC)?[+-]\d{2}:?\d{2}(?!\d)")
_YEAR = re.compile(r"(?<!\d)(19|20)\d{2}(?!\d)")
_NUMBER = re.compile(r"(?<![%\d])\d{1,2}(?!\d)")
_DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_LEFT = re.compile(r"[a-z\d]", re.I)


def formats_like(text: str) -> list[str]:
    """Formats of strftime that may fit a text, the likeliest first; dates with the day first lead.

    >>> formats_like("11/30/2019 9:05:58 AM")
    ['%d/%m/%Y %I:%M:%S %p', '%m/%d/%Y %I:%M:%S %p']
    >>> formats_like("Wed Oct 10 20:19:24 +0000 2018")
    ['%a %b %d %H:%M:%S %z %Y']
    """
    text = text.strip()
    if text.isdigit():
        return [_DIGITS[len(text)]] if len(text) in _DIGITS else []
    text = _WEEKDAY.sub(lambda found: "%A" if found[2] else "%a", text, count=1)
    text, named = _MONTH.subn(lambda found: "%B" if found[2] else "%b", text, count=1)
    text = _with_time(text)
    text = _OFFSET.sub(lambda found: f"{found[1]}{_literal(found[0])}%z", text, count=1)
    text, full = _YEAR.subn("%Y", text, count=1)
    text = re.sub(r"(?<=[\s%Sfp])(UTC|GMT|Z)\b", lambda found: f"%%{found[0]}", text)
    wanted = ([] if full else ["%y"]) + ["%d"] + ([] if named else ["%m"])
    places = list(_NUMBER.finditer(text))
    if len(places) != len(wanted):
        return []
    orders = [one for one in permutations(wanted) if full or one[-1] == "%y"]
    found = [_filled(text, places, order) for order in sorted(orders)]
    return [one.replace("%%", "") for one in found if not _strange(one)]


def _literal(offset: str) -> str:
    return next((zone for zone in ("GMT", "UTC") if zone in offset), "")


def _with_time(text: str) -> str:
    """The text with its time of day as a format; one with dots only where it says AM or PM."""
    for found in _TIME.finditer(text):
        mark = found["mark"]
        if mark == "." and not found["half"]:
            continue
        format = ("%I" if found["half"] else "%H") + f"{mark}%M"
        format += f"{mark}%S" if found["second"] else ""
        format += "%.f" if found["fraction"] else ""
        if found["half"]:
            format += (" " if found["half"][0].isspace() else "") + "%p"
        return text[: found.start()] + format + text[found.end() :]
    return text


def _filled(text: str, places: list[re.Match[str]], order: tuple[str, ...]) -> str:
    for place, part in reversed(list(zip(places, order, strict=True))):
        text = text[: place.start()] + part + text[place.end() :]
    return text


def _strange(format: str) -> bool:
    """Whether letters or digits are left that are no part of a time."""
    rest = re.sub(r"%%(UTC|GMT|Z)|%\.f|%[a-zA-Z]|(GMT|UTC)(?=%z)", "", format)
    return bool(_LEFT.search(rest.replace("T", "", 1)))
