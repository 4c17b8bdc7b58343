"""Batch-norm recalibration of a subnet, and its accuracy with recalibrated statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from ofa_tf.data import ImageData
from ofa_tf.models import Supernet
from ofa_tf.spaces import Arch

# Batches up to this size in all are kept in memory between one subnet and the next.
_CACHE_BYTES = 1_000_000_000


@contextlib.contextmanager
def calibrated(supernet: Supernet, arch: Arch, batches: Iterable[tf.Tensor]) -> Iterator[None]:
    """Within the block, the moving statistics are the arch's own.

    They are the mean over the batches of each batch's mean and variance (arXiv 1908.09791); after
    the block they are as they were.

    Args:
        supernet: the supernet.
        arch: the subnet that is evaluated or cut out within the block.
        batches: normalized images at the arch's resolution; equal batches.
    """
    with supernet.kept_statistics():
        for index, images in enumerate(batches):
            supernet(images, arch, bn_momentum=index / (index + 1))
        yield


class SubnetEvaluator:
    """Accuracies of subnets, each with recalibrated batch norm.

    Args:
        supernet: the trained weights.
        data: the images.
        split: "validation" or "test".
        limit: evaluate on so many images only, a fixed random sample.
        calibration_images: training images that the statistics are estimated on.
        batch_size: images at once, in calibration and evaluation.
        eval_crop: see `ImageData.eval_batches`.

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
    ):
        self.supernet = supernet
        self.data = data
        self.split = split
        self.limit = limit
        self.calibration_images = min(calibration_images, data.num_train)
        self.batch_size = min(batch_size, self.calibration_images)
        self.eval_crop = eval_crop
        self._cache: dict[int, tuple[Iterable, Iterable]] = {}
        # Datasets are lazy, and a wrong setting should not end a run only after its first phase.
        self._datasets(supernet.space.resolutions[0])

    def calibrated(self, arch: Arch) -> contextlib.AbstractContextManager[None]:
        """`calibrated` on the training images at the arch's resolution."""
        calibration, _ = self._batches(arch.resolution)
        return calibrated(self.supernet, arch, (images for images, _ in calibration))

    def accuracy(self, arch: Arch) -> float:
        """Top-1 accuracy (a fraction) of a subnet on the split."""
        _, evaluation = self._batches(arch.resolution)
        with self.calibrated(arch):
            correct = [
                np.argmax(self.supernet(images, arch), axis=-1) == labels.numpy()
                for images, labels in evaluation
            ]
        return float(np.concatenate(correct).mean())

    def _batches(self, resolution: int) -> tuple[Iterable, Iterable]:
        """Calibration and evaluation batches, in memory where they are small."""
        if resolution in self._cache:
            return self._cache[resolution]
        calibration, evaluation = self._datasets(resolution)
        splits = {"validation": self.data.num_validation, "test": self.data.num_test}
        images = self.calibration_images + min(self.limit or np.inf, splits[self.split])
        if images * resolution**2 * 3 * 4 * len(self.supernet.space.resolutions) < _CACHE_BYTES:
            calibration, evaluation = list(calibration), list(evaluation)
        self._cache[resolution] = calibration, evaluation
        return calibration, evaluation

    def _datasets(self, resolution: int) -> tuple[tf.data.Dataset, tf.data.Dataset]:
        crop = {"eval_crop": self.eval_crop}
        calibration = self.data.calibration_batches(
            resolution, self.batch_size, self.calibration_images, **crop
        )
        evaluation = self.data.eval_batches(
            self.split, resolution, self.batch_size, limit=self.limit, **crop
        )
        return calibration, evaluation
