"""Coordinates of charts: inside their frame, in proportion, and at the right power of ten."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elastic_export.report.chart import WIDTH, Bar, Part, Point, bars_of, scatter_of

SIZES = st.floats(0, 1e15)
BARS = st.lists(
    st.builds(
        Bar,
        st.text(max_size=5),
        st.lists(st.builds(Part, st.sampled_from("ab"), SIZES), max_size=4).map(tuple),
        st.just(""),
        st.none() | SIZES,
    ),
    max_size=6,
)


@given(BARS)
@example([Bar("", (Part("a", 2.3e-308),), "", None)])
def test_bars_stay_in_their_frame_and_in_proportion(bars: list[Bar]) -> None:
    chart = bars_of(bars)
    rects = [(rect, part) for drawn, bar in zip(chart.bars, bars, strict=True)
             for rect, part in zip(drawn.rects, bar.parts, strict=True)]  # fmt: skip
    for rect, _ in rects:
        assert 0 <= rect.x <= rect.x + rect.width <= WIDTH + 1e-6
    longest = max((p.size for _, p in rects), default=0)
    for rect, part in rects:
        if longest:
            widest = next(r.width for r, p in rects if p.size == longest)
            assert rect.width == pytest.approx(part.size / longest * widest, abs=1e-6)
    for drawn in chart.bars:
        assert 0 <= drawn.end <= WIDTH


def test_parts_follow_each_other_and_the_mark_is_on_their_scale() -> None:
    chart = bars_of([Bar("x", (Part("a", 3), Part("b", 1)), "", mark=4.0), Bar("y", (Part("a", 2),), "", None)])
    (a, b), (c,) = (bar.rects for bar in chart.bars)
    assert b.x == pytest.approx(a.x + a.width)
    assert a.width == pytest.approx(3 * b.width)
    assert c.width == pytest.approx(2 * b.width)
    assert chart.bars[0].mark == pytest.approx(b.x + b.width)
    assert chart.kinds == ("a", "b")


ERRORS = st.one_of(st.sampled_from([0.0, math.inf]), st.floats(1e-12, 10))
POINTS = st.lists(st.builds(Point, st.sampled_from("ab"), st.integers(0, 61), ERRORS, st.just("")), max_size=20)


@given(POINTS, st.lists(st.floats(1e-9, 1), max_size=3))
def test_points_stay_in_their_frame(points: list[Point], bounds: list[float]) -> None:
    chart = scatter_of(points, bounds, 62)
    for dot in chart.dots:
        assert chart.left <= dot.x <= chart.right
        assert 0 <= dot.y <= chart.bottom
    for line in (*chart.powers, *chart.bounds):
        assert 0 <= line.at <= chart.bottom + 1e-9
    above = sorted(zip(points, chart.dots, strict=True), key=lambda pair: pair[0].value)
    heights = [dot.y for _, dot in above]
    assert heights == sorted(heights, reverse=True), "larger ones are higher"


def test_a_power_of_ten_is_on_its_line_and_a_layer_over_its_number() -> None:
    chart = scatter_of([Point("a", 3, 1e-6, ""), Point("a", 0, 1e-3, "")], [1e-2], 12)
    lines = {line.text: line.at for line in chart.powers}
    assert chart.dots[0].y == pytest.approx(lines["1e-6"])
    assert chart.dots[1].y == pytest.approx(lines["1e-3"])
    assert chart.bounds[0].at == pytest.approx(lines["1e-2"])
    assert chart.dots[0].x == {line.text: line.at for line in chart.layers}["3"]
