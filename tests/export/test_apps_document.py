"""docs/APPS.md: its Python runs as it stands there, and its numbers are those of the files."""

from __future__ import annotations

import json
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from ofa_tf.data import MEAN, STD
from ofa_tf.export import FORMATS
from ofa_tf.export.interface import Interface
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.export.saved_model import write_saved_model

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "APPS.md"
FOLDER = "runs/quickstart/subnets/NAME"


def scripts() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.fixture
def there(smallest, tmp_path, monkeypatch):
    """The subnet's folder, below a current folder with all that the scripts read."""
    folder = tmp_path / FOLDER
    shutil.copytree(smallest.folder, folder)
    shutil.rmtree(folder / "saved_model", ignore_errors=True)
    interface = Interface((MEAN, STD))
    write_saved_model(smallest.model, folder / "saved_model", interface, smallest.spec.class_names)
    pixels = smallest.images[0].round().astype(np.uint8)
    border = round(len(pixels) / 14)  # on each side, so that 0.875 is the image
    photo = Image.fromarray(np.pad(pixels, ((border, border), (border, border), (0, 0)), "edge"))
    photo.resize((8 * photo.width, 8 * photo.height)).save(tmp_path / "photo.jpg", quality=95)
    for number, image in enumerate(smallest.images[:8].astype(np.uint8)):
        (tmp_path / "flowers" / f"kind{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "flowers" / f"kind{number % 2}" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_python_runs_and_agrees(there, smallest, capsys):
    names = {}
    classify, tune, serve, load = scripts()
    exec(compile(classify, "APPS.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    pixels, best = names["pixels"], smallest.spec.class_names[smallest.labels[0]]
    assert pixels.shape == smallest.images[0].shape
    assert lines[0].startswith(f"{best}: ")
    own = TFLiteClassifier(there / FORMATS["tflite_int8"])(pixels[None])[0]
    np.testing.assert_array_equal(names["scores"], own)

    exec(compile(tune, "APPS.md", "exec"), names)
    assert keras.models.load_model("flowers.keras").output_shape == (None, 2)
    logits = smallest.model.predict_on_batch(pixels[None])
    exec(compile(serve, "APPS.md", "exec"), names)
    np.testing.assert_allclose(names["scores"], logits, rtol=1e-4, atol=1e-4)

    exec(compile(load, "APPS.md", "exec"), names)
    assert names["probabilities"].sum() == pytest.approx(1)
    assert names["probabilities"].argmax() == logits.argmax()
    assert names["corners"].output_shape == (None, 4)
    assert keras.models.load_model("backbone.keras").output.keys() == names["maps"].keys()


def test_the_first_script_serves_other_files(there, smallest):
    int8, float32 = FORMATS["tflite_int8"], FORMATS["tflite_float32"]
    script = scripts()[0]
    assert int8 in script
    names = {}
    exec(compile(script.replace(int8, float32), "APPS.md", "exec"), names)
    expected = smallest.model.predict_on_batch(names["pixels"][None])[0]
    np.testing.assert_allclose(names["scores"], expected, rtol=1e-4, atol=1e-4)


def test_photos_are_turned(there, tmp_path):
    """As a phone stores them: on their side, and the file tells."""
    upright, turned = {}, {}
    exec(compile(scripts()[0], "APPS.md", "exec"), upright)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.open(tmp_path / "photo.jpg").transpose(Image.Transpose.ROTATE_90)
    photo.save(tmp_path / "photo.jpg", quality=95, exif=exif)
    exec(compile(scripts()[0], "APPS.md", "exec"), turned)
    np.testing.assert_allclose(turned["pixels"], upright["pixels"], atol=4)


def test_the_numbers_are_those_of_the_files(smallest):
    text = DOCUMENT.read_text()
    assert all(str(values) in text.replace("\n", " ") for values in (MEAN, STD))
    card = json.loads((smallest.folder / "card.json").read_text())
    int8 = card["files"]["tflite_int8"]["input"]
    scale, zero_point = int8["scale"], int8["zero_point"]
    assert f"(scale {scale:g}, zero point {zero_point})" in text
    for file in FORMATS.values():
        assert f"| `{file}" in text, file
