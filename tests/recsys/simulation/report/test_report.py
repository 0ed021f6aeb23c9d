"""The report's page: what it shows, that it is whole and safe, and that its JSON comes back."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.drawing import number, short
from recsys.simulation.estimates.estimate import from_contributions
from recsys.simulation.report.page import report_page, write_report
from recsys.simulation.report.parts import (
    CurveLine,
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
from recsys.simulation.report.plots import curve_plot, forest_plot, weights_plot

VOID = {"meta", "br", "hr", "img", "input", "link"}
EVIL = '<script>alert("x")</script>&\'\u2028'
WEIGHTS = np.random.default_rng(0).lognormal(-0.5, 1.0, size=2000)


class Page(HTMLParser):
    """Tags, attributes and text; complains of tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def full(name: str = "candidate") -> ReportInput:
    """A report with every part; ``name`` stands wherever text may."""
    points = ((100.0, 0.2), (1000.0, 0.5), (10000.0, 0.9))
    curve = CurvePlot(
        (CurveLine(name, points), CurveLine(f"{name} 2", points)),
        x_label=name,
        title=name,
        text=name,
        percent=True,
        log_x=True,
        marked_x=5000.0,
        marked_label=name,
    )
    return ReportInput(
        title=name,
        decision=DecisionPart(name, name, (ReasonLine(name, name, name, 0.5, 0.25, name),)),
        facts={name: name, "rows": 12345, "share": 0.125},
        effects=(
            EffectLine(name, 0.012, 0.004, 0.02, 5000, note=name),
            EffectLine("click rate", -0.03, -0.05, -0.01, percent=True),
            EffectLine("alone", 0.0),
        ),
        weights=(WeightsPart.from_weights(name, WEIGHTS),),
        power=curve,
        slices=(EffectLine(name, -0.01, -0.02, -0.001, 400), EffectLine("b", 0.0, -0.1, 0.1)),
        estimates=(
            EstimateLine(name, name, 0.00455, 0.004, 0.005, 0.198, "ok", name),
            EstimateLine("b", "ips", 0.777, 0.7, 0.8, 1.5, "unusable", "no overlap"),
        ),
        diagnostics=(
            DiagnosticLine(name, False, 0.65, name, name),
            DiagnosticLine("fine", True, "yes"),
            DiagnosticLine("told", None, "so"),
        ),
        curves=(curve,),
        tables=(TablePart(name, ((name, "b"), ("1", name)), name),),
        cannot_conclude=(name,),
    )


def test_the_page_and_its_json(tmp_path: Path) -> None:
    path = write_report(tmp_path / "new" / "report.html", full())
    page = Page(path.read_text(encoding="utf-8"))
    assert page.tags.count("svg") == 6  # effects twice (shares apart), slices, weights, two curves
    for words in (
        "The main number is candidate: +0.0120 [+0.00400, +0.0200]. The new system is better.",
        "Worse here: candidate.",
        "measured 0.5000 · bound 0.2500",
        "Not passed: candidate.",
        "12,345",
        "0.00455",
        "not shown",
        "-5.0% to -1.0%",
    ):
        assert words in page.text, words
    assert "0.777" not in page.text  # of an estimate that the log cannot carry
    stored = json.loads((tmp_path / "new" / "report.json").read_text(encoding="utf-8"))
    assert ReportInput.from_dict(stored) == full()


def test_every_plot_has_its_numbers_in_a_table() -> None:
    page = report_page(full())
    for section in re.findall(r"<section>.*?</section>", page, flags=re.DOTALL):
        if "<svg" in section:
            assert "<table>" in section
    assert 'scope="col"' in page
    assert 'scope="row"' in page
    assert page.count('role="img" aria-label="') == 6


def test_only_a_title() -> None:
    page = Page(report_page(ReportInput("x")))
    assert page.tags.count("section") == 1
    assert "Nobody has written down what this data cannot say" in page.text


@pytest.mark.parametrize(
    ("verdict", "words", "colour"),
    [
        ("PROMOTE", "Nothing measured here speaks against", "s2"),
        ("HOLD", "Keep what runs now", "s5"),
        ("SUSPICIOUS", "too good or do not fit together", "s1"),
        ("ship it", "", "s6"),
    ],
)
def test_verdicts_in_words(verdict: str, words: str, colour: str) -> None:
    html = report_page(ReportInput("x", decision=DecisionPart(verdict)))
    assert f'<span class="verdict {colour}">{verdict}</span>' in html
    assert words in Page(html).text


def test_text_is_escaped_everywhere() -> None:
    html = report_page(full(EVIL))
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html
    assert page.text.count(EVIL) > 20
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_nothing_is_fetched_or_run() -> None:
    html = report_page(full())
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(page.tags)
    assert not {"src", "href", "xlink:href"} & {name for name, _ in page.attributes}
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert "prefers-color-scheme:dark" in html


def test_same_input_same_page() -> None:
    assert report_page(full()) == report_page(full())


def test_a_mapping_with_numpy_and_estimates(tmp_path: Path) -> None:
    estimate = from_contributions("snips", np.arange(10.0))
    result = {
        "title": "x",
        "effects": [{"name": "a", "value": np.float32(0.5), "num_units": np.int64(3)}],
        "weights": [WeightsPart.from_weights("p", WEIGHTS)],
        "power": {"lines": [{"name": "a", "points": np.array([[1, 0.5], [2, 0.75]])}],
                  "x_label": "n"},
        "estimates": [
            {"policy": "p", "estimator": estimate.name, "value": estimate.value,
             "low": estimate.low, "high": estimate.high, "verdict": "ok"}
        ],
    }  # fmt: skip
    path = write_report(tmp_path / "r.html", result)
    assert "4.5000" in Page(path.read_text(encoding="utf-8")).text
    stored = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert stored["format"] == 1
    assert stored["effects"][0]["num_units"] == 3
    assert stored["power"]["lines"][0]["points"] == [[1.0, 0.5], [2.0, 0.75]]


