"""ImageData: a data set as batches for training, evaluation and calibration."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ofa_tf.data import augmentation as transforms
from ofa_tf.data.augmentation import MIN_EVAL_CROP, Augmentation
from ofa_tf.data.census import Census
from ofa_tf.data.decoding import decode_part
from ofa_tf.data.randaugment import draw_operations
from ofa_tf.data.sources import DecodedImages, ImageSource
from ofa_tf.data.splits import stable_permutation
from ofa_tf.data.training_images import ImageDraws, TrainingTransform
from ofa_tf.errors import UsageError

# Streams of random numbers that must not be alike for one seed.
_ORDER, _AUGMENTATION, _RESOLUTION, _RANDAUGMENT = range(4)
_NUM_STREAMS = 8


class ImageData:
    """A classification data set in three splits.

    Args:
        name: what to call the set in reports.
        class_names: one name per label.
        train: the training images.
        test: the test images.
        validation: a source of its own, or the places in `train` of the images that are held out.
        flip: whether a mirrored image keeps its class.
        census: what identifies the images.

    Attributes:
        num_train: training images without the validation images.
        num_validation: validation images.
        num_test: test images.
        census: of the arguments; None where nobody knows.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        train: ImageSource,
        test: ImageSource,
        validation: ImageSource | np.ndarray,
        *,
        flip: bool = True,
        census: Census | None = None,
    ):
        self.name = name
        self.class_names = tuple(class_names)
        self.flip = flip
        self.census = census
        if isinstance(validation, np.ndarray):
            kept = np.setdiff1d(np.arange(len(train)), validation)
            held_out = (train, np.sort(validation))
        else:
            kept = np.arange(len(train))
            held_out = (validation, np.arange(len(validation)))
        self._splits = {
            "train": (train, kept),
            "validation": held_out,
            "test": (test, np.arange(len(test))),
        }

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_train(self) -> int:
        return len(self._splits["train"][1])

    @property
    def num_validation(self) -> int:
        return len(self._splits["validation"][1])

    @property
    def num_test(self) -> int:
        return len(self._splits["test"][1])

    def steps_per_epoch(self, batch_size: int) -> int:
        """Whole batches in the training images.

        Raises:
            UsageError: if there is none.
        """
        if not 1 <= batch_size <= self.num_train:
            raise UsageError(
                f"The batch size is {batch_size}, but {self.name} has {self.num_train} training "
                f"images; give a batch size from 1 to {self.num_train}."
            )
        return self.num_train // batch_size

    def train_batches(
        self,
        batch_size: int,
        resolutions: Sequence[int] | Sequence[tuple[int, Sequence[int]]],
        *,
        seed: int,
        first_step: int = 0,
        augmentation: Augmentation | None = None,
        num_replicas: int = 1,
        replicas: Sequence[int] | None = None,
    ) -> tf.data.Dataset:
        """Training batches without end, beginning with that of global step `first_step`.

        A batch is a function of (seed, step): the epoch's order, the batch's resolution and each
        image's augmentation. So a run that starts at a step sees what a run up to it would see,
        and nothing that is skipped is read. An epoch's last partial batch is dropped.

        With several replicas, each element is one replica's part of a batch: those of `replicas`
        in their order, then theirs of the next step, and so on, which is the order that
        `tf.distribute.Strategy.distribute_datasets_from_function` hands on. The parts of all
        replicas make up the very batch that one replica gets.

        Args:
            batch_size: images per batch, of all replicas together.
            resolutions: pixels; each batch has one of them, all equally likely. Where they change
                in the course of training: pairs of a step and the pixels from there on, in order.
            seed: of order, resolutions and augmentation.
            first_step: the global step of the first batch.
            augmentation: default `Augmentation()`.
            num_replicas: equal parts that each batch has.
            replicas: the parts that are wanted, default all; images of others are not read.

        Returns:
            float32 normalized images [batch_size / num_replicas, R, R, 3] and int32 labels
            [batch_size / num_replicas].

        Raises:
            UsageError: if the training images do not fill a batch, or the replicas cannot share it.
        """
        augmentation = augmentation or Augmentation()
        replicas = list(range(num_replicas) if replicas is None else replicas)
        _check_replicas(batch_size, num_replicas, replicas)
        source = self._opened("train")
        transform = TrainingTransform(source, augmentation, augmentation.flip and self.flip)
        batches = self._train_indices(batch_size, seed, first_step)

        def parts(of_batch: tf.Tensor) -> tf.Tensor:
            shape = [num_replicas, batch_size // num_replicas, *of_batch.shape[1:]]
            return tf.gather(tf.reshape(of_batch, shape), replicas)

        def draw(step: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, ImageDraws, tf.Tensor]:
            uniforms = transforms.draw_uniforms(_stream(seed, _AUGMENTATION, step), batch_size)
            operations = None  # no tensor without elements: unbatch() crashes on them
            if layers := augmentation.randaugment_layers:
                stream = _stream(seed, _RANDAUGMENT, step)
                operations = parts(draw_operations(stream, batch_size, layers))
            draws = ImageDraws(tf.nest.map_structure(parts, uniforms), operations)
            resolution = tf.repeat(resolution_at_step(resolutions, seed, step), batch_size)
            return parts(indices), draws, parts(resolution)

        batches = batches.map(draw).unbatch()
        if isinstance(source, DecodedImages):
            batches = batches.map(transform.batch, num_parallel_calls=tf.data.AUTOTUNE)
        else:
            images = batches.unbatch()
            images = images.map(transform.image, num_parallel_calls=tf.data.AUTOTUNE)
            batches = images.batch(batch_size // num_replicas, drop_remainder=True)
        return _finish(batches)

    def eval_batches(
        self,
        split: str,
        resolution: int,
        batch_size: int,
        *,
        limit: int | None = None,
        eval_crop: float = 1.0,
        normalize: bool = True,
    ) -> tf.data.Dataset:
        """One pass over a split, without augmentation, always in the same mixed order.

        Args:
            split: "train", "validation" or "test".
            resolution: pixels of the images.
            batch_size: images per batch; the last batch may be smaller.
            limit: only so many images, a fixed random sample.
            eval_crop: the image is resized so that the centered crop of `resolution` pixels is this
                share of its shorter side (published for ImageNet: 0.875).
            normalize: False gives pixels from 0 to 255.

        Returns:
            float32 images [B, resolution, resolution, 3] and int32 labels [B].

        Raises:
            UsageError: for an unknown or empty split, or an eval_crop outside 0.01 to 1.
        """
        indices = self._eval_indices(split)[:limit]
        return self._unaugmented(split, indices, resolution, batch_size, eval_crop, normalize)

    def calibration_batches(
        self,
        resolution: int,
        batch_size: int,
        num_images: int,
        *,
        seed: int = 0,
        eval_crop: float = 1.0,
        normalize: bool = True,
    ) -> tf.data.Dataset:
        """Training images through the evaluation transform, in whole batches only.

        Args:
            resolution: pixels of the images.
            batch_size: images per batch.
            num_images: images in all, rounded down to whole batches.
            seed: chooses the images.
            eval_crop: as for `eval_batches`.
            normalize: False gives pixels from 0 to 255.

        Raises:
            UsageError: if there are fewer training images, or not one whole batch is asked for.
        """
        if not batch_size <= num_images <= self.num_train:
            raise UsageError(
                f"Calibration with {num_images} images in batches of {batch_size}: there must be "
                f"at least one whole batch, and {self.name} has {self.num_train} training images."
            )
        _, indices = self._splits["train"]
        chosen = indices[stable_permutation(len(indices), seed)]
        chosen = chosen[: num_images // batch_size * batch_size]
        return self._unaugmented("train", chosen, resolution, batch_size, eval_crop, normalize)

    def _train_indices(self, batch_size: int, seed: int, first_step: int) -> tf.data.Dataset:
        """(step, int64 indices [batch_size]) from `first_step` on, without end."""
        steps = self.steps_per_epoch(batch_size)
        _, indices = self._splits["train"]

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.random.experimental.stateless_shuffle(
                indices, _stream(seed, _ORDER, epoch), alg="philox"
            )
            rows = tf.reshape(order[: steps * batch_size], [steps, batch_size])
            return tf.data.Dataset.from_tensor_slices(rows)

        epochs = tf.data.Dataset.range(first_step // steps, tf.int64.max)
        batches = epochs.flat_map(epoch_batches).skip(first_step % steps)
        return batches.enumerate(start=first_step)

    def _opened(self, split: str) -> ImageSource:
        source, _ = self._splits[split]
        if isinstance(source, DecodedImages):
            source.open()
        return source

    def _eval_indices(self, split: str) -> np.ndarray:
        if split not in self._splits:
            raise UsageError(f"Unknown split {split!r}; choose one of {', '.join(self._splits)}.")
        _, indices = self._splits[split]
        if not len(indices):
            raise UsageError(f"{self.name} has no {split} images; set num_validation above 0.")
        return indices[stable_permutation(len(indices), seed=0)]

    def _unaugmented(
        self,
        split: str,
        indices: np.ndarray,
        resolution: int,
        batch_size: int,
        eval_crop: float,
        normalize: bool,
    ) -> tf.data.Dataset:
        if not MIN_EVAL_CROP <= eval_crop <= 1:
            raise UsageError(f"eval_crop is {eval_crop}; it must be from {MIN_EVAL_CROP} to 1.")
        source = self._opened(split)

        def finish(images: tf.Tensor) -> tf.Tensor:
            images = tf.ensure_shape(images, [*images.shape[:-3], resolution, resolution, 3])
            return transforms.normalize(images) if normalize else images

        def load_batch(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = source.fetch(batch)
            return finish(transforms.resize_and_center_crop(images, resolution, eval_crop)), labels

        def load_image(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            picture, label = source.fetch(index)
            center = functools.partial(
                transforms.center_box, resolution=resolution, eval_crop=eval_crop
            )
            part = decode_part(picture, center)
            return finish(transforms.resize_center(part, resolution, eval_crop)), label

        dataset = tf.data.Dataset.from_tensor_slices(indices)
        if isinstance(source, DecodedImages):
            dataset = dataset.batch(batch_size).map(load_batch, num_parallel_calls=tf.data.AUTOTUNE)
        else:
            dataset = dataset.map(load_image, num_parallel_calls=tf.data.AUTOTUNE)
            dataset = dataset.batch(batch_size)
        return _finish(dataset)


def _check_replicas(batch_size: int, num_replicas: int, replicas: Sequence[int]) -> None:
    if num_replicas < 1 or batch_size % num_replicas:
        raise UsageError(
            f"The batch size is {batch_size} and cannot be shared equally by {num_replicas} "
            f"replicas; give a multiple of {num_replicas}."
        )
    if not replicas or not set(replicas) <= set(range(num_replicas)):
        raise UsageError(
            f"replicas is {replicas}; with {num_replicas} replicas, it must name at least one "
            f"from 0 to {num_replicas - 1}."
        )


def resolution_at_step(
    resolutions: Sequence[int] | Sequence[tuple[int, Sequence[int]]], seed: int, step: tf.Tensor
) -> tf.Tensor:
    """The resolution of the training batch of `step`, an int32 scalar."""
    parts: Any = resolutions if isinstance(resolutions[0], Sequence) else [(0, resolutions)]
    starts, choices = zip(*parts, strict=True)
    counts = tf.constant([len(each) for each in choices])
    part = tf.reduce_sum(tf.cast(tf.cast(step, tf.int64) >= starts[1:], tf.int32))
    choice = tf.random.stateless_uniform(
        [], _stream(seed, _RESOLUTION, step), 0, counts[part], tf.int32, alg="philox"
    )
    return tf.ragged.constant(choices, tf.int32).to_tensor()[part, choice]


def _stream(seed: int, stream: int, counter: tf.Tensor) -> tf.Tensor:
    """The seed of a stateless random op, int64 [2]."""
    mixed = (seed % 2**32) * _NUM_STREAMS + stream
    return tf.stack([tf.constant(mixed, tf.int64), tf.cast(counter, tf.int64)])


def _finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    return dataset.with_options(options).prefetch(2)
