"""Charts: where marks lie, and what they say to those who cannot see them."""

import re
from xml.etree import ElementTree

import pytest

from training.chart_axes import count_axis, linear_axis, log_axis, named_axis
from training.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Bar,
    bar_chart,
    dot_chart,
    line_chart,
)


def picture(figure: str) -> ElementTree.Element:
    """Return the SVG of a figure, which has to be well-formed."""
    found = re.search(r"<svg.*</svg>", figure, re.DOTALL)
    assert found is not None
    return ElementTree.fromstring(found.group())  # noqa: S314 - our own


def test_ticks_are_round_and_reach_both_ends() -> None:
    """0.013 to 0.047 in about five parts: the step above 0.0068 is 0.01."""
    axis = linear_axis([0.013, 0.047])
    assert [label for _, label in axis.ticks] == ["0.01", "0.02", "0.03", "0.04", "0.05"]
    assert (axis.share(0.01), axis.share(0.05)) == (0.0, 1.0)


def test_a_single_value_lies_inside_its_axis() -> None:
    """An axis without a width could not place anything."""
    assert 0 < linear_axis([0.25]).share(0.25) < 1


def test_a_power_of_ten_is_halfway_between_its_neighbours() -> None:
    """0.001 between 0.0001 and 0.01."""
    assert log_axis([1e-4, 1e-2]).share(1e-3) == pytest.approx(1 / 2)


def test_names_have_equal_places() -> None:
    """Two names lie at a quarter and three quarters."""
    axis = named_axis(["a", "b"])
    assert (axis.share(0), axis.share(1)) == (1 / 4, 3 / 4)


def test_long_counts_have_few_ticks() -> None:
    """100 epochs have a tick every ten: 1, 11, …, 91."""
    assert [label for _, label in count_axis(100).ticks] == [str(n) for n in range(1, 100, 10)]


def test_a_line_runs_from_corner_to_corner() -> None:
    """The lowest value of the first epoch is bottom left, the highest of the last top right."""
    svg = picture(line_chart("t", {"loss": [(1.0, 0.0), (2.0, 1.0)]}, "epoch"))
    (line,) = svg.iter("polyline")
    assert line.get("points") == (f"{LEFT:.1f},{HEIGHT - BOTTOM:.1f} {WIDTH - RIGHT:.1f},{TOP:.1f}")


def test_a_bar_is_as_high_as_its_value_and_says_its_interval() -> None:
    """0.5 on an axis from 0 to 1 is half of the plot's height."""
    svg = picture(bar_chart("t", ["all"], {"model": [Bar(0.5, 0.25, 1.0)]}))
    (bar,) = svg.iter("rect")
    assert float(bar.get("height", 0)) == pytest.approx((HEIGHT - TOP - BOTTOM) / 2, abs=0.1)
    assert bar.findtext("title") == "model, all: 0.5000, 0.2500 to 1.0000"


def test_a_picture_says_what_it_shows() -> None:
    """The label has the title and the figures, for a reader who hears the page."""
    svg = picture(line_chart("Loss by epoch", {"loss": [(1.0, 3.0), (2.0, 1.5)]}, "epoch"))
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == (
        "Loss by epoch. loss from 3.0000 at epoch 1 to 1.5000 at 2, between 1.5000 and 3.0000."
    )


def test_series_are_told_apart_without_colour() -> None:
    """The second series of dots is hollow."""
    points = [(1.0, 1.0)]
    svg = picture(dot_chart("t", {"a": points, "b": points}, count_axis(2), "trial"))
    assert [dot.get("class") for dot in svg.iter("circle")] == ["dot s0", "dot s1 open"]


def test_names_are_escaped() -> None:
    """A scorer or an item may be called anything."""
    figure = bar_chart("<b>", ["<i>"], {'"<u>': [Bar(1.0, 1.0, 1.0)]})
    assert not re.search(r"<[biu]>", figure)
    assert picture(figure).get("aria-label") == '<b>. "<u>: <i> 1.0000.'


def test_a_chart_of_nothing_is_empty() -> None:
    """A run whose metric was never finite still has a report."""
    assert list(picture(line_chart("t", {"auc": []}, "epoch")).iter("circle")) == []
