"""The predictor's picture: points where they belong, and bars where there is an ensemble."""

import numpy as np
import pytest
from PIL import Image

from ofa_tf.errors import FailureError
from ofa_tf.report import plot_predictions

TRUTH = [0.5, 0.6, 0.7, 0.8]


def marked(path) -> np.ndarray:
    """Where the picture has the color of the points."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (700, 700, 3)
    return np.argwhere(pixels[..., 2] - pixels[..., 0] > 80)


def test_right_predictions_lie_on_the_diagonal(tmp_path):
    plot_predictions(tmp_path / "sub" / "right.png", TRUTH, TRUTH, title="right")
    plot_predictions(tmp_path / "wrong.png", TRUTH, TRUTH[::-1], title="wrong")
    correlation = {
        name: np.corrcoef(marked(path).T)[0, 1]
        for name, path in (
            ("right", tmp_path / "sub" / "right.png"),
            ("wrong", tmp_path / "wrong.png"),
        )
    }
    assert correlation["right"] < -0.99  # rows count from the top
    assert correlation["wrong"] > 0.99


def test_spreads_are_bars(tmp_path):
    plot_predictions(tmp_path / "points.png", TRUTH, TRUTH, title="")
    plot_predictions(tmp_path / "bars.png", TRUTH, TRUTH, [0.03] * 4, title="")
    gray = {}
    for name in ("points", "bars"):
        with Image.open(tmp_path / f"{name}.png") as image:
            gray[name] = int((np.asarray(image.convert("L"))[50:600, 100:600] < 200).sum())
    assert gray["bars"] > gray["points"] + 4 * 20


def test_equal_accuracies_can_be_drawn(tmp_path):
    plot_predictions(tmp_path / "flat.png", [0.5, 0.5], [0.5, 0.5], [0.0, 0.0], title="")
    assert len(marked(tmp_path / "flat.png"))


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "plain").write_text("a file, not a folder")
    with pytest.raises(FailureError, match=r"a\.png could not be written"):
        plot_predictions(tmp_path / "plain" / "a.png", TRUTH, TRUTH, title="")
