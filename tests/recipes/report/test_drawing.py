"""Layout, axes and smoothing of the report's drawings."""

import pytest

from gemsmith.recipes.report.chart import averaged, fit_axis, smoothed
from gemsmith.recipes.report.graph import layout
from gemsmith.recipes.report.markup import Markup, duration, element, render, short
from gemsmith.recipes.report.reward_kl_plane import LETTER, LINE, place_labels


def test_a_stage_stands_right_of_all_it_builds_on():
    inputs = {"sft": (), "teacher": (), "it": ("sft", "teacher"), "warm": ("sft",), "aligned": ("it", "warm")}
    columns = {id: column for id, (column, _) in layout(inputs).items()}
    assert columns == {"sft": 0, "teacher": 0, "it": 1, "warm": 1, "aligned": 2}
    assert len(set(layout(inputs).values())) == 5


@pytest.mark.parametrize("values", [[0.0, 1.0], [3.2, 3.2], [-5.0, 12.0], [0.0], [1e-9, 2e-9], [1e6, 3e6]])
def test_an_axis_holds_its_values_and_a_few_round_ticks(values):
    axis = fit_axis(values, 0, 100)
    assert axis.low <= min(values) and max(values) <= axis.high
    assert 2 <= len(axis.ticks) <= 6
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)


def test_smoothing_keeps_a_straight_line_inside_and_does_not_lag():
    line = [(float(x), 2.0 * x) for x in range(100)]
    inner = smoothed(line)[10:90]
    assert inner == [pytest.approx(point) for point in line[10:90]]


def test_smoothing_leaves_few_points_alone():
    points = [(float(x), float(x % 2)) for x in range(19)]
    assert smoothed(points) is points


def test_long_lines_are_averaged_in_groups():
    assert averaged([(1, 10.0), (2, 20.0), (3, 60.0)], most=2) == [(1.5, 15.0), (3.0, 60.0)]


def test_labels_of_close_points_do_not_cover_each_other():
    points = [(100.0, 100.0), (112.0, 104.0), (95.0, 108.0)]
    boxes = [(x, y - LINE + 3, x + LETTER * 4, y + 3) for x, y in place_labels(["aaaa", "bbbb", "cccc"], points)]
    for number, a in enumerate(boxes):
        for b in boxes[number + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_text_is_escaped_and_markup_is_not():
    assert element("b", "<i>", Markup("<i></i>"), title='"') == '<b title="&quot;">&lt;i&gt;<i></i></b>'
    assert render(["a&", [None, Markup("<hr>")]]) == "a&amp;<hr>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (2.314, "2.31"),
        (0.70, "0.7"),
        (1500, "1,500"),
        (1e-7, "1e-07"),
        (None, "n/a"),
        (float("nan"), "n/a"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.04, "8.0 s"), (59.7, "1 min 00 s"), (125, "2 min 05 s"), (4805, "1 h 20 min")]
)
def test_durations_read_like_speech(seconds, text):
    assert duration(seconds) == text
