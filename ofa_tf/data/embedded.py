"""The embedded data set `ofa_doodles`: a TFDS builder that draws its images, without a download."""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from ofa_tf.data import doodles

EMBEDDED_DATASET = "ofa_doodles"
_IMAGES_PER_DRAWING = 250


class OfaDoodles(tfds.core.GeneratorBasedBuilder):
    """Small color images of ten classes: five shapes, each with two textures.

    A class is a shape (disk, ring, triangle, cross, star) filled with a texture (striped,
    checked): `striped_disk` ... `checked_star`. The shape is the coarse half of the task. The
    texture is the fine half: its period is 4 to 6 pixels of the native 32 x 32, and a network
    that sees fewer pixels loses it first. Colors, size, place, tilt, a background gradient,
    clutter (some of it textured), an occluding bar, contrast, brightness and noise vary freely.
    A mirrored image keeps its class. The classes are balanced.
    """

    # TFDS looks for download checksums beside the code. There are none, and the search needs the
    # package importlib_resources, which TFDS does not install.
    code_path = None

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (the name is TFDS's own)
    SPLIT_SIZES = {"train": 6000, "test": 1500}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        size = doodles.IMAGE_SIZE
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=doodles.CLASS_NAMES),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # nothing to download
        return {
            name: self._generate_examples(count, split_seed)
            for split_seed, (name, count) in enumerate(self.SPLIT_SIZES.items())
        }

    def _generate_examples(self, count: int, split_seed: int) -> Iterator[tuple[int, dict]]:
        for start in range(0, count, _IMAGES_PER_DRAWING):
            indices = np.arange(start, min(start + _IMAGES_PER_DRAWING, count))
            labels = indices % len(doodles.CLASS_NAMES)
            images = doodles.draw(labels, seed=(split_seed, start))
            for index, image, label in zip(indices, images, labels, strict=True):
                yield int(index), {"image": image, "label": int(label)}
