"""Export: a subnet as a plain Keras model and as TFLite files, with labels and a card."""

import ofa_tf.layers.backend  # noqa: F401  # before what imports Keras
from ofa_tf.export.card import SubnetSpec, load_card
from ofa_tf.export.formats import FORMATS, FORMS, check_formats
from ofa_tf.export.interface import INPUTS, OUTPUTS, Interface
from ofa_tf.export.subnet import export_subnet, is_up_to_date
from ofa_tf.export.tflite import convert, convert_subnet
from ofa_tf.export.verification import Thresholds
from ofa_tf.export.writing import Qat

__all__ = [
    "FORMATS",
    "FORMS",
    "INPUTS",
    "OUTPUTS",
    "Interface",
    "Qat",
    "SubnetSpec",
    "Thresholds",
    "check_formats",
    "convert",
    "convert_subnet",
    "export_subnet",
    "is_up_to_date",
    "load_card",
]
