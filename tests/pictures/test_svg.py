"""Charts: where points fall, gaps, ticks and short numbers."""

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest

from fmd.pictures import svg


def drawn(figure: str) -> list[list[list[tuple[float, float]]]]:
    """For each line its pieces, each a list of (x, y) in the units of the SVG."""
    paths = re.findall(r'class="line s\d" d="([^"]*)"', figure)
    pieces = [[piece for piece in path.replace("h0", "").split("M") if piece] for path in paths]
    return [[[tuple(map(float, point.split())) for point in piece.split("L")] for piece in line] for line in pieces]


def test_a_straight_line_is_straight_and_fills_the_width():
    ((points,),) = drawn(svg.line_chart("rise", {"y": [(x, 10 + x) for x in range(0, 11)]}))
    xs, ys = zip(*points, strict=True)
    assert xs[0] == svg.LEFT
    assert xs[-1] == svg.WIDTH - svg.RIGHT
    slopes = [(b - a) / (d - c) for a, b, c, d in zip(ys, ys[1:], xs, xs[1:], strict=False)]
    assert slopes == pytest.approx([slopes[0]] * 10, abs=0.01)
    assert slopes[0] < 0  # up is down in SVG
    assert all(svg.TOP <= y <= svg.HEIGHT - svg.BOTTOM for y in ys)


def test_an_exponential_is_straight_on_the_logarithmic_axis_it_gets():
    points = {"y": [(x, 10.0**-x) for x in range(4)]}
    figure = svg.line_chart("fall", points)
    assert "log scale" in figure
    ((piece,),) = drawn(figure)
    steps = [b[1] - a[1] for a, b in itertools.pairwise(piece)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.11)
    assert "log scale" not in svg.line_chart("fall", points, allow_log=False)


def test_a_gap_where_there_is_no_number():
    ((first, second),) = drawn(svg.line_chart("gap", {"y": [(0, 1.0), (1, 2.0), (2, None), (3, math.nan), (4, 2.0)]}))
    assert len(first) == 2
    assert len(second) == 1


def test_nothing_to_draw():
    assert svg.line_chart("none", {}) == ""
    assert svg.line_chart("none", {"y": [(1, None)]}) == ""


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-30, 1e30])
def test_a_constant_and_a_single_point_can_be_drawn(value):
    for points in ([(0, value)], [(5, value), (10, value)]):
        ((piece,),) = drawn(svg.line_chart("constant", {"y": points}))
        assert all(svg.TOP <= y <= svg.HEIGHT - svg.BOTTOM for _, y in piece)


def test_the_markup_is_well_formed_and_escaped():
    figure = svg.line_chart("a < b & c", {"<x>": [(0, 1), (1, 2)], '"y"': [(0, 3)]})
    markup = re.search(r"<svg.*</svg>", figure).group()
    assert [e.text for e in ET.fromstring(markup).iter() if e.tag == "title"] == ["<x>", '"y"']
    assert "a &lt; b &amp; c" in figure
    assert "<x>" not in figure


def test_thinning_keeps_the_mean_the_order_and_the_end():
    points = [(x, float(x % 7)) for x in range(10_001)]
    thinned = svg.thin(points)
    assert len(thinned) <= svg.MOST_POINTS
    assert thinned[-1] == points[-1]
    assert [x for x, _ in thinned] == sorted(x for x, _ in thinned)
    assert sum(y for _, y in thinned) / len(thinned) == pytest.approx(3, abs=0.1)
    assert svg.thin([(x, None) for x in range(1000)])[5][1] is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.1 + 0.2, "0.3"), (1234, "1234"), (12345, "12.3k"), (999_999, "1M"), (2.5e9, "2.5G"), (2e-5, "2e-5"),
     (-0.00012, "-1.2e-4"), (0.00025, "2.5e-4"), (1e-12, "1e-12")],
)  # fmt: skip
def test_short_numbers(value, text):
    assert svg.short(value) == text


@pytest.mark.parametrize(("low", "high"), [(0, 60), (0.94, 1.7), (35.9, 41), (-2, 3), (0, 1), (1e-9, 2e-9), (0, 1e9)])
def test_linear_ticks_are_few_even_and_inside(low, high):
    ticks = svg.linear_ticks(low, high)
    assert 3 <= len(ticks) <= 8
    assert low - 1e-9 * high <= ticks[0]
    assert ticks[-1] <= high * (1 + 1e-9)
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps))


@pytest.mark.parametrize(("low", "high"), [(0.1, 1), (0.08, 1.5), (1e-9, 3), (0.19, 1.8), (1e-30, 1)])
def test_log_ticks_are_few_and_inside(low, high):
    ticks = svg.log_ticks(low, high)
    assert 2 <= len(ticks) <= 10
    assert all(low * 0.99 <= tick <= high * 1.01 for tick in ticks)
