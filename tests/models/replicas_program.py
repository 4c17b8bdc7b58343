"""Run by test_models_replicas.py: one step on two logical CPU devices, and what came of it.

Logical devices have to be made before TensorFlow is used, so this is a process of its own.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tensorflow as tf
from model_helpers import NUM_CLASSES, make_images
from one_stage import TINY

from ofa_tf.models import Supernet


def main(elastic: str) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        supernet = Supernet(TINY, NUM_CLASSES, elastic=elastic)
    images = tf.constant(make_images(24, 8, seed=0))
    archs = tf.constant(np.stack([TINY.sizes(arch) for arch in (TINY.min(), TINY.max())]))

    def gradients(sizes):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        part = tf.reshape(images, [2, 4, 24, 24, 3])[replica]
        with tf.GradientTape() as tape:
            logits = supernet(part, sizes, training=True)
            loss = tf.reduce_mean(logits**2)
        # The depth is in tf.cond, the archs in tf.while_loop.
        return tape.gradient(loss, supernet.trainable_variables, unconnected_gradients="zero")

    def step(archs):
        totals = [tf.zeros(variable.shape) for variable in supernet.trainable_variables]
        for sizes in archs:
            totals = [a + b for a, b in zip(totals, gradients(sizes), strict=True)]
        return tf.linalg.global_norm(totals)

    norms = tf.function(lambda archs: strategy.run(step, [archs]))(archs)
    stem = supernet.blocks[0].bn.moving_mean
    copies = [copy.numpy().tolist() for copy in stem.value.values]
    result = {
        "norms": [float(norm) for norm in norms.values],
        "copies": copies,
        "read": stem.numpy().tolist(),
        "finite": all(np.isfinite(v.numpy()).all() for v in supernet.variables),
    }
    stem.assign(np.arange(len(result["read"])))
    result["assigned"] = [copy.numpy().tolist() for copy in stem.value.values]
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
