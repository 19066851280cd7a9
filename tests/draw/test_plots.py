"""Curves, bars and dots hold the data that they were given: read from their artists, not from their pixels."""

import itertools

import numpy as np
import pytest
import torch
from matplotlib.colors import same_color

from tests.draw.artists import ticks
from vit_walkthrough import draw
from vit_walkthrough.draw.theme import ROLES

CURVE = np.array([0.0, 1.0, 2.0, 4.0])


def test_plot_curves_holds_every_curve_under_its_name():
    ax = draw.plot_curves({"a": (CURVE, CURVE**2), "b": ([1, 2], [3.0, 4.0])}, xlabel="x", ylabel="y")
    assert [line.get_xydata().T.tolist() for line in ax.lines] == [[[0, 1, 2, 4], [0, 1, 4, 16]], [[1, 2], [3, 4]]]
    assert [(text.get_text(), *text.xy) for text in ax.texts] == [("b", 2, 4), ("a", 4, 16)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    assert not draw.plot_curves({"a": (CURVE, CURVE)}).texts
    left, _ = draw.side_by_side(2)  # the names would run into the neighbour
    draw.plot_curves({"a": (CURVE, CURVE), "b": (CURVE, CURVE)}, ax=left)
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["a", "b"]
    assert len({line.get_linestyle() for line in left.lines}) == 2


def test_curves_differ_in_colour_and_no_name_of_one_covers_another():
    assert same_color(draw.plot_curves({"a": (CURVE, CURVE)}, role="query").lines[0].get_color(), ROLES["query"])
    ax = draw.plot_curves({str(name): (CURVE, CURVE + name / 100) for name in range(7)})
    colours = [line.get_color() for line in ax.lines]
    assert len(set(colours)) == 7
    assert [text.get_color() for text in ax.texts] == colours
    boxes = [text.get_window_extent() for text in ax.texts]
    assert all(lower.y1 < upper.y1 - 5 for lower, upper in itertools.pairwise(boxes))


def bars_of(ax) -> list[tuple]:
    """From top to bottom: the name, the length and what is written at its end."""
    assert ax.yaxis_inverted()  # the first is at the top
    np.testing.assert_allclose([bar.get_y() + bar.get_height() / 2 for bar in ax.patches], ax.get_yticks())
    lengths, words = [bar.get_width() for bar in ax.patches], [text.get_text() for text in ax.texts]
    return list(zip(ticks(ax.yaxis), lengths, words, strict=True))


def test_plot_bars_draws_each_value_at_its_name_and_writes_it():
    ax = draw.plot_bars({"head": 7_690.0, "blocks": 85_054_464.0})
    assert bars_of(ax) == [("head", 7690, "7,690"), ("blocks", 85054464, "85,054,464")]
    assert (ax.get_xlim()[0], ax.get_xlim()[1] >= 85_054_464) == (0, True)
    assert bars_of(draw.plot_bars({"a": 0.0, "b": 0.0})) == [("a", 0, "0"), ("b", 0, "0")]


@pytest.mark.parametrize("chance", [0, 0.1])
@pytest.mark.parametrize("plot", [draw.plot_bars, lambda values, **more: draw.plot_dots({"a": [values["a"]]}, **more)])
def test_a_dotted_line_stands_at_chance(plot, chance):
    def dotted(ax):
        return [line.get_xdata() for line in ax.lines if line.get_linestyle() == ":"]

    assert dotted(plot({"a": 0.5}, chance=chance)) == [[chance, chance]]
    assert not dotted(plot({"a": 0.5}))


def test_plot_probabilities_puts_the_five_likeliest_first_and_numbers_names_that_are_the_same():
    ax = draw.plot_probabilities([0.1, 0.0, 0.4, 0.3, 0.2, 0.0])
    likeliest = zip((2, 3, 4, 0, 1), (0.4, 0.3, 0.2, 0.1, 0.0), strict=True)
    assert bars_of(ax) == [(f"class {k}", p, f"{p:.1%}") for k, p in likeliest]
    assert ax.get_xlim() == (0, 1)
    cranes = draw.plot_probabilities(torch.tensor([0.25, 0.5, 0.25]), names=["crane", "crane", "dog"])  # of ImageNet
    assert bars_of(cranes) == [("crane (1)", 0.5, "50.0%"), ("crane (0)", 0.25, "25.0%"), ("dog (2)", 0.25, "25.0%")]


def test_plot_dots_draws_every_measurement_and_writes_the_mean_of_each_name_beside_its_row():
    ax = draw.plot_dots({"a": [0.25, 0.5, 0.75], "b": [0.125, 0.375]})
    lines = [line.get_xydata().tolist() for line in ax.lines]
    assert lines[::2] == [[[0.25, 0], [0.5, 0], [0.75, 0]], [[0.125, 1], [0.375, 1]]]
    assert lines[1::2] == [[[0.5, -0.3], [0.5, 0.3]], [[0.25, 0.7], [0.25, 1.3]]]
    assert (ax.get_yticks().tolist(), ticks(ax.yaxis), ax.get_ylim()) == ([0, 1], ["a", "b"], (1.5, -0.5))
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("50.0%", 0), ("25.0%", 1)]
    ax.figure.draw_without_rendering()
    assert all(text.get_window_extent().x0 > ax.get_window_extent().x1 for text in ax.texts)
    percent, seconds = ax.xaxis.get_major_formatter(), draw.plot_dots({"a": [1]}, unit="{:.0f} s", limits=(0, 400))
    assert [percent(value, 0) for value in (0.5, 0.125)] == ["50%", "12.5%"]
    assert (seconds.texts[0].get_text(), seconds.get_xlim()) == ("1 s", (0, 400))
