from __future__ import annotations

import pytest

from recsys.errors import ConfigError
from recsys.simulation.trial.guardrail_options import guardrail_table, parse_guardrails
from tests.recsys.simulation.trial.test_simulate_estimates import trial


def test_margins_from_text() -> None:
    found = {one.name: one.margin for one in parse_guardrails(["diversity=0.3", "no-click=1"])}
    assert (found["diversity"], found["no-click"], found["coverage"]) == (0.3, 1.0, 0.2)
    for text in ("diversity", "diversity=much"):
        with pytest.raises(ConfigError, match="guardrail must be NAME=LOSS"):
            parse_guardrails([text])
    with pytest.raises(ConfigError, match="unknown guardrail 'fun'"):
        parse_guardrails(["fun=0.1"])


def test_the_table_has_a_line_an_arm_and_guardrail() -> None:
    table = guardrail_table(trial())
    head, *rows = table.rows
    assert [row[:2] for row in rows][:2] == [("shuffle", "conversions"), ("shuffle", "no-click")]
    assert len(rows) == 2 * 6
    coverage = dict(zip(head, rows[2], strict=True))
    assert coverage["control"] == f"{3 / 80:.4f}"
    assert (coverage["harm"], coverage["margin"]) == ("a fall", "20%")
    assert coverage["low"] == coverage["change"] == coverage["high"]  # known without error
    assert rows[-1][1] == "new-items"
    assert rows[-1][4] == "-"  # the control shows none
    assert "no-click: sessions without a click" in table.text