finite = st.floats(-1e12, 1e12)
texts = st.text(max_size=20)


@given(
    title=texts,
    effects=st.lists(
        st.builds(EffectLine, name=texts, value=finite, low=finite, high=finite, note=texts),
        max_size=3,
    ),
    slices=st.lists(st.builds(EffectLine, name=texts, value=finite), max_size=3),
    facts=st.dictionaries(
        texts, st.one_of(texts, finite, st.integers(-(2**60), 2**60)), max_size=3
    ),
)
def test_json_round_trip_of_anything(title, effects, slices, facts) -> None:
    report = ReportInput(title, effects=tuple(effects), slices=tuple(slices), facts=facts)
    again = ReportInput.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False)))
    assert again == report
    Page(report_page(report))


def test_histogram_of_weights() -> None:
    part = WeightsPart.from_weights("p", np.array([0.0, 0.5, 1.0, 2.0, 4.0]), num_bins=4)
    assert sum(part.counts) == 5
    assert part.edges[0] == 0.0
    assert part.edges[-1] > 4.0
    assert (part.mean, part.largest) == (1.5, 4.0)
    assert part.effective_share == pytest.approx(7.5**2 / 21.25 / 5)
    svg = weights_plot(part)
    assert svg.count("<rect") == 4
    assert "weight 1</text>" in svg
    assert WeightsPart.from_weights("p", np.zeros(3)).effective_share == 0.0


def test_plots_stay_within_their_frame() -> None:
    lines = [EffectLine("a" * 60, v, v - 1, v + 2) for v in (-1e6, 0.0, 3e5)]
    curve = CurvePlot((CurveLine("x", ((-2.0, -1.0), (5.0, 4.0))),), "x", marked_x=9.0,
                      marked_label="m" * 200)  # fmt: skip
    drawings = [
        forest_plot(lines, title="t"),
        weights_plot(WeightsPart.from_weights("p", WEIGHTS)),
        curve_plot(curve, title="t"),
    ]
    for svg in drawings:
        width, height = map(float, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
        assert all(0 <= float(x) <= width for x in re.findall(r'\b(?:c?x)="([-0-9.]+)"', svg))
        assert all(0 <= float(y) <= height for y in re.findall(r'\b(?:c?y)="([-0-9.]+)"', svg))


def test_numbers_for_readers() -> None:
    assert [number(v) for v in (0.0, 0.5, 0.00455, 1e-7, 1234.5, 60, 2e7)] == [
        "0", "0.5000", "0.00455", "1e-07", "1,234.5", "60", "2e+07",
    ]  # fmt: skip
    assert [number(v, True, sign=True) for v in (0.0, 0.025, -0.0025)] == [
        "+0.0%", "+2.5%", "-0.25%",
    ]  # fmt: skip
    assert [short(v) for v in (0.25, 12, 3500, 2e6, 5e9)] == ["0.25", "12", "3.5k", "2M", "5G"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "title: Field required"),
        ({"title": "x", "efects": ()}, "efects: Unexpected keyword argument"),
        ({"title": "x", "level": 1.0}, "level must be above 0 and below 1, got 1.0"),
        ({"title": "x", "effects": [{"name": "a", "value": np.nan}]}, r"effects.0.value: .*fi"),
        ({"title": "x", "facts": {"a": float("inf")}}, "facts"),
        ({"title": "x", "format": 9}, "format must be 1, got 9"),
        ({"title": "x", "power": {"lines": [], "x_label": ""}}, "lines must hold at least one"),
        (
            {
                "title": "x",
                "power": {"lines": [{"name": "a", "points": [[1, 2]]}] * 2, "x_label": ""},
            },
            "lines must have names of their own, got a, a",
        ),
        (
            {"title": "x", "weights": [{"policy": "p", "edges": [0, 1], "counts": [1, 2]}]},
            "edges must be one more than counts, got 2 for 2",
        ),
        (
            {"title": "x", "weights": [{"policy": "p", "edges": [1, 1], "counts": [1]}]},
            "edges must rise",
        ),
        (
            {"title": "x", "weights": [{"policy": "p", "edges": [0, 1], "counts": [-1]}]},
            "counts must be >= 0, got -1",
        ),
        ({"title": "x", "tables": [{"title": "t", "rows": [["a"], []]}]}, "equally long"),
        (
            {"title": "x", "curves": [{"lines": [{"name": "a", "points": [[2, 1], [1, 1]]}],
                                       "x_label": ""}]},
            "must be at least one, in rising x",
        ),
        (
            {"title": "x", "curves": [{"lines": [{"name": "a", "points": [[0, 1]]}],
                                       "x_label": "", "log_x": True}]},
            "x must be above 0 on a logarithmic axis, got 0",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "r.html", values)
    assert not list(tmp_path.iterdir())


def test_more_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path must end in .html .*, got .*r.json"):
        write_report(tmp_path / "r.json", ReportInput("x"))
    with pytest.raises(ValueError, match=r"effects\[0\].value must be finite, got inf; leave out"):
        ReportInput("x", effects=(EffectLine("a", float("inf")),))
    for weight in (np.array([]), np.array([-1.0]), np.array([np.nan])):
        with pytest.raises(ValueError, match="weight must be"):
            WeightsPart.from_weights("p", weight)
    with pytest.raises(ValueError, match="num_bins must be >= 2, got 1"):
        WeightsPart.from_weights("p", WEIGHTS, num_bins=1)
    with pytest.raises(ValueError, match="lines must hold at least one line"):
        forest_plot([], title="x")
