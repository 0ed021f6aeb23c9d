from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.drawing import FULL, SMALL, Size, round_ticks
from recsys.evaluation.plots import Bar, bar_plot, line_plot

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_bars_have_the_right_heights() -> None:
    svg = parsed(
        bar_plot(["a", "b"], {"x": [Bar(1.0), Bar(0.5)], "y": [Bar(0.0), None]}, title="t")
    )
    heights = [float(rect.attrib["height"]) for rect in svg.iter(f"{SVG}rect")]
    assert len(heights) == 3  # the missing bar is not drawn, the empty one is
    assert heights[1] == 0.0
    assert heights[0] == pytest.approx(2 * heights[2])


def test_whisker_and_note() -> None:
    plain = bar_plot(["a"], {"x": [Bar(0.5)]}, title="t")
    whisker = bar_plot(["a"], {"x": [Bar(0.5, 0.25, 0.75)]}, title="t", percent=True)
    assert "whisker" not in plain
    assert 'class="whisker"' in whisker
    assert "<title>a · x: 50.0% (25.0% to 75.0%)</title>" in whisker
    assert "<title>a · x: 0.5000</title>" in plain


def test_line_goes_through_its_points() -> None:
    svg = parsed(line_plot({"x": [(1, 0.0), (2, 1.0), (3, 0.5)]}, title="t", x_label="k"))
    (line,) = svg.iter(f"{SVG}polyline")
    points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[2][1] == pytest.approx((points[0][1] + points[1][1]) / 2, abs=0.1)


def test_line_options() -> None:
    points = {"loss": [(1.0, 0.91), (2.0, 0.9)]}
    assert ">0.9</text>" in line_plot(points, title="t", x_label="epoch", y_range=None)
    assert ">0</text>" not in line_plot(points, title="t", x_label="epoch", y_range=None)
    assert ">0</text>" in line_plot(points, title="t", x_label="epoch")
    assert ">80%</text>" in line_plot(points, title="t", x_label="epoch", percent=True)
    assert "epoch" in line_plot(points, title="t", x_label="epoch")


def points_of(svg: str) -> list[tuple[float, float]]:
    (line,) = parsed(svg).iter(f"{SVG}polyline")
    return [(float(x), float(y)) for x, y in (p.split(",") for p in line.attrib["points"].split())]


def test_mark_stands_at_its_x() -> None:
    line = {"x": [(1.0, 0.3), (2.0, 0.9), (3.0, 0.5)]}
    plain = line_plot(line, title="t", x_label="epoch")
    marked = line_plot(line, title="t", x_label="epoch", marked=(2.0, "best: 2"))
    assert 'class="mark"' not in plain
    assert points_of(marked) == points_of(plain)
    (mark,) = (p for p in parsed(marked).iter(f"{SVG}path") if p.attrib["class"] == "mark")
    assert mark.attrib["d"].startswith(f"M{points_of(marked)[1][0]:.1f} ")
    assert ">best: 2</text>" in marked


@pytest.mark.parametrize("x", [1.0, 3.0])
def test_the_label_of_a_mark_stays_on_the_page(x: float) -> None:
    label = "a rather long label"
    line = {"x": [(1.0, 0.3), (3.0, 0.5)]}
    svg = parsed(line_plot(line, title="t", x_label="", marked=(x, label), size=SMALL))
    (text,) = (each for each in svg.iter(f"{SVG}text") if each.text == label)
    half = 3.5 * len(label)
    assert half <= float(text.attrib["x"]) <= SMALL.width - half


def test_x_axis_can_span_more_than_the_points() -> None:
    line = {"x": [(2.0, 0.3), (3.0, 0.5)]}
    alone = line_plot(line, title="t", x_label="epoch")
    wide = line_plot(line, title="t", x_label="epoch", x_range=(1.0, 5.0))
    marked = line_plot(line, title="t", x_label="epoch", x_range=(1.0, 4.0), marked=(5.0, ""))
    (left, _), (right, _) = points_of(alone)
    step = (right - left) / 4
    assert points_of(wide)[0][0] == pytest.approx(left + step, abs=0.1)
    assert points_of(wide)[1][0] == pytest.approx(left + 2 * step, abs=0.1)
    assert points_of(marked)[1][0] == pytest.approx(left + 2 * step, abs=0.1)


