"""Subnets whose names Keras and TensorFlow do not take for a model: only its own name differs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import cut_out, make_spec

import ofa_tf
from ofa_tf.export import FORMATS, export_subnet
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.models import build_subnet
from ofa_tf.models.subnet import scope_name
from ofa_tf.names import check_name

# A name, and what the model is called.
NAMES = {
    "my net": "my_net",
    "schön": "sch_n",
    "_x": "subnet_x",
    "a,b": "a_b",
    "note10_lat@8ms_top1@71.4_finetune@25": "note10_lat_8ms_top1_71.4_finetune_25",
    "macs_1.23457e+06m": "macs_1.23457e_06m",
    "网络": "subnet__",
    "0.12ms": "0.12ms",
    "(1) [2] {3} %d & 'a'": "subnet_1___2___3___d____a_",
}


@pytest.mark.parametrize("name", NAMES)
def test_any_name_makes_a_model(name):
    assert check_name(name, "A subnet") == name
    assert scope_name(name) == NAMES[name]
    plan = make_spec(ofa_tf.get_space("ofa_mbv3_tiny").min()).plan
    model = build_subnet(plan, name=name)
    assert model.name == NAMES[name]
    with tf.Graph().as_default(), tf.name_scope(model.name):  # what Keras does with it
        pass
    side = plan.resolution
    assert model(np.zeros((1, side, side, 3), np.float32)).shape == (1, plan.num_classes)


def test_names_of_texts_that_are_none():
    assert scope_name("") == "subnet"
    assert scope_name("../a/b") == "subnet.._a_b"


def test_all_formats_and_the_way_back(supernet, tmp_path):
    """The folder and the card have the name itself."""
    name = "_schön, lat@8ms+"
    spec = make_spec(supernet.space.min(), name=name)
    formats = ("keras", "saved_model", "tflite_float32")
    folder = tmp_path / name
    card = export_subnet(cut_out(supernet, spec), spec, folder, formats=formats)
    assert card["name"] == name
    assert tuple(card["files"]) == formats
    model = ofa_tf.load_subnet(folder)
    assert model.name == scope_name(name) != name
    side = spec.plan.resolution
    images = np.random.default_rng(0).uniform(0, 255, (2, side, side, 3)).astype(np.float32)
    expected = model(images).numpy()
    served = tf.saved_model.load(folder / FORMATS["saved_model"]).signatures["serving_default"]
    for found in (
        TFLiteClassifier(folder / FORMATS["tflite_float32"])(images),
        served(image=tf.constant(images))["logits"],
        keras.models.load_model(folder / FORMATS["keras"])(images),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
