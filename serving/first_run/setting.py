"""A configuration that is not written yet: settings, and why each is what it is."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.errors import DataError
from features.whole_files import whole_file
from recsys.tuning.toml_text import to_toml

__all__ = ["DEFAULTS", "FirstConfig", "Setting", "relative"]

DEFAULTS = "`recsys config reference` names every setting and its default."

_WIDTH = 100


@dataclass(frozen=True)
class Setting:
    """One line of a configuration.

    Attributes:
        section: such as "data.columns".
        name: such as "weight".
        value: None: the setting is left out, and the reason says why.
        reason: a sentence for the comment above it.
        note: a few words for the comment behind it.
        others: values that it could have as well, and what speaks for each; they become comments.
    """

    section: str
    name: str
    value: Any
    reason: str
    note: str = ""
    others: tuple[tuple[Any, str], ...] = ()


@dataclass(frozen=True)
class FirstConfig:
    """A configuration that is not written yet.

    Attributes:
        head: sentences for the top of the file.
        settings: in the order of the file.
    """

    head: tuple[str, ...]
    settings: tuple[Setting, ...]

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Setting and reason, where there is a reason; close calls with what else it could be."""
        found = []
        for one in self.settings:
            name = f"{one.section}.{one.name}"
            told = one.reason
            if one.note:
                told = f"{_value(one.value)} ({one.note})"
            if told:
                found.append((name, told))
            found += [(name, f"or {_value(value)}: {why}") for value, why in one.others]
        return found

    def to_toml(self) -> str:
        """The file's text."""
        lines = [line for sentence in self.head for line in _comment(sentence)]
        section = None
        for one in self.settings:
            if one.section != section:
                section = one.section
                lines += ["", f"[{section}]"]
            lines += _comment(one.reason)
            if one.value is not None:
                line = _line(one.name, one.value)
                lines.append(f"{line}  # {one.note}" if one.note else line)
            for value, why in one.others:
                lines += _comment(f"or, {why}:")
                lines.append(f"# {_line(one.name, value)}")
        return "\n".join(lines) + "\n"

    def write(self, path: Path, *, force: bool = False) -> None:
        """Write the file.

        Raises:
            DataError: it is there and ``force`` is not set.
        """
        if path.exists() and not force:
            raise DataError(f"{path} must not be there yet; give --force to replace it, or --out")
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as draft:
            draft.write_text(self.to_toml(), encoding="utf-8")


def relative(path: Path | str, target: Path) -> str:
    """A path as it stands in the configuration file ``target``."""
    directory = target.absolute().parent
    return Path(os.path.relpath(Path(path).absolute(), directory)).as_posix()


def _line(name: str, value: Any) -> str:
    return to_toml({name: value}).strip()


def _value(value: Any) -> str:
    return _line("x", value).partition(" = ")[2]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2)]
