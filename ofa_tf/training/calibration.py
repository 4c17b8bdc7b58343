"""Batch-norm recalibration of a subnet, and its accuracy with recalibrated statistics."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from ofa_tf.data import ImageData, reading_told
from ofa_tf.models import Supernet
from ofa_tf.spaces import Arch
from ofa_tf.training.strategy import distributed_batches, first_local

# Batches up to this size in all are kept in memory between one subnet and the next.
_CACHE_BYTES = 1_000_000_000


class SubnetEvaluator:
    """Accuracies of subnets, each with recalibrated batch norm.

    A subnet's statistics are the mean over batches of training images of each batch's mean and
    variance (arXiv 1908.09791). Under a strategy each replica takes whole batches, so that the
    numbers do not depend on how many replicas there are.

    Args:
        supernet: the trained weights, made within the strategy's scope.
        data: the images.
        split: "validation" or "test".
        limit: evaluate on so many images only, a fixed random sample.
        calibration_images: training images that the statistics are estimated on.
        batch_size: images at once, in calibration and evaluation.
        eval_crop: see `ImageData.eval_batches`.
        strategy: where it runs; the present one by default.

    Raises:
        UsageError: the split is empty or unknown, or eval_crop is out of range.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: ImageData,
        split: str = "validation",
        *,
        limit: int | None = None,
        calibration_images: int = 2000,
        batch_size: int = 100,
        eval_crop: float = 1.0,
        strategy: tf.distribute.Strategy | None = None,
    ):
        self.supernet = supernet
        self.data = data
        self.split = split
        self.limit = limit
        self.calibration_images = min(calibration_images, data.num_train)
        self.batch_size = min(batch_size, self.calibration_images)
        self.eval_crop = eval_crop
        self.strategy = strategy or tf.distribute.get_strategy()
        self._cache: dict[tuple[str, int], Iterable] = {}
        self._calibrate: Any = None  # tf.functions, once they are traced
        self._count: Any = None
        splits = {"validation": data.num_validation, "test": data.num_test}
        self._num_images = {
            "train": self.calibration_images // self.batch_size * self.batch_size,
            split: min(splits.get(split, 0), limit or splits.get(split, 0)),
        }
        # Datasets are lazy, and a wrong setting should not end a run only after its first phase.
        for each in self._num_images:
            self._dataset(each, supernet.space.resolutions[0])

    @property
    def num_images(self) -> int:
        """Images that an accuracy is of."""
        return self._num_images[self.split]

    @contextlib.contextmanager
    def calibrated(self, arch: Arch) -> Iterator[None]:
        """Within the block, the moving statistics are the arch's own; then as they were."""
        rounds = self._rounds("train", arch.resolution)
        sizes = self.supernet.space.sizes(arch)
        with self.supernet.kept_statistics():
            for index, batch in enumerate(rounds):
                self._calibrate(batch, sizes, float(index > 0))
            if self.strategy.num_replicas_in_sync > 1:
                self.supernet.average_statistics()
            yield

    def accuracy(self, arch: Arch) -> float:
        """Top-1 accuracy (a fraction) of a subnet on the split."""
        sizes = self.supernet.space.sizes(arch)
        with self.calibrated(arch):
            rounds = self._rounds(self.split, arch.resolution)
            correct = sum(int(self._count(batch, sizes)) for batch in rounds)
        return correct / self.num_images

    def _rounds(self, split: str, resolution: int) -> Iterable:
        """A batch for each replica at a time, in memory where they are small."""
        key = split, resolution
        if key not in self._cache:
            dataset = distributed_batches(
                self.strategy, lambda replicas: self._of_replicas(split, resolution, replicas)
            )
            self._trace(dataset.element_spec)
            num_rounds = math.ceil(self._num_batches(split) / self.strategy.num_replicas_in_sync)
            rounds = _Repeatable(dataset, num_rounds)
            size = sum(self._num_images.values()) * resolution**2 * 3 * 4
            small = size * len(self.supernet.space.resolutions) < _CACHE_BYTES
            self._cache[key] = list(rounds) if small else rounds
        return self._cache[key]

    def _of_replicas(self, split: str, resolution: int, replicas: range) -> tf.data.Dataset:
        """Images, labels, and how much the batch counts: 0 where it only fills up a round."""
        count = self.strategy.num_replicas_in_sync

        def of_any_size(images, labels):
            # One graph is for all resolutions, so the graph must not see which one this is.
            images = tf.compat.v1.placeholder_with_default(images, [None, None, None, 3])
            return images, labels, 1.0

        dataset = self._dataset(split, resolution).map(of_any_size)
        missing = -self._num_batches(split) % count
        if missing:
            filling = dataset.take(1).map(lambda images, labels, _: (images, labels, 0.0))
            dataset = dataset.concatenate(filling.repeat(missing))
        if len(replicas) < count:
            first, last = replicas[0], replicas[-1]
            dataset = dataset.enumerate().filter(
                lambda index, _: (first <= index % count) & (index % count <= last)
            )
            dataset = dataset.map(lambda _, batch: batch)
        return dataset.repeat()

    def _num_batches(self, split: str) -> int:
        return math.ceil(self._num_images[split] / self.batch_size)

    def _dataset(self, split: str, resolution: int) -> tf.data.Dataset:
        if split == "train":
            return self.data.calibration_batches(
                resolution, self.batch_size, self.calibration_images, eval_crop=self.eval_crop
            )
        return self.data.eval_batches(
            split, resolution, self.batch_size, limit=self.limit, eval_crop=self.eval_crop
        )

    def _trace(self, batch_spec: Any) -> None:
        """Makes the two graphs, each of which serves all subnets and resolutions."""
        if self._count is None:
            sizes = tf.TensorSpec(self.supernet.space.sizes_shape, tf.int32)
            keep = tf.TensorSpec([], tf.float32)
            signature = [batch_spec, sizes]
            self._calibrate = tf.function(
                self._calibrate_on_all, [*signature, keep], autograph=False
            )
            self._count = tf.function(self._count_on_all, signature, autograph=False)

    def _calibrate_on_all(self, batch, sizes, keep):
        """Adds a round's share of the mean. Each replica has its own sum."""
        scale = self.strategy.num_replicas_in_sync / self._num_batches("train")

        def add(images, _, counts):
            self.supernet(images, sizes, bn_update=(keep, scale * counts))

        self.strategy.run(add, args=batch)

    def _count_on_all(self, batch, sizes):
        """Images of a round that are classified correctly, over all replicas."""

        def count(images, labels, counts):
            logits = self.supernet(images, sizes)
            hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels)
            correct = tf.reduce_sum(tf.cast(hits, tf.float32)) * counts
            replica = tf.distribute.get_replica_context()
            return replica.all_reduce(tf.distribute.ReduceOp.SUM, correct)

        return first_local(self.strategy, self.strategy.run(count, args=batch))


class _Repeatable:
    """The first elements of a dataset, anew at each iteration."""

    def __init__(self, dataset: Iterable, count: int):
        self._dataset, self._count = dataset, count

    def __iter__(self) -> Iterator:
        with reading_told():
            yield from itertools.islice(iter(self._dataset), self._count)
