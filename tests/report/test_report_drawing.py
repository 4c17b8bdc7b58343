"""The drawings of subnets block by block: one box per block, where it belongs."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from picture_helpers import pixels
from report_helpers import results

from ofa_tf.errors import FailureError
from ofa_tf.report import architectures_picture
from ofa_tf.report.drawing import draw_blueprints
from ofa_tf.spaces import get_space, list_spaces


def draw(space: str, count: int = 4):
    rows, plans = results(space, count)
    titles = [row["name"] for row in rows]
    return plans, draw_blueprints(Figure(), plans, titles)


@pytest.mark.parametrize(
    ("space", "count"),
    [("ofa_mbv3_tiny", 4), ("ofa_mbv3_w1.0", 2), ("ofa_proxyless_w1.3", 2), ("ofa_resnet50", 2)],
)
def test_architecture_picture(tmp_path, space, count):
    rows, plans = results(space, count)
    path = tmp_path / "architectures.png"
    architectures_picture(rows, plans).write_png(path)
    image = pixels(path)
    assert image.shape == (60 + 150 * count, 1000, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20


def test_no_text_of_the_picture_overlaps_another():
    rows, plans = results("ofa_mbv3_w1.0", 3)
    figure = architectures_picture(rows, plans).figure
    FigureCanvasAgg(figure).draw()
    texts = [text for axes in figure.axes for text in (*axes.texts, axes.title, axes._left_title)]
    texts += [figure.legends[0].get_title(), *figure.legends[0].get_texts()]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :]), texts[i]


@pytest.mark.parametrize("space", list_spaces())
def test_one_box_per_block(space):
    plans, rows = draw(space)
    for plan, axes in zip(plans, rows, strict=True):
        boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        assert len(boxes) == len(plan.blocks)
        lefts = [box.get_x() for box in boxes]
        assert lefts == sorted(set(lefts))
    assert len(rows[0].patches) < len(rows[1].patches)  # the smallest and the largest


@pytest.mark.parametrize("space", list_spaces())
def test_equal_positions_share_a_column_and_a_gap_is_marked(space):
    plans, rows = draw(space, 2)
    smallest, largest = ({p.get_x() for p in axes.patches} for axes in rows)
    assert smallest < largest
    crosses = [line for line in rows[0].lines if line.get_marker() == "x"]
    assert len(crosses) == len(plans[1].blocks) - len(plans[0].blocks)
    assert not [line for line in rows[1].lines if line.get_marker() == "x"]


def test_columns_are_in_the_order_of_the_blocks():
    """Also where the first subnet is without a block that another has before its first stage."""
    space = get_space("ofa_resnet50")
    plans = [
        space.blueprint({"d": depths, "e": [0.25] * 18, "w": [2] * 6, "r": 128})
        for depths in ([0, 0, 2, 0, 1], [2, 1, 0, 0, 0], [0, 0, 0, 0, 2])
    ]
    rows = draw_blueprints(Figure(), plans, "abc")
    column_of: dict[str, float] = {}
    for plan, axes in zip(plans, rows, strict=True):
        centers = [box.get_x() + box.get_width() / 2 for box in axes.patches]
        assert centers == sorted(centers)
        for block, x in zip(plan.blocks, centers, strict=True):
            assert column_of.setdefault(block.name, x) == x
    # One column for each block that any of them has, and the stem's residual block second.
    assert sorted(map(round, column_of.values())) == list(range(len(column_of)))
    assert round(column_of["stem1"]) == 1
    names = [text.get_text() for text in rows[0].texts if text.get_position()[1] == -0.1]
    assert {"stem0", "stem1", "stem2", "max\npool", "pool", "logits"} <= set(names)
    assert "32 × 32 × 256" in names
    assert len([line for line in rows[0].lines if line.get_marker() == "x"]) == 3


def test_color_is_the_kernel_and_height_the_width():
    plans, rows = draw("ofa_mbv3_cifar")
    color_of, height_of = {}, {}
    for plan, axes in zip(plans, rows, strict=True):
        for block, box in zip(plan.blocks, axes.patches, strict=True):
            kernel = getattr(block, "kernel_size", None)
            width = getattr(block, "mid_channels", block.out_channels)
            color_of.setdefault(kernel, set()).add(box.get_facecolor())
            height_of.setdefault(width, set()).add(box.get_height())
    assert all(len(colors) == 1 for colors in color_of.values())
    assert len(set.union(*color_of.values())) == len(color_of) >= 4
    heights = [height_of[width] for width in sorted(height_of)]
    assert all(len(height) == 1 for height in heights)
    ordered = [min(height) for height in heights]
    assert ordered == sorted(ordered)
    assert ordered[0] < 0.5 * ordered[-1]


@pytest.mark.parametrize("space", ["ofa_mbv3_w1.0", "ofa_proxyless_w1.3", "ofa_resnet50"])
def test_texts_of_a_row_do_not_overlap(space):
    _, rows = draw(space, 3)
    figure = rows[0].figure
    figure.set_size_inches(10, 5)
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure).draw()
    for axes in rows:
        boxes = [text.get_window_extent() for text in axes.texts]
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[i + 1 :]), axes.texts[i]


def test_a_block_that_only_the_largest_has_is_a_gap():
    space = get_space("ofa_mbv3_tiny")
    small, large = (space.blueprint(arch, 10) for arch in (space.min(), space.max()))
    (axes,) = architectures_picture([{"name": "small"}], [small], large).figure.axes
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert len(axes.patches) == len(small.blocks)
    assert len(crosses) == len(large.blocks) - len(small.blocks) > 0


def test_title_tells_measured_from_predicted():
    rows, plans = results("ofa_mbv3_tiny", 3)
    rows[1] = {**rows[1], "measured_latency_ms": {}}
    rows[2] = {"name": "alone"}
    axes = architectures_picture(rows, plans).figure.axes
    seen = [one.get_title(loc="left") for one in axes]
    side = plans[0].resolution
    assert f"{side} × {side} px" in seen[0]
    assert f"{plans[0].macs / 1e6:.1f} M MACs" in seen[0]
    assert seen[0].endswith("0.275 ms, 68.8 % (measured)")
    assert seen[1].endswith("0.750 ms, 72.0 % (predicted)")
    assert seen[2].endswith("M MACs")


def test_users_matplotlib_is_left_alone(tmp_path):
    before = (dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False))
    rows, plans = results("ofa_mbv3_tiny", 2)
    picture = architectures_picture(rows, plans)
    picture.write_png(tmp_path / "a.png")
    picture.svg("a")
    assert (dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)) == before


def test_unwritable_folder_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    rows, plans = results("ofa_mbv3_tiny", 2)
    with pytest.raises(FailureError, match=r"a\.png could not be written"):
        architectures_picture(rows, plans).write_png(tmp_path / "file" / "a.png")
