"""The report of a simulation, a gate or an experiment: one HTML page, and the same as JSON.

The page needs nothing else: no network, no script, no font. It opens from a file, follows the
reader's light or dark setting, and every plot stands beside a table with its numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from features.whole_files import whole_file
from recsys.evaluation.drawing import number, short
from recsys.evaluation.page import folded, legend, page, section, table
from recsys.simulation.report.parts import (
    CurvePlot,
    DecisionPart,
    DiagnosticLine,
    EffectLine,
    EstimateLine,
    ReasonLine,
    ReportInput,
    TablePart,
    WeightsPart,
)
from recsys.simulation.report.plots import (
    curve_plot,
    forest_plot,
    weights_plot,
    with_ends,
)

__all__ = ["report_page", "write_report"]

STYLE = """
.verdict{display:inline-block;padding:2px 14px;border-radius:8px;font-weight:700;
font-size:1.3rem;border:2px solid var(--c);color:var(--text)}
.badge{display:inline-block;padding:0 8px;border-radius:6px;font-size:.78rem;font-weight:600;
border:1px solid var(--c);color:var(--text);margin-right:8px}
ol.reasons{margin:.8em 0 0;padding-left:1.4em}
ol.reasons li{margin:0 0 .6em;max-width:44em}
.small{color:var(--soft);font-size:.85rem}
.span{stroke:var(--c);stroke-width:2;fill:none}
ul.plain{color:var(--text);font-size:1rem}
h3{font-size:1rem;margin:1em 0 .2em}
table{margin-top:8px}
@media(max-width:640px){section{overflow-x:auto}svg{min-width:600px}}
"""
# Colour of a verdict (class of the page); what is in no list is neutral. Words say it as well.
GOOD = ("PROMOTE", "SHIP", "OK", "PASSED")
BAD = ("HOLD", "STOP", "DO NOT SHIP", "FAILED", "UNUSABLE")
ODD = ("SUSPICIOUS", "WEAK", "INCONCLUSIVE", "REFUSED")
MEANING: Mapping[str, str] = {
    "PROMOTE": "Nothing measured here speaks against using the new system.",
    "HOLD": "Keep what runs now. Something got worse, or is not proven.",
    "SUSPICIOUS": (
        "Do not use it yet: the numbers are too good or do not fit together. Usually it is a "
        "mistake in the data or the measurement. Look there first."
    ),
}
NOT_THOUGHT = (
    "Nobody has written down what this data cannot say. Treat every number as true of the period "
    "and the people measured, and of nothing else."
)


def write_report(path: Path, result: ReportInput | Mapping[str, Any]) -> Path:
    """Write the page, and the same as JSON beside it (``report.html`` and ``report.json``).

    Args:
        path: the page, ending in ".html"; its directory is made if missing.
        result: see `ReportInput`; a mapping of its shape does as well.

    Returns:
        ``path``.

    Raises:
        ValueError: another ending, or as in `ReportInput.from_dict`.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise ValueError(f"path must end in .html (the JSON file stands beside it), got {path}")
    report = result if isinstance(result, ReportInput) else ReportInput.from_dict(result)
    text = json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft, whole_file(path.with_suffix(".json")) as data:
        draft.write_text(report_page(report), encoding="utf-8")
        data.write_text(text, encoding="utf-8")
    return path


def report_page(report: ReportInput) -> str:
    """The HTML document."""
    parts = [
        _decision(report.decision) if report.decision else "",
        _effects(report.effects, report.level),
        _slices(report.slices, report.level),
        _estimates(report.estimates, report.level),
        _weights(report.weights),
        _power(report.power) if report.power else "",
        *(_curve(plot) for plot in report.curves),
        _diagnostics(report.diagnostics),
        *(_table_part(part) for part in report.tables),
        _cannot(report.cannot_conclude),
        _facts(report.facts),
    ]
    return page(report.title, "\n".join(filter(None, parts)), style=STYLE)


