"""Charts and block diagrams: everything is where its numbers say."""

from __future__ import annotations

import itertools

import pytest

from ofa_tf.report.page.chart import Axis, Chart, Mark, Series
from ofa_tf.report.page.diagram import draw
from ofa_tf.spaces import get_space, list_spaces

LINEAR, LOG = Axis("x", 0.0, 10.0), Axis("x", 0.1, 10.0, log=True)


def chart(*series: Series, x: Axis = LINEAR) -> Chart:
    return Chart("a chart", x, LINEAR, series)


def test_places_on_an_axis():
    assert [LINEAR.place(value) for value in (0, 2.5, 10)] == [0, 0.25, 1]
    assert [LOG.place(value) for value in (0.1, 1, 10)] == pytest.approx([0, 0.5, 1])


def test_ticks_are_round_and_on_the_axis():
    assert [text for _, text in LINEAR.ticks] == ["0", "2", "4", "6", "8", "10"]
    assert [text for _, text in LOG.ticks] == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [-1.0, 3.0], [0.01, 100.0]])
def test_an_axis_holds_all_values(values):
    axis = Axis.around("x", values, log_from=10)
    assert axis.log == (values == [0.01, 100.0])
    assert all(0 < axis.place(value) < 1 for value in values)


def test_marks_are_where_their_values_are():
    drawn = chart(Series("first", [Mark(0, 0), Mark(10, 10, "top", "")], "circles"))
    (layer,) = drawn.layers
    low, high = layer.marks
    assert (low.x, low.y) == (drawn.left, drawn.bottom)
    assert (high.x, high.y, high.title) == (drawn.right, drawn.top, "top")


def test_paths():
    points = [(0, 0), (10, 10)]
    line, steps, dots = (
        chart(Series.of("a", points, shape)).layers[0].path for shape in ("line", "steps", "dots")
    )
    left, right, top, bottom = Chart.left, Chart.right, Chart.top, Chart.bottom
    assert line == f"M{left} {bottom}L{right} {top}"
    assert steps == f"M{left} {bottom}H{right}V{top}"  # the left one holds until the right one
    assert dots == f"M{left} {bottom}h0M{right} {top}h0"


def test_labels_do_not_lie_on_each_other():
    marks = [Mark(5 + 0.05 * i, 5, label=f"subnet {i}") for i in range(5)]
    (layer,) = chart(Series("first", marks, "diamonds")).layers
    heights = sorted(mark.label_y for mark in layer.marks)
    assert all(high - low >= 12 for low, high in itertools.pairwise(heights))


def test_labels_without_room_are_left_out():
    marks = [Mark(5, 8, f"title {i}", f"subnet {i}") for i in range(40)]
    (layer,) = chart(Series("first", marks, "diamonds")).layers
    assert [mark.title for mark in layer.marks] == [mark.title for mark in marks]
    heights = sorted(mark.label_y for mark in layer.marks if mark.label)
    assert 3 < len(heights) < 10
    assert heights[0] > 20
    assert all(high - low >= 12 for low, high in itertools.pairwise(heights))


def test_a_label_at_the_left_edge_stays_on_the_chart():
    (layer,) = chart(Series("first", [Mark(0, 5, label="a" * 12)], "diamonds")).layers
    assert layer.marks[0].label_x - 12 * 6 > 0


def test_names_of_bounds_stay_on_the_chart_and_clear_of_each_other():
    axis = Axis("x", 0, 100)
    bounds = [(0, "largest"), (2, "kernel"), (50, "depth1"), (99, "expand1")]
    lines = Chart("a", axis, axis, [], bounds).bound_lines
    assert [text for _, text, _ in lines] == ["largest", "", "depth1", "expand1"]
    assert [x for x, _, _ in lines] == sorted({x for x, _, _ in lines})
    assert all(begin + 6 * len(text) < Chart.width for _, text, begin in lines)


def test_legend_is_of_what_is_there():
    empty = Series("second", [], "circles", "nothing")
    assert chart(Series.of("a", [(1, 1)], "line", "one"), empty).legend == [("a", "line", "one")]


@pytest.mark.parametrize("name", list_spaces())
def test_one_box_per_block_and_a_gap_for_each_left_out(name):
    space = get_space(name)
    smallest, largest = (space.blueprint(arch, 10) for arch in (space.min(), space.max()))
    for plan in (smallest, largest):
        drawing = draw(plan, largest, "a")
        assert len(drawing.boxes) == len(plan.blocks)
        lefts = [box.x for box in drawing.boxes]
        assert lefts == sorted(set(lefts))
        assert [box.kernel for box in drawing.boxes] == [
            getattr(block, "kernel_size", None) for block in plan.blocks
        ]
        assert len(drawing.boxes) + len(drawing.gaps) == len(largest.blocks)
        assert max(box.x + drawing.box_width for box in drawing.boxes) < drawing.width
    shared = {box.x for box in draw(smallest, largest, "a").boxes}
    assert shared < {box.x for box in drawing.boxes}  # equal positions share a column


def test_height_is_the_width_and_the_stages_follow_each_other():
    space = get_space("ofa_mbv3_tiny")
    plan = space.blueprint(space.max(), 10)
    drawing = draw(plan, plan, "a")
    heights = [box.height for box in sorted(drawing.boxes, key=lambda box: box.width)]
    assert heights == sorted(heights)
    assert [stage.size for stage in drawing.stages] == ["16² × 16", "8² × 24", "4² × 40"]
    assert all(a.right == b.left for a, b in itertools.pairwise(drawing.stages))