@pytest.mark.parametrize("size", [SMALL, Size(500, 250)])
def test_a_plot_fills_its_size(size: Size) -> None:
    svg = parsed(line_plot({"x": [(1.0, 0.0), (2.0, 1.0)]}, title="t", x_label="k", size=size))
    assert svg.attrib["viewBox"] == f"0 0 {size.width} {size.height}"
    for circle in svg.iter(f"{SVG}circle"):
        assert 0 < float(circle.attrib["cx"]) < size.width
        assert 0 < float(circle.attrib["cy"]) < size.height
    assert max(float(circle.attrib["cx"]) for circle in svg.iter(f"{SVG}circle")) > size.width - 30


@pytest.mark.parametrize("points", [[(1.0, 3.0)], [(1.0, 0.0)], [(1.0, -2.0), (2.0, -2.0)]])
@pytest.mark.parametrize("y_range", [(0.0, 0.0), None])
def test_flat_and_single_points(
    points: list[tuple[float, float]], y_range: tuple[float, float] | None
) -> None:
    svg = line_plot({"x": points}, title="t", x_label="epoch", y_range=y_range)
    assert "nan" not in svg
    assert len(list(parsed(svg).iter(f"{SVG}circle"))) == len(points)


@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=6),
    st.integers(1, 12),
)
def test_everything_stays_on_the_page(values: list[float], num_series: int) -> None:
    groups = [f"g{n}" for n in range(len(values))]
    series = {f"s{n}": [Bar(v, v / 2, v * 1.5) for v in values] for n in range(num_series)}
    svg = bar_plot(groups, series, title="t")
    assert "nan" not in svg
    for rect in parsed(svg).iter(f"{SVG}rect"):
        x, y, w, h = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= FULL.width
        assert y + h <= FULL.height


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_reach_around(low: float, span: float) -> None:
    if low + span == low or span < abs(low) * 1e-6:
        return
    ticks = round_ticks(low, low + span)
    assert 2 <= len(ticks) <= 9
    assert ticks[0] <= low + span * 1e-3
    assert ticks[-1] >= low + span * (1 - 1e-3)


def test_text_is_escaped() -> None:
    name = '<b>&"x'
    for svg in (
        bar_plot([name], {name: [Bar(1.0)]}, title=name, x_label=name),
        line_plot({name: [(1.0, 1.0)]}, title=name, x_label=name),
    ):
        assert "<b>" not in svg
        assert "&lt;b&gt;&amp;" in svg
        parsed(svg)


def test_more_series_than_colours_reuse_them() -> None:
    series = {f"s{n}": [Bar(1.0)] for n in range(10)}
    used = re.findall(r'rect class="fill (s\d+)"', bar_plot(["a"], series, title="t"))
    assert used == ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s0", "s1"]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="one bar per group: 'x' has 1 for 2"):
        bar_plot(["a", "b"], {"x": [Bar(1.0)]}, title="t")
    with pytest.raises(ValueError, match="groups and series must not be empty"):
        bar_plot([], {"x": []}, title="t")
    with pytest.raises(ValueError, match="groups and series must not be empty"):
        bar_plot(["a"], {}, title="t")
    with pytest.raises(ValueError, match="series must hold at least one point each"):
        line_plot({"x": []}, title="t", x_label="k")
    with pytest.raises(ValueError, match="series must hold at least one point each"):
        line_plot({}, title="t", x_label="k")
    with pytest.raises(ValueError, match="series must hold finite points"):
        line_plot({"x": [(1.0, float("nan"))]}, title="t", x_label="k")
