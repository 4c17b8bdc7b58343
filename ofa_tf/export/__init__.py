"""Export: a subnet as a plain Keras model and as TFLite files, with labels and a card."""

from ofa_tf.export.card import SubnetSpec
from ofa_tf.export.subnet import FORMATS, check_formats, export_subnet, is_up_to_date
from ofa_tf.export.tflite import convert

__all__ = [
    "FORMATS",
    "SubnetSpec",
    "check_formats",
    "convert",
    "export_subnet",
    "is_up_to_date",
]