def _decision(decision: DecisionPart) -> str:
    verdict = decision.verdict
    badge = f'<span class="verdict {_colour(verdict)}">{escape(verdict)}</span>'
    sentences = [decision.summary, MEANING.get(verdict.upper(), "")]
    text = " ".join(escape(sentence) for sentence in sentences if sentence)
    reasons = "".join(f"<li>{_reason(reason)}</li>" for reason in decision.reasons)
    body = f'<h3>Why</h3><ol class="reasons">{reasons}</ol>' if reasons else ""
    return section("Decision", f"{badge}</p><p>{text}", body)


def _reason(reason: ReasonLine) -> str:
    badge = ""
    if reason.verdict:
        badge = f'<span class="badge {_colour(reason.verdict)}">{escape(reason.verdict)}</span>'
    detail = [reason.slice, reason.rule]
    if reason.value is not None:
        detail.append(f"measured {number(reason.value)}")
    if reason.bound is not None:
        detail.append(f"bound {number(reason.bound)}")
    small = " · ".join(part for part in detail if part)
    return f'{badge}{escape(reason.says)} <span class="small">{escape(small)}</span>'


def _facts(facts: Mapping[str, str | int | float]) -> str:
    if not facts:
        return ""
    rows = [["what", "value"], *([name, _fact(value)] for name, value in facts.items())]
    return section("What this is made of", "So that it can be done again.", table(rows, words=(1,)))


def _fact(value: str | float) -> str:
    if isinstance(value, str | bool):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


def _effects(effects: Sequence[EffectLine], level: float) -> str:
    if not effects:
        return ""
    first = effects[0]
    text = (
        f"The main number is <b>{escape(first.name)}</b>: {escape(_in_words(first, level))} "
        "Each line is a difference, new minus old. The dot is what was measured; the bar around "
        f"it holds the true difference in {level:.0%} of such studies. A bar that crosses the "
        "broken line at zero settles nothing."
    )
    return section("What changes", text, _forest_andtable(effects, level, "effect"))


def _slices(slices: Sequence[EffectLine], level: float) -> str:
    if not slices:
        return ""
    lost = [one.name for one in slices if one.high is not None and one.high < 0]
    text = (
        "The same difference for groups of users and items. A mean may rise while a group loses. "
        + (
            f"Worse here: <b>{escape(', '.join(lost))}</b>."
            if lost
            else "No group is clearly worse."
        )
    )
    return section("For whom", text, _forest_andtable(slices, level, "group"))


def _forest_andtable(lines: Sequence[EffectLine], level: float, noun: str) -> str:
    rows = [[noun, "difference", f"{level:.0%} interval", "measured on", "reading", "note"]]
    for one in lines:
        ends = "-"
        if one.low is not None and one.high is not None:
            low, high = (number(end, one.percent, sign=True) for end in (one.low, one.high))
            ends = f"{low} to {high}"
        units = "-" if one.num_units is None else f"{one.num_units:,}"
        value = number(one.value, one.percent, sign=True)
        rows.append([one.name, value, ends, units, _reading(one), one.note])
    if not any(one.note for one in lines):
        rows = [row[:-1] for row in rows]
    return forest_plot(lines, title=f"Differences by {noun}, with intervals") + table(
        rows, words=(5,)
    )


def _reading(one: EffectLine) -> str:
    if one.low is None or one.high is None:
        return "no interval"
    if one.low > 0:
        return "better"
    return "worse" if one.high < 0 else "not settled"


def _in_words(one: EffectLine, level: float) -> str:
    reading = {
        "better": "The new system is better.",
        "worse": "The new system is worse.",
        "not settled": "That may be chance.",
        "no interval": "How sure that is, is not known.",
    }[_reading(one)]
    return f"{with_ends(one)}. {reading}"


