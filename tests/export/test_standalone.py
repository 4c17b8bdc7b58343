"""The files where there is TensorFlow but no ofa_tf: loaded, trained on, used as a backbone."""

from __future__ import annotations

import json
import pathlib
import subprocess
import venv

import numpy as np
import pytest
import tensorflow as tf

import ofa_tf
from ofa_tf.data import MEAN, STD
from ofa_tf.export.interface import Interface
from ofa_tf.export.saved_model import write_saved_model

# Installed next to TensorFlow where this project is: none of it, and no links to its checkout.
OURS = ("ofa_tf", "mobile_bench", "__editable__")

PROGRAM = """
import importlib.util
import json

import keras
import numpy as np
import tensorflow as tf

assert importlib.util.find_spec("ofa_tf") is None
images, labels = np.load("images.npy"), np.load("labels.npy")
found = {}

model = keras.models.load_model("model.keras")  # in safe mode
np.save("keras.npy", model(images))
found["modules"] = sorted({type(layer).__module__.split(".")[0] for layer in model.layers})

serve = tf.saved_model.load("saved_model").signatures["serving_default"]
np.save("saved_model.npy", serve(image=tf.constant(images))["logits"])

before = [weight.numpy() for weight in model.trainable_weights]
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
history = model.fit(images, labels, batch_size=len(images), epochs=3, verbose=0)
found["losses"] = history.history["loss"]
after = [weight.numpy() for weight in model.trainable_weights]
found["changed"] = [bool((a != b).any()) for a, b in zip(before, after)]

middle = model.get_layer("stage0_block0_project_bn").output
found["inner"] = list(keras.Model(model.input, middle)(images).shape)

backbone = keras.models.load_model("backbone.keras")
maps = backbone(backbone.input)
pooled = [keras.layers.GlobalAveragePooling2D()(maps[name]) for name in sorted(maps)]
outputs = keras.layers.Dense(2)(keras.layers.Concatenate()(pooled))
detector = keras.Model(backbone.input, outputs)
found["detector"] = list(detector(images).shape)
found["maps"] = {name: list(values.shape) for name, values in backbone(images).items()}

with open("found.json", "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="session")
def python(tmp_path_factory) -> pathlib.Path:
    """The Python of an environment with the packages of this one, but without this project."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    for entry in pathlib.Path(tf.__file__).parents[1].iterdir():
        if entry.suffix != ".pth" and not entry.name.startswith(OURS):
            (packages / entry.name).symlink_to(entry)
    return python


@pytest.mark.slow
def test_files_without_ofa_tf(python, smallest, tmp_path):
    plan, images, labels = smallest.spec.plan, smallest.images[:32], smallest.labels[:32]
    (tmp_path / "model.keras").write_bytes((smallest.folder / "model.keras").read_bytes())
    ofa_tf.load_subnet(smallest.folder, include_top=False).save(tmp_path / "backbone.keras")
    interface = Interface((MEAN, STD))
    write_saved_model(
        smallest.model, tmp_path / "saved_model", interface, smallest.spec.class_names
    )
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)

    command = [str(python), "-I", "-c", PROGRAM]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert run.returncode == 0, run.stderr

    expected = smallest.model.predict_on_batch(images)
    for file in ("keras.npy", "saved_model.npy"):
        logits = np.load(tmp_path / file)
        np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["modules"] == ["keras"]
    assert np.isfinite(found["losses"]).all()
    assert found["losses"][-1] < found["losses"][0]
    assert all(found["changed"])
    block = next(block for block in plan.blocks if block.name == "stage0_block0")
    assert found["inner"] == [32, block.out_size, block.out_size, block.out_channels]
    assert found["detector"] == [32, 2]
    assert found["maps"] == {
        f"stride_{stride}": [32, block.out_size, block.out_size, block.out_channels]
        for stride, block in plan.feature_blocks.items()
    }
