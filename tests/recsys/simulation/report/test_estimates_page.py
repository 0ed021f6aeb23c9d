from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[4] / "docs" / "estimates.md"


def test_the_code_of_the_page_runs_and_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code) == 1
    names: dict[str, object] = {}
    exec(code[0], names)
    assert "new: ok" in capsys.readouterr().out
    table = names["table"]
    truth = 0.1 * 0.02 + 0.1 * 0.04 + 0.2 * 0.06 + 0.6 * 0.08
    estimates = table.policies["new"].estimates()  # type: ignore[attr-defined]
    for name in ("snips", "dr", "ips"):
        assert abs(estimates[name].value - truth) < 4 * estimates[name].standard_error
    assert table.a_a_passes  # type: ignore[attr-defined]
