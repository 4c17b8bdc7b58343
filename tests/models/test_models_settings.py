"""Keras's own settings, keras.json and the global dtype policy: networks are what they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf
from model_helpers import make_images, twin, two_families

from ofa_tf.errors import UsageError
from ofa_tf.layers.backend import check_backend
from ofa_tf.models import Supernet

MEAN, STD = (123.0, 116.0, 103.0), (58.0, 57.0, 60.0)


def _keras_json() -> None:
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float64")


# float16 as the type of all, and as that of what is computed: each is read in other places.
SETTINGS: dict[str, Callable[[], None]] = {
    "channels_first and float64": _keras_json,
    "float16": lambda: keras.config.set_floatx("float16"),
    "mixed_float16": lambda: keras.config.set_dtype_policy("mixed_float16"),
}


@pytest.fixture(params=SETTINGS)
def setting(request) -> Iterator[Callable[[], None]]:
    """Sets one of the settings when it is called; they are as before after the test."""
    before = keras.config.image_data_format(), keras.config.floatx(), keras.config.dtype_policy()
    yield SETTINGS[request.param]
    keras.config.set_image_data_format(before[0])
    keras.config.set_floatx(before[1])
    keras.config.set_dtype_policy(before[2])


def outputs(supernet: Supernet) -> dict[str, tf.Tensor]:
    """Of the smallest arch, by way of all that makes a network of it."""
    arch = supernet.space.min()
    images = make_images(arch.resolution, 2, seed=0)
    pixels = (images * STD + MEAN).clip(0, 255).astype(np.uint8)
    raw = {"normalization": (MEAN, STD), "input_dtype": "uint8", "head": "softmax"}
    return {
        "supernet": supernet(images, arch),
        "subnet": supernet.subnet(arch)(images),
        "raw": supernet.subnet(arch, **raw)(pixels),
        **supernet.subnet(arch, head="features")(images),
    }


@two_families
def test_networks_do_not_depend_on_settings(supernet, setting):
    expected = outputs(supernet)
    setting()
    other = twin(supernet)
    assert {variable.dtype for variable in other.variables} == {"float32"}
    for name, found in outputs(other).items():
        assert found.dtype == tf.float32, name
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def with_keras_json(folder, code: str, **settings: str) -> subprocess.CompletedProcess:
    """Runs Python code where keras.json has these settings, and no variable says otherwise."""
    (folder / "keras.json").write_text(json.dumps(settings))
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"KERAS_HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("room", ["layers", "models", "export"])
def test_another_backend_in_keras_json_is_refused(tmp_path, room):
    """jax is not installed here; Keras would say that in a traceback."""
    code = f"from ofa_tf.errors import UsageError\ntry: import ofa_tf.{room}\n"
    ended = with_keras_json(tmp_path, f"{code}except UsageError as e: print(e)", backend="jax")
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    assert line.startswith("Keras cannot be imported: No module named 'jax'.")
    assert "set KERAS_BACKEND=tensorflow" in line


def test_another_backend_that_is_running_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(UsageError, match=r"^Keras runs on torch, but .* KERAS_BACKEND=tensorflow"):
        check_backend()


def test_commands_choose_the_backend_themselves(tmp_path):
    code = (
        "from ofa_tf.cli import common\n"
        "def command():\n"
        "    import ofa_tf.layers, keras\n"
        "    print(keras.config.backend(), keras.config.floatx())\n"
        "common.run(command, '')"
    )
    ended = with_keras_json(tmp_path, code, backend="jax", floatx="float64")
    assert ended.stdout.split() == ["tensorflow", "float64"], ended.stderr


@pytest.mark.parametrize("content", ['{"floatx": "int3"}', "[]"])
def test_a_keras_json_that_keras_cannot_read_is_named(content, tmp_path):
    (tmp_path / "keras.json").write_text(content)
    code = (
        "from ofa_tf.errors import FailureError\nfrom ofa_tf.quiet import import_tensorflow\n"
        "try:\n import_tensorflow()\nexcept FailureError as error:\n print(error)\n"
    )
    told = subprocess.check_output(
        [sys.executable, "-c", code], env=os.environ | {"KERAS_HOME": str(tmp_path)}, text=True
    )
    assert told.startswith("Keras cannot be loaded: look at its settings in ~/.keras/keras.json, ")
    assert told.count("\n") == 1
