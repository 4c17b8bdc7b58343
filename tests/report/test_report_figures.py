"""The pictures with axes: everything is where its numbers say, in the SVG and in the PNG."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from picture_helpers import marks, pixels, svg, texts, ticks
from report_helpers import results

from ofa_tf.errors import FailureError
from ofa_tf.report import accuracy_picture, front_picture, tradeoff_picture
from ofa_tf.report.colors import LIGHT
from ofa_tf.report.figures import latency_picture, training_picture

CLOUD = np.random.default_rng(0).random((300, 2)) * [2.0, 0.3] + [0.1, 0.5]
FRONT = np.array([[0.2, 0.7], [1.0, 0.75], [2.0, 0.8]])
TRUTH = [0.5, 0.6, 0.7, 0.8]
CURVES = {"s": [(0, 0.1), (10, 0.4)], "m": [(10, 0.5)], "l": [(0, 0.6), (10, 0.7)]}


def tradeoff(count: int = 4, cloud=CLOUD, front=FRONT, **changes):
    rows, _ = results("ofa_mbv3_tiny", count)
    rows = [{**row, **changes} for row in rows]
    return tradeoff_picture(rows, cloud, front, device="host")


PICTURES = {
    "tradeoff": tradeoff,
    "front": lambda: front_picture([1.0, 2.0], [0.5, 0.6], measure="macs_m"),
    "accuracy": lambda: accuracy_picture(TRUTH, TRUTH, [0.01] * 4),
    "latency": lambda: latency_picture([(1, 1.1)], [(2, 2.1)]),
    "training": lambda: training_picture(CURVES, "s", "l", {"largest": 0, "kernel": 5}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_one_figure_gives_the_svg_and_the_png(tmp_path, name):
    picture = PICTURES[name]()
    drawn = picture.svg("a")
    path = tmp_path / "sub" / "a.png"
    picture.write_png(path)
    image = pixels(path)
    assert image.shape == {"accuracy": (700, 700, 3), "latency": (700, 700, 3)}.get(
        name, (750, 1000, 3)
    )
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    # Each color of a part of the SVG is in the PNG, where thin lines are blurred.
    seen = {
        "#{:02x}{:02x}{:02x}".format(*color) for color in np.unique(image.reshape(-1, 3), axis=0)
    }
    named = set(re.findall(r"(?:fill|stroke):var\(--(\w+)\)", drawn)) - {"grid", "rule", "faint"}
    assert named
    assert {LIGHT[color] for color in named} <= seen


@pytest.mark.parametrize("name", PICTURES)
def test_equal_data_give_equal_bytes(tmp_path, name):
    first, second = PICTURES[name](), PICTURES[name]()
    first.write_png(tmp_path / "first.png")  # and writing a PNG changes nothing
    second.write_png(tmp_path / "second.png")
    assert first.svg("a") == second.svg("a")
    assert first.svg("a") == PICTURES[name]().svg("a")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


@pytest.mark.parametrize("name", PICTURES)
def test_an_svg_needs_nothing_else(name):
    drawn = PICTURES[name]().svg("here")
    assert not re.search(
        r"https?:|url\(|<style|<script|<image|clip|#[0-9a-f]{6}\b|font-family", drawn
    )
    identities = re.findall(r'\bid="([^"]*)"', drawn)
    assert len(identities) == len(set(identities))
    assert all(identity.startswith("here") for identity in identities)
    assert set(re.findall(r'href="#([^"]*)"', drawn)) <= set(identities)
    root = svg(PICTURES[name]())
    assert root.find("title").text == PICTURES[name]().title
    assert root.get("aria-labelledby") == root.find("title").get("id")


def test_the_texts_are_texts():
    told = texts(svg(tradeoff(3)))
    for label in (
        "Accuracy against latency",
        "latency on host (ms)",
        "accuracy (%)",
        "predicted Pareto front",
        "measured, int8 file",
        "budget_0",
        "budget_2",
    ):
        assert label in told


@pytest.mark.parametrize("latencies", [(1.0, 2.0, 4.0), (0.1, 1.0, 50.0)])
def test_marks_are_where_their_values_are(latencies):
    rows = [
        {"name": f"n{ms}", "predicted_latency_ms": ms, "predicted_accuracy": 0.5 + ms / 200}
        for ms in latencies
    ]
    root = svg(tradeoff_picture(rows, (), (), device="host"))
    across, up = ticks(root)
    scale = np.log if latencies[-1] == 50 else float
    x_fit = np.polyfit([scale(v) for v in across], list(across.values()), 1)
    y_fit = np.polyfit(list(up), list(up.values()), 1)
    y_fit[1] -= 3.8  # from the base line of a number to its middle
    found = marks(root)
    assert len(found) == 3
    for ms in latencies:
        (place,) = [p for tip, p in found.items() if tip.startswith(f"n{ms}:")]
        wanted = np.polyval(x_fit, scale(ms)), np.polyval(y_fit, 50 + ms / 2)
        assert place == pytest.approx(wanted, abs=0.6)


def test_every_point_of_the_cloud_is_drawn_up_to_500():
    for count, drawn in ((300, 300), (2000, 500)):
        cloud = np.random.default_rng(1).random((count, 2)) + 0.1
        root = svg(tradeoff(cloud=cloud))
        unnamed = [use for use in root.iter("use") if use.find("title") is None]
        # And the keys of the legend: the cloud, two kinds of files, the predictions.
        assert len(unnamed) == drawn + 4


def test_measured_points_of_every_format():
    formats = ("float32", "float16", "dynamic", "int8", "int16x8", "qat")
    picture = tradeoff(
        1 + 1,
        measured_latency_ms={name: 1.0 + i for i, name in enumerate(formats)},
        accuracy={f"tflite_{name}": 0.7 + i / 100 for i, name in enumerate(formats)},
    )
    root = svg(picture)
    for i, name in enumerate(formats):
        assert f"measured, {name} file" in texts(root)
        assert f"budget_0: measured {1 + i} ms, {70 + i:.1f} %" in marks(root)


def test_the_png_shows_the_measured_points(tmp_path):
    tradeoff(3).write_png(tmp_path / "with.png")
    tradeoff(3, measured_latency_ms={}, accuracy={}).write_png(tmp_path / "without.png")
    colored = {}
    for name in ("with", "without"):
        image = pixels(tmp_path / f"{name}.png").astype(int)
        colored[name] = int((np.ptp(image, axis=2) > 60).sum())
    # A measured point is a filled disc or square of some 300 pixels: six are missing.
    assert colored["with"] > colored["without"] + 6 * 200


def test_what_is_not_there_is_not_in_the_legend():
    everything, chosen = (
        [text.get_text() for text in picture.figure.legends[0].get_texts()]
        for picture in (tradeoff(3), tradeoff(3, (), (), measured_latency_ms={}))
    )
    assert {"predicted, any subnet", "predicted Pareto front"} < set(everything)
    assert chosen == ["predicted, chosen subnet"]
    assert [
        len(picture.figure.axes[0].collections) for picture in (tradeoff(3), tradeoff(3, ()))
    ] == [1, 0]


def labels(picture):
    """The places of the names that are seen, and the axes."""
    picture.figure.draw_without_rendering()
    axes = picture.figure.axes[0]
    seen = [text for text in axes.texts if text.get_visible()]
    return {text.get_text(): text.get_window_extent() for text in seen}, axes.bbox


def assert_clear(boxes, frame):
    for box in boxes:
        assert frame.x0 - 0.5 <= box.x0
        assert box.x1 <= frame.x1 + 0.5
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize(("count", "least", "most"), [(5, 5, 5), (40, 4, 20)])
def test_names_do_not_lie_on_each_other_and_those_without_room_are_left_out(count, least, most):
    rows = [
        {"name": f"subnet {i}", "predicted_latency_ms": 5 + i / 1e3, "predicted_accuracy": 0.5}
        for i in range(count)
    ]
    front = [(0.5, 0.1), (9, 0.9)]
    picture = tradeoff_picture(rows, (), front, device="host")
    boxes, frame = labels(picture)
    assert least <= len(boxes) <= most
    assert "subnet 0" in boxes
    assert_clear(boxes.values(), frame)
    assert all(box.y1 <= frame.y1 for box in boxes.values())
    assert len(marks(svg(picture))) == count  # the tips tell all


def test_a_name_does_not_lie_on_a_measured_point():
    measured = {"measured_latency_ms": {"float32": 0.93}, "accuracy": {"tflite_float32": 0.6}}
    row = {"name": "a" * 12, "predicted_latency_ms": 1.0, "predicted_accuracy": 0.59, **measured}
    picture = tradeoff_picture([row], (), [(0.5, 0.5), (1.2, 0.7)], device="host")
    (box,) = labels(picture)[0].values()
    point = picture.figure.axes[0].transData.transform((0.93, 60.0))
    assert box.x0 < point[0] < box.x1  # above it
    assert box.y0 > point[1] + 5


def test_a_name_at_the_left_edge_stays_on_the_axes():
    rows = [{"name": "a" * 12, "predicted_latency_ms": 0.1, "predicted_accuracy": 0.5}]
    boxes, frame = labels(tradeoff_picture(rows, (), [(0.1, 0.5), (1, 0.7)], device="host"))
    assert len(boxes) == 1
    assert_clear(boxes.values(), frame)


def test_names_of_phases_stay_on_the_axes_and_clear_of_each_other():
    curves = {"s": [(0, 0.1), (100, 0.4)], "l": [(0, 0.6), (100, 0.7)]}
    starts = {"largest": 0, "kernel": 2, "depth1": 50, "expand1": 99}
    picture = training_picture(curves, "s", "l", starts)
    boxes, frame = labels(picture)
    assert list(boxes) == ["largest", "depth1", "expand1"]
    assert_clear(boxes.values(), frame)
    lines = [line for line in picture.figure.axes[0].lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in lines] == [0, 2, 50, 99]


def test_training_curves():
    picture = training_picture(CURVES, "s", "l", {"largest": 0})
    root = svg(picture)
    assert set(marks(root)) == {"s: 10.0 %", "s: 40.0 %", "l: 60.0 %", "l: 70.0 %"}
    assert {"s", "l", "other corners", "largest"} <= set(texts(root))


def test_the_front_is_a_step_from_each_point_to_the_next():
    picture = front_picture([1.0, 2.0, 3.0], [0.5, 0.6, 0.7], measure="macs_m")
    root = svg(picture)
    assert {"MACs (M)", "predicted accuracy (%)"} <= set(texts(root))
    places = marks(root)
    (x0, y0), (x1, y1), (x2, y2) = places.values()
    # The left one holds until the right one.
    step = [x0, y0, x1, y0, x1, y1, x2, y1, x2, y2]
    paths = [re.findall(r"[-\d.]+", path.get("d")) for path in root.iter("path")]
    assert any(
        len(path) == 10 and list(map(float, path)) == pytest.approx(step, abs=0.15)
        for path in paths
    )


def marked(path) -> np.ndarray:
    """Where the picture has the color of the points."""
    image = pixels(path).astype(int)
    return np.argwhere(image[..., 2] - image[..., 0] > 80)


def test_right_predictions_lie_on_the_diagonal(tmp_path):
    accuracy_picture(TRUTH, TRUTH).write_png(tmp_path / "right.png")
    accuracy_picture(TRUTH, TRUTH[::-1]).write_png(tmp_path / "wrong.png")
    right, wrong = (
        np.corrcoef(marked(tmp_path / f"{name}.png").T)[0, 1] for name in ("right", "wrong")
    )
    assert right < -0.99  # rows count from the top
    assert wrong > 0.99


def test_spreads_are_bars(tmp_path):
    accuracy_picture(TRUTH, TRUTH).write_png(tmp_path / "points.png")
    accuracy_picture(TRUTH, TRUTH, [0.03] * 4).write_png(tmp_path / "bars.png")
    gray = {
        name: int((pixels(tmp_path / f"{name}.png")[50:600, 100:600].mean(axis=2) < 200).sum())
        for name in ("points", "bars")
    }
    assert gray["bars"] > gray["points"] + 4 * 20


def test_equal_accuracies_can_be_drawn(tmp_path):
    accuracy_picture([0.5, 0.5], [0.5, 0.5], [0.0, 0.0]).write_png(tmp_path / "flat.png")
    assert len(marked(tmp_path / "flat.png"))


def test_latencies_of_many_magnitudes_have_a_logarithmic_axis():
    picture = latency_picture([(0.01, 0.02)], [(1.0, 0.9), (100.0, 90.0)])
    axes = picture.figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlim() == axes.get_ylim()
    across, _ = ticks(svg(picture))
    assert {0.01, 1, 100} <= set(across)
    assert set(marks(svg(picture))) == {
        "0.01 ms, predicted 0.02 ms",
        "1 ms, predicted 0.9 ms",
        "100 ms, predicted 90 ms",
    }


def test_names_of_others_are_only_texts():
    evil = "$x^2$ <b>&\x1b[31m\u202e"
    rows = [{"name": evil, "predicted_latency_ms": 1.0, "predicted_accuracy": 0.5}]
    picture = tradeoff_picture(rows, (), (), device=evil)
    told = texts(svg(picture))
    assert r"$x^2$ <b>&\x1b[31m\u202e" in told
    assert r"latency on $x^2$ <b>&\x1b[31m\u202e (ms)" in told


@pytest.mark.parametrize("measure", ["latency_ms", "macs_m", "params_m", "file_kb", "memory_kb"])
def test_a_front_of_every_measure(tmp_path, measure):
    picture = front_picture([1.0, 2.0], [0.5, 0.6], measure=measure)
    picture.write_png(tmp_path / "pictures" / "front.png")
    assert [p.name for p in (tmp_path / "pictures").iterdir()] == ["front.png"]
    assert len(marks(svg(picture))) == 2


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "plain").write_text("a file, not a folder")
    with pytest.raises(FailureError, match=r"a\.png could not be written"):
        accuracy_picture(TRUTH, TRUTH).write_png(tmp_path / "plain" / "a.png")
