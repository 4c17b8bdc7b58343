"""Materialize: a subnet of a supernet as a plain Keras model, weights and all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ofa_tf.models.subnet import build_subnet
from ofa_tf.spaces import Arch

if TYPE_CHECKING:
    from ofa_tf.models.supernet import Supernet


def materialize(supernet: Supernet, arch: Arch | dict, **options) -> keras.Model:
    """Cuts a subnet out: the plain network of its Blueprint with the supernet's active weights.

    Args:
        supernet: the weights, with the batch-norm statistics that the subnet shall have.
        arch: the subnet.
        **options: of `build_subnet`.

    Returns: a `keras.Model` that computes what `supernet(images, arch)` computes.

    Raises:
        UsageError: the arch is not in the supernet's space.
    """
    plan = supernet.space.blueprint(arch, supernet.num_classes)
    model = build_subnet(plan, **options)
    elastic = {block.name: block for block in supernet.blocks}
    built = plan.backbone if options.get("head") == "features" else plan
    for block in built.blocks:
        if not block.weighted_layers:
            continue
        for layer_name, weights in elastic[block.name].active_weights(block).items():
            layer = model.get_layer(f"{block.name}_{layer_name}")
            layer.set_weights([weight.numpy() for weight in weights])
    return model