def _estimates(estimates: Sequence[EstimateLine], level: float) -> str:
    if not estimates:
        return ""
    rows = [["policy", "estimator", "value", f"{level:.0%} interval", "lift", "verdict", "why"]]
    for one in estimates:
        shown = one.value is not None and one.verdict != "unusable"
        ends = shown and one.low is not None and one.high is not None
        rows.append(
            [
                one.policy,
                one.estimator,
                number(one.value) if shown and one.value is not None else "not shown",
                f"{number(one.low or 0.0)} to {number(one.high or 0.0)}" if ends else "-",
                number(one.lift, True, sign=True) if shown and one.lift is not None else "-",
                one.verdict or "-",
                one.note,
            ]
        )
    text = (
        "What each policy would have earned, computed from the log of another one. Every estimator "
        "makes other assumptions; where they disagree, believe none of them alone. A value that "
        "the log cannot carry is not shown."
    )
    return section("Estimates from the log", text, table(rows, words=(6,)))


def _weights(parts: Sequence[WeightsPart]) -> str:
    if not parts:
        return ""
    text = (
        "How much each logged round counts when another policy is judged by it. Most rounds near 1 "
        "is good: the log looks like the new policy. A few rounds with huge weights, or a mean far "
        "from 1, mean that the log says little about it."
    )
    body = ""
    for part in parts:
        body += f"<h3>{escape(part.policy)}</h3>{weights_plot(part)}"
    rows = [["policy", "rounds", "mean weight", "largest", "effective share of rounds"]]
    rows += [
        [
            part.policy,
            f"{sum(part.counts):,}",
            "-" if part.mean is None else f"{part.mean:.3f}",
            "-" if part.largest is None else short(part.largest),
            "-" if part.effective_share is None else f"{part.effective_share:.1%}",
        ]
        for part in parts
    ]
    return section("How well the log covers it", text, body + table(rows))


def _power(plot: CurvePlot) -> str:
    text = plot.text or (
        "Chance that an online experiment of this size finds the effect, if it is there. Below "
        "80% an experiment that finds nothing says little."
    )
    return _drawn(plot, plot.title or "How long an online test must run", text)


def _curve(plot: CurvePlot) -> str:
    return _drawn(plot, plot.title or plot.x_label, plot.text)


def _drawn(plot: CurvePlot, title: str, text: str) -> str:
    xs = sorted({x for line in plot.lines for x, _ in line.points})
    if len(xs) > 12:
        xs = [xs[round(i * (len(xs) - 1) / 11)] for i in range(12)]
    at = [dict(line.points) for line in plot.lines]
    rows = [[plot.x_label, *(line.name for line in plot.lines)]]
    for x in xs:
        cells = [number(ys[x], plot.percent) if x in ys else "-" for ys in at]
        rows.append([f"{x:,.10g}", *cells])
    drawn = legend(line.name for line in plot.lines) + curve_plot(plot, title=title)
    return section(title, escape(text), drawn + folded("The numbers", table(rows)))


def _diagnostics(lines: Sequence[DiagnosticLine]) -> str:
    if not lines:
        return ""
    failed = [one.name for one in lines if one.passed is False]
    text = (
        f"Not passed: <b>{escape(', '.join(failed))}</b>."
        if failed
        else f"All of these {len(lines)} checks passed or inform."
    )
    rows = [["check", "result", "measured", "wanted", "what it means"]]
    for one in lines:
        result = "-" if one.passed is None else "passed" if one.passed else "NOT PASSED"
        value = one.value if isinstance(one.value, str) else number(one.value)
        rows.append([one.name, result, value, one.bound, one.says])
    return section("Checks", text, table(rows, words=(4,)))


def _table_part(part: TablePart) -> str:
    return section(part.title, escape(part.text), table(part.rows))


def _cannot(sentences: Sequence[str]) -> str:
    found = "".join(f"<li>{escape(one)}</li>" for one in sentences or (NOT_THOUGHT,))
    return section(
        "What cannot be concluded",
        "Whatever the numbers above say.",
        f'<ul class="plain">{found}</ul>',
    )


def _colour(verdict: str) -> str:
    word = verdict.upper()
    return "s2" if word in GOOD else "s5" if word in BAD else "s1" if word in ODD else "s6"
