"""What a Supernet is given, checked: each raises UsageError, in one line that says what to give."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ofa_tf.errors import UsageError
from ofa_tf.spaces import Arch, SearchSpace, get_space


def as_space(space: Any) -> SearchSpace:
    """The search space, or the one that `get_space` knows by this name or file."""
    if isinstance(space, SearchSpace):
        return space
    if isinstance(space, (str, os.PathLike)):
        return get_space(space)
    raise UsageError(
        f"space is a SearchSpace or the name of one, not {space!r}: Supernet(space, num_classes)."
    )


def as_num_classes(num_classes: Any) -> int:
    """A number of classes, at least one."""
    whole = isinstance(num_classes, (int, np.integer)) and not isinstance(num_classes, bool)
    if not whole or num_classes < 1:
        raise UsageError(f"num_classes is a whole number from 1, not {num_classes!r}.")
    return int(num_classes)


def as_images(images: Any) -> Any:
    """The images as an array or tensor: normalized floats, (batch, height, width, 3)."""
    if keras.backend.is_keras_tensor(images):
        raise UsageError(
            "A supernet is no layer of a functional model; one of its subnets is, "
            "supernet.subnet(arch)."
        )
    if not tf.is_tensor(images):
        images = np.asarray(images)
    shape = tf.TensorShape(images.shape)
    if not shape.is_compatible_with([None, None, None, 3]) or (shape.rank and shape[0] == 0):
        raise UsageError(
            f"images are a batch of at least one, (batch, height, width, 3), not of the shape "
            f"{tuple(shape)}."
        )
    if not tf.as_dtype(images.dtype).is_floating:
        raise UsageError(
            f"images are normalized floats, not {tf.as_dtype(images.dtype).name}: give (images - "
            f"MEAN) / STD with MEAN and STD of ofa_tf.data. A subnet can take raw pixels: "
            f"supernet.subnet(arch, normalization=(MEAN, STD))."
        )
    return images


def check_resolution(images: Any, arch: Arch) -> None:
    """That the images, as far as their size is known, are of the arch's."""
    side, shape = arch.resolution, tf.TensorShape(images.shape)
    if not shape.is_compatible_with([None, side, side, 3]):
        raise UsageError(
            f"images are {shape[1]} x {shape[2]} pixels, but the arch's resolution is {side}: "
            f"resize them, or give space.sizes(arch), which runs on images of any size."
        )


def as_sizes(sizes: Any, space: SearchSpace) -> Any:
    """What `space.sizes` gives, as an array, a tensor or rows of ints."""
    if sizes is None:
        raise UsageError(
            "A supernet is many networks: give the arch that is to run, an Arch, its dict, "
            "'largest' or 'smallest'."
        )
    try:
        shape = tf.TensorShape(sizes.shape if hasattr(sizes, "shape") else np.shape(sizes))
    except (TypeError, ValueError):
        shape = tf.TensorShape([])
    if not shape.is_compatible_with(space.sizes_shape):
        raise UsageError(
            f"arch is an Arch, its dict, 'largest', 'smallest', or what space.sizes(arch) gives, "
            f"{space.sizes_shape}; not a {type(sizes).__name__} of shape {shape}."
        )
    return sizes
