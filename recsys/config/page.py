"""The page of all settings, as docs/configuration.md has it."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.settings.reference import SectionText

__all__ = ["configuration_page"]

_HEAD = """# Settings

Every setting of `recsys.toml`, made from its declaration by `recsys config reference`; a test
fails when this page is older than that. `recsys config show` prints what a run has in effect and
marks what is not as by default. A setting that is unknown, of a wrong type or out of range is
refused before anything starts, with the nearest name. Secrets (passwords, keys) come from the
environment and never stand in the file; see [redis.md](redis.md) and [http.md](http.md).
"""


def configuration_page(sections: Sequence[SectionText]) -> str:
    """Markdown: a table a section."""
    parts = [_HEAD]
    for section in sections:
        if section.path:
            marks = "[[]]" if section.repeated else "[]"
            half = len(marks) // 2
            title = f"`{marks[:half]}{section.path}{marks[half:]}`"
            parts.append(f"## {title}\n\n{section.meaning}\n")
        else:
            parts.append("## Outside any table\n")
        if section.settings:
            rows = ["| setting | what it may be | default | meaning |", "|---|---|---|---|"]
            for one in section.settings:
                cells = (
                    f"`{one.name}`",
                    _cell(one.kind),
                    _default(one.default),
                    _cell(one.meaning),
                )
                rows.append("| " + " | ".join(cells) + " |")
            parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`")


def _default(text: str) -> str:
    return text if text in ("needed", "not said") else f"`{_cell(text)}`"
