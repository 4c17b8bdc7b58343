"""The published specialized networks as TFLite: each converts, runs and computes the same."""

from __future__ import annotations

import os
import pathlib

import keras
import numpy as np
import pytest

from ofa_tf.export import convert
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.interop import read_net_config
from ofa_tf.models import build_subnet

FOLDER = pathlib.Path(os.environ.get("OFA_SHARED", "missing"), "data", "published", "specialized")
# A small and a large MobileNetV3, and a ProxylessNAS; the others take two minutes together.
BY_DEFAULT = (
    "s7edge_lat-29ms_top1-70.5_finetune-25",
    "LG-G8_lat-24ms_top1-76.4_finetune-25",
    "tx2_gpu16-35ms_top1-70.3_finetune-25",
)
OTHERS = sorted({path.parent.name for path in FOLDER.glob("*/net.config")} - set(BY_DEFAULT))
NETWORKS = [*BY_DEFAULT, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


def draw_weights(model: keras.Model, images: np.ndarray) -> None:
    """Weights under which no signal dies on its way, and statistics that are nearly true."""
    rng = np.random.default_rng(0)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for variable in model.trainable_variables:
        shape = variable.shape
        if variable.name == "gamma":
            value = rng.uniform(0.6, 1.5, shape)
        elif len(shape) == 1:
            value = rng.normal(0, 0.3, shape)
        else:
            depthwise = len(shape) == 4 and shape[-1] == 1
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[: 2 if depthwise else -1])), shape)
        variable.assign(value)
    for norm in norms:
        norm.momentum = 0.0
    model(images, training=True)
    for norm in norms:
        norm.moving_variance.assign(norm.moving_variance * rng.uniform(0.8, 1.25, norm.gamma.shape))


@pytest.mark.skipif(not FOLDER.is_dir(), reason="OFA_SHARED has no published networks")
@pytest.mark.parametrize("name", NETWORKS)
def test_published_network_runs_as_tflite(name, tmp_path, record_property):
    plan = read_net_config(FOLDER / name / "net.config")
    model = build_subnet(plan, name=name)
    side = plan.resolution
    images = np.random.default_rng(1).normal(0.2, 1, (4, side, side, 3)).astype(np.float32)
    draw_weights(model, images)
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(model, "float32"))

    expected = model.predict_on_batch(images[:2])
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * scale  # else mistakes are not seen
    deviation = np.abs(TFLiteClassifier(path)(images[:1]) - expected[:1]).max() / scale
    record_property("deviation", float(deviation))
    assert deviation < 1e-4


@pytest.mark.skipif(not FOLDER.is_dir(), reason="OFA_SHARED has no published networks")
def test_all_published_networks_are_tried():
    assert len(NETWORKS) == 25
