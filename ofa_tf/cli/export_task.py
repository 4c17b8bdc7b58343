"""The export of one subnet, as ofa-export hands it to the process that does it."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ofa_tf.job import load_job
from ofa_tf.quiet import import_tensorflow

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from ofa_tf.export import Qat, SubnetSpec, Thresholds
    from ofa_tf.job import Job
    from ofa_tf.models import Supernet


# Takes how many files are done with this, and what was or is being made.
Report = Callable[[tuple[int, str]], None]


@dataclasses.dataclass(frozen=True)
class QatOptions:
    """How tflite_qat is trained."""

    epochs: int
    base_lr: float
    batch_size: int


@dataclasses.dataclass(frozen=True)
class ImageOptions:
    """Which images of a job calibrate, verify and evaluate.

    Args:
        workdir: of the job; each process loads its images itself.
        calibration_images: training images for the scales of activations.
        calibration_seed: chooses them.
        test_images: to evaluate on; None for all.
        verify_images: of these, to compare outputs on.
    """

    workdir: str
    calibration_images: int
    calibration_seed: int
    test_images: int | None
    verify_images: int

    def calibration(self, job: Job, resolution: int) -> np.ndarray:
        """Raw pixels, (n, resolution, resolution, 3)."""
        import numpy as np

        from ofa_tf.data import reading_told

        batches = job.data.calibration_batches(
            resolution,
            1,
            min(self.calibration_images, job.data.num_train),
            seed=self.calibration_seed,
            eval_crop=job.config["eval_crop"],
            normalize=False,
        )
        with reading_told():
            return np.concatenate([images for images, _ in batches])

    def test(self, job: Job, resolution: int, *, normalize: bool = False) -> tf.data.Dataset:
        """Images and labels to evaluate on; to verify on the first of them are taken."""
        return job.data.eval_batches(
            "test",
            resolution,
            100,
            limit=self.test_images,
            eval_crop=job.config["eval_crop"],
            normalize=normalize,
        )

    def supernet_classes(self, supernet: Supernet, job: Job, spec: SubnetSpec) -> np.ndarray:
        """What the supernet, calibrated for the spec's arch, makes of the images to verify on."""
        import numpy as np

        classes: list[np.ndarray] = []
        for images, _ in self.test(job, spec.plan.resolution, normalize=True):
            classes.append(np.argmax(supernet(images, spec.arch), axis=-1))
            if sum(map(len, classes)) >= self.verify_images:
                break
        return np.concatenate(classes)[: self.verify_images]


@dataclasses.dataclass(frozen=True)
class ExportTask:
    """What `export_subnet` is told; `images` is None for a network without them."""

    spec: SubnetSpec
    folder: pathlib.Path
    formats: tuple[str, ...]
    thresholds: Thresholds
    images: ImageOptions | None = None
    qat: QatOptions | None = None
    make_model: Callable[[], keras.Model] | None = None
    supernet_classes: np.ndarray | None = None

    def is_done(self) -> bool:
        """Whether all files are there."""
        from ofa_tf.export import is_up_to_date

        return is_up_to_date(
            self.spec,
            self.folder,
            self.formats,
            evaluated=self.images is not None,
            thresholds=self.thresholds,
            qat_settings=self.qat and dataclasses.asdict(self.qat),
        )

    def run(self, report: Report, job: Job | None) -> None:
        """Makes the files, with the images of the job where there are some; reports each."""
        from ofa_tf.export import export_subnet

        export_subnet(
            self.make_model,
            self.spec,
            self.folder,
            formats=self.formats,
            thresholds=self.thresholds,
            supernet_classes=self.supernet_classes,
            on_file=lambda name: report((1, f"{self.spec.name} {name}")),
            **self._of_images(report, job),
        )

    def rows(self) -> list[dict[str, Any]]:
        """The files that are there, as rows of `file_table`."""
        from ofa_tf.export import load_card

        files = load_card(self.folder, self.spec)["files"]
        return [
            {"name": f"{self.spec.name} {name}", **files[name]}
            for name in self.formats
            if name in files
        ]

    def _of_images(self, report: Report, job: Job | None) -> dict[str, Any]:
        if self.images is None:
            return {}
        resolution = self.spec.plan.resolution
        return {
            "calibration_images": self.images.calibration(job, resolution),
            "test_batches": self.images.test(job, resolution),
            "verify_images": self.images.verify_images,
            "qat": self.qat and _qat(self.qat, job, self.spec, report),
        }


@dataclasses.dataclass(frozen=True)
class ModelInMemory:
    """A Keras model for this process."""

    model: keras.Model

    def __call__(self) -> keras.Model:
        return self.model


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A Keras model that was written for another process."""

    path: pathlib.Path

    def __call__(self) -> keras.Model:
        from ofa_tf.export.keras_file import load_keras_file

        return load_keras_file(self.path)


def run_task(task: ExportTask, report: Report, job: Job | None = None) -> None:
    """`task.run` as a function that other processes find; they open the job themselves."""
    if job is None and task.images is not None:
        job = _opened(task.images.workdir)
    task.run(report, job)


def prepare_process(temporary_folder: str) -> None:
    """In a process that shares the cores with others, and their folder of temporary files."""
    tempfile.tempdir = temporary_folder
    import_tensorflow()
    import tensorflow as tf

    # What there is to say of the images, the command says itself.
    logging.getLogger("ofa_tf").setLevel(logging.ERROR)
    tf.config.threading.set_intra_op_parallelism_threads(1)


@functools.cache
def _opened(workdir: str) -> Job:
    return load_job(workdir)


def _qat(options: QatOptions, job: Job, spec: SubnetSpec, report: Report) -> Qat:
    from ofa_tf.data import MEAN, STD
    from ofa_tf.export import Qat

    resolution = spec.plan.resolution
    validation_batches = job.data.eval_batches(
        "validation", resolution, 100, eval_crop=job.config["eval_crop"], normalize=False
    )

    def progress(step: int, steps: int) -> None:
        report((0, f"{spec.name} tflite_qat, step {step} of {steps}"))

    def train(model: keras.Model) -> tuple[bytes, list[dict[str, Any]]]:
        from ofa_tf.export.qat import quantization_aware

        batches = job.data.train_batches(options.batch_size, [resolution], seed=0)
        result = quantization_aware(
            model,
            spec.plan,
            spec.interface,
            train_batches=batches.map(lambda images, labels: (images * STD + MEAN, labels)),
            validation_batches=validation_batches,
            epochs=options.epochs,
            steps_per_epoch=job.data.steps_per_epoch(options.batch_size),
            base_lr=options.base_lr,
            form=spec.form,
            batch_size=spec.batch_size,
            progress=progress,
        )
        return result.tflite, result.history

    return Qat(dataclasses.asdict(options), train, validation_batches)
