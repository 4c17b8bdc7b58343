"""SavedModel: its signature, equal outputs, labels, any batch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ofa_tf.data import MEAN, STD
from ofa_tf.export.interface import Interface
from ofa_tf.export.saved_model import write_saved_model
from ofa_tf.models import build_subnet, copy_weights


@pytest.mark.parametrize(
    ("interface", "dtype", "output"),
    [
        ({}, tf.float32, "logits"),
        ({"input": "uint8", "output": "softmax"}, tf.uint8, "probabilities"),
    ],
)
def test_signature_and_outputs(interface, dtype, output, smallest, tmp_path):
    folder = tmp_path / "subnet" / "saved_model"
    interface = Interface((MEAN, STD), **interface)
    model = build_subnet(smallest.spec.plan, **interface.build_options)
    copy_weights(smallest.model, model)
    write_saved_model(model, folder, interface, smallest.spec.class_names)
    loaded = tf.saved_model.load(folder)
    serve = loaded.signatures["serving_default"]
    side, names = smallest.spec.arch.resolution, smallest.spec.class_names
    _, inputs = serve.structured_input_signature
    assert {name: (x.shape.as_list(), x.dtype) for name, x in inputs.items()} == {
        "image": ([None, side, side, 3], dtype)
    }
    assert {name: x.shape.as_list() for name, x in serve.structured_outputs.items()} == {
        output: [None, len(names)]
    }
    for count in (1, 5):  # any batch
        images = tf.cast(smallest.images[:count], dtype)
        expected = model.predict_on_batch(images.numpy())
        found = serve(image=images)[output].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    labels = (folder / "assets" / "labels.txt").read_text().splitlines()
    assert labels == list(names)


def test_full_disk_is_told(smallest, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", refuse)
    with pytest.raises(OSError, match="No space left on device"):
        write_saved_model(smallest.model, tmp_path / "a", Interface((MEAN, STD)), ["kind"])
