"""model.keras: what is left out of it for older versions of Keras, and that these load it."""

from __future__ import annotations

import io
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from export_helpers import INTERFACE, random_subnet

from ofa_tf.errors import FailureError
from ofa_tf.export.keras_file import keras_file, load_keras_file
from ofa_tf.spaces import get_space

# The oldest that docs/APPS.md promises, and that of constraints.txt for Python 3.10.
OLD_VERSIONS = ("3.6.0", "3.12.4")

PROGRAM = """
import keras, numpy as np
print(keras.__version__)
for name, images in np.load("images.npz").items():
    np.save(name + ".npy", keras.models.load_model(name).predict_on_batch(images))
"""


def network(name: str) -> keras.Model:
    space = get_space(name)
    return random_subnet(space.blueprint(space.min(), 10), INTERFACE)


def config_of(content: bytes) -> dict:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return json.loads(archive.read("config.json"))


def keys_by_class(config: dict) -> dict[str, set[str]]:
    """The arguments of every class in a config, nested ones too."""
    found: dict[str, set[str]] = {}

    def look(value) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("config"), dict) and "class_name" in value:
                found.setdefault(value["class_name"], set()).update(value["config"])
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                look(item)

    look(config)
    return found


def test_what_older_versions_refuse_is_left_out():
    """These are what Keras 3.15 writes and Keras 3.6 to 3.12 do not take."""
    model = network("ofa_mbv3_tiny")
    keys = keys_by_class(config_of(keras_file(model)))
    assert keys["GlorotUniform"] == set()
    assert not keys["BatchNormalization"] & {"renorm", "renorm_clipping", "renorm_momentum"}
    assert "quantization_config" not in keys["Dense"]
    assert not keys["InputLayer"] & {"optional", "ragged"}
    # What was asked for is there.
    assert {"momentum", "epsilon", "name", "dtype"} <= keys["BatchNormalization"]
    assert {"filters", "kernel_size", "strides", "use_bias", "data_format"} <= keys["Conv2D"]
    assert {"name", "dtype", "batch_shape"} <= keys["InputLayer"]


def as_json(layer: keras.layers.Layer) -> dict:
    return json.loads(json.dumps(layer.get_config()))


@pytest.mark.parametrize("space", ["ofa_mbv3_tiny", "ofa_resnet_tiny"])
def test_the_network_comes_back_whole(space, tmp_path):
    model = network(space)
    (tmp_path / "model.keras").write_bytes(keras_file(model))
    loaded = load_keras_file(tmp_path / "model.keras")
    for ours, theirs in zip(loaded.layers, model.layers, strict=True):
        assert as_json(ours) == as_json(theirs)
    side = model.input_shape[1]
    images = np.random.default_rng(0).uniform(0, 255, (4, side, side, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded(images), model(images))


def test_a_file_of_another_version_is_told(tmp_path, smallest):
    path = tmp_path / "model.keras"
    content = (smallest.folder / "model.keras").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(path, "w") as changed:
        for entry in archive.infolist():
            data = archive.read(entry)
            if entry.filename == "config.json":
                data = data.replace(b'"use_bias": false', b'"use_bias": false, "novelty": 1')
            if entry.filename == "metadata.json":
                data = b'{"keras_version": "99.1"}'
            changed.writestr(entry, data)
    with pytest.raises(FailureError, match=r"model\.keras could not be loaded") as caught:
        load_keras_file(path)
    assert f"Keras 99.1 wrote it, and this is Keras {keras.__version__}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module", params=OLD_VERSIONS)
def old_keras(request, tmp_path_factory) -> tuple[str, pathlib.Path]:
    """A version and a folder with it, to be run beside the other packages of this environment."""
    version, folder = request.param, tmp_path_factory.mktemp("keras")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--target", str(folder), f"keras=={version}"]
    installed = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if installed.returncode:
        lines = installed.stderr.strip().splitlines()
        pytest.skip(f"keras {version} could not be installed: {lines[-1] if lines else 'no pip'}")
    return version, folder


@pytest.mark.slow
def test_older_versions_load_it(old_keras, smallest, tmp_path):
    version, folder = old_keras
    models = {"model.keras": smallest.model, "resnet.keras": network("ofa_resnet_tiny")}
    (tmp_path / "model.keras").write_bytes((smallest.folder / "model.keras").read_bytes())
    (tmp_path / "resnet.keras").write_bytes(keras_file(models["resnet.keras"]))
    rng = np.random.default_rng(0)
    images = {
        name: rng.uniform(0, 255, (4, *model.input_shape[1:])).astype(np.float32)
        for name, model in models.items()
    }
    np.savez(tmp_path / "images.npz", **images)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": str(folder), "KERAS_BACKEND": "tensorflow"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == [version]
    for name, model in models.items():
        expected = model.predict_on_batch(images[name])
        found = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
