"""Images as batches: TFDS sets, image folders, the embedded set; augmentation and splits."""

from ofa_tf.data.augmentation import MEAN, STD, Augmentation, normalize
from ofa_tf.data.load import load_dataset
from ofa_tf.data.pipeline import ImageData, resolution_at_step
from ofa_tf.data.sources import reading_told

__all__ = [
    "MEAN",
    "STD",
    "Augmentation",
    "ImageData",
    "load_dataset",
    "normalize",
    "reading_told",
    "resolution_at_step",
]
