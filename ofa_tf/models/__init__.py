"""The supernet, the plain Keras networks of its subnets, and the way from one to the other."""

import ofa_tf.layers.backend  # noqa: F401  # before what imports Keras
from ofa_tf.models.materialize import materialize
from ofa_tf.models.subnet import build_subnet, copy_weights
from ofa_tf.models.supernet import Supernet

__all__ = ["Supernet", "build_subnet", "copy_weights", "materialize"]
