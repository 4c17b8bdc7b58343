"""SavedModel: a network with its serving signature, for TensorFlow and TensorFlow Serving."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Sequence

import keras
import tensorflow as tf

from ofa_tf.export.interface import Interface
from ofa_tf.names import labels_text
from ofa_tf.quiet import native_output_dropped

LABELS = "labels.txt"


def write_saved_model(
    model: keras.Model,
    folder: str | os.PathLike,
    interface: Interface,
    class_names: Sequence[str],
) -> None:
    """Writes a SavedModel.

    Its signature "serving_default" takes "image" (batch, height, width, channels), for any batch,
    and gives "logits" or "probabilities" (batch, classes). `assets/labels.txt` has the classes.

    Args:
        model: what `build_subnet(plan, **interface.build_options)` built.
        folder: of the SavedModel itself; made. After an error, what is in it is of no use.
        interface: what goes in and comes out.
        class_names: one per output, in order.

    Raises:
        OSError: the disk refuses.
    """

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {interface.output_name: model(image, training=False)}

    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]  # saved because they are here
    image = tf.TensorSpec((None, *model.input_shape[1:]), interface.dtype, name="image")
    function = tf.function(serve, input_signature=[image])
    with tempfile.TemporaryDirectory() as scratch, native_output_dropped():
        labels = pathlib.Path(scratch, LABELS)
        labels.write_text(labels_text(class_names), encoding="utf-8")
        module.labels = tf.saved_model.Asset(os.fspath(labels))
        try:
            signatures = {"serving_default": function}
            tf.saved_model.save(module, os.fspath(folder), signatures=signatures)
        except tf.errors.OpError as error:  # TensorFlow's own word for a full disk
            raise OSError(error.message) from error
