"""What docs/gate.md lists is what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from recsys.config.gate_rules import rule_texts
from serving.cli.judging import EXIT_CODES

ROOT = Path(__file__).parents[4]
TEXT = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    part = TEXT.partition(f"## {heading}\n")[2] if heading else TEXT
    lines = re.search(r"(?:^\|.*\n)+", part, flags=re.MULTILINE).group().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_settings() -> None:
    said = [
        [name.strip("` "), default.strip("`"), *rest] for name, default, *rest in rows("Settings")
    ]
    done = []
    for one in rule_texts():
        default = list(one.default) if isinstance(one.default, tuple) else one.default
        done.append([one.name, json.dumps(default), one.meaning, one.why])
    assert said == done


def test_the_rules() -> None:
    """Every rule that the code can find, with its verdict."""
    found = set()
    for name in ("decide", "estimates"):
        text = (ROOT / "recsys" / "simulation" / "gate" / f"{name}.py").read_text(encoding="utf-8")
        found |= set(re.findall(r'Reason\(\s*"(\w+)",\s*(\w+)', text))
        found |= {(rule, "HOLD") for rule in re.findall(r'^        \("(\w+_(?:drop|rise))",', text,
                                                        flags=re.MULTILINE)}  # fmt: skip
    assert {(rule.strip("` "), verdict) for rule, verdict, _ in rows("Rules")} == found
    settings = {one.name for one in rule_texts()}
    named = {name for row in rows("Rules") for name in re.findall(r"`(\w+)`", row[2])}
    assert named <= settings
    # All bounds are used by a rule, but what describes the measurement.
    assert settings - named == {"metrics", "level", "reward_window_s"}


def test_the_exit_codes() -> None:
    assert {row[0].strip(): int(row[2]) for row in rows("")} == EXIT_CODES
    assert len({*EXIT_CODES.values(), 1, 2, 130}) == len(EXIT_CODES) + 3
