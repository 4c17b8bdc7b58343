"""From an index to an augmented, normalized training image, one by one or a batch at once."""

from typing import NamedTuple

import tensorflow as tf

from ofa_tf.data import augmentation as transforms
from ofa_tf.data.augmentation import Augmentation, Draws
from ofa_tf.data.decoding import Box, decode_part
from ofa_tf.data.randaugment import randaugment
from ofa_tf.data.sources import ImageSource


class ImageDraws(NamedTuple):
    """All random numbers of an image, or of a batch."""

    uniforms: Draws
    operations: tf.Tensor | None  # of `draw_operations`; None without RandAugment


class TrainingTransform:
    """Fetches training images and augments them by random numbers drawn beforehand.

    Args:
        source: the images; decoded ones are for `batch`, encoded ones for `image`.
        augmentation: what to do.
        flip: whether half of the images are mirrored.
    """

    def __init__(self, source: ImageSource, augmentation: Augmentation, flip: bool):
        self._source = source
        self._augmentation = augmentation
        self._flip = flip

    def batch(
        self, indices: tf.Tensor, draws: ImageDraws, resolutions: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Images of one size, decoded already, all to the same resolution.

        Args:
            indices: of the images, [batch].
            draws: of the batch.
            resolutions: int32 [batch], all equal.

        Returns:
            float32 images [batch, R, R, 3] and int32 labels [batch].
        """
        images, labels = self._source.fetch(indices)
        _, height, width, _ = images.shape
        box = transforms.random_crop_box(draws.uniforms, height, width, self._crop_scale_min)
        mirrored = self._mirrored(draws)
        images = transforms.crop_and_resize_batch(images, box, mirrored, resolutions[0])
        if draws.operations is not None:
            images = tf.map_fn(
                lambda image: self._randaugment(*image),
                (images, draws.operations),
                fn_output_signature=tf.TensorSpec([None, None, 3]),
            )
        return self._finish(images, draws), labels

    def image(
        self, index: tf.Tensor, draws: ImageDraws, resolution: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One encoded image, of any size; scalars in, [R, R, 3] and a scalar label out."""
        picture, label = self._source.fetch(index)

        def crop_box(height: tf.Tensor, width: tf.Tensor) -> Box:
            return transforms.random_crop_box(draws.uniforms, height, width, self._crop_scale_min)

        image = decode_part(picture, crop_box).pixels
        image = transforms.resize(image, resolution, resolution)
        # Not image[:, ::-1], which takes ten times as long.
        image = tf.cond(self._mirrored(draws), lambda: tf.reverse(image, axis=[1]), lambda: image)
        if draws.operations is not None:
            image = self._randaugment(image, draws.operations)
        return self._finish(image, draws), label

    @property
    def _crop_scale_min(self) -> float:
        return self._augmentation.crop_scale_min

    def _mirrored(self, draws: ImageDraws) -> tf.Tensor:
        return (draws.uniforms.flip < 0.5) & self._flip

    def _randaugment(self, image: tf.Tensor, operations: tf.Tensor) -> tf.Tensor:
        return randaugment(image, operations, self._augmentation.randaugment_magnitude)

    def _finish(self, images: tf.Tensor, draws: ImageDraws) -> tf.Tensor:
        images = transforms.jitter_colors(images, draws.uniforms, self._augmentation)
        return transforms.normalize(images)
