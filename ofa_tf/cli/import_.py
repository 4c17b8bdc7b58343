"""ofa-import: a published PyTorch checkpoint becomes a job, or a job's weights one.

    ofa-import --space=ofa_mbv3_w1.0 --checkpoint=FILE --data_dir=PATH --workdir=DIR
    ofa-import --workdir=DIR --to_torch=FILE

The job then serves ofa-eval, ofa-latency, ofa-search and ofa-export as a trained one does. Without
images it serves what needs none. --checkpoint=published downloads the authors' file.
"""

from __future__ import annotations

import hashlib
import pathlib

from absl import flags

from ofa_tf.cli import common
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.job import Job, OpenedImages, keep_images, open_images
from ofa_tf.quiet import import_tensorflow

FLAGS = flags.FLAGS

_PUBLISHED = "published"
# What to do about a file of other classes, in a job with images and in one without.
_NEW_HEAD = (
    "give --new_head to leave its classifier out and make one for the classes of your images"
)
_LABELS = "give --labels=FILE, with the names of these {theirs} classes"
_NUM_CLASSES = 1000  # of the published networks


def define_flags() -> None:
    flags.DEFINE_string("space", None, "Of the checkpoint; a wrong name lists all; or FILE.py.")
    flags.DEFINE_string(
        "checkpoint", None, "PyTorch checkpoint of the supernet, or published to download it."
    )
    flags.DEFINE_bool(
        "new_head", False, "Leave the classifier out and make one for the classes of the images."
    )
    flags.DEFINE_string(
        "to_torch", None, "Write the job's newest weights into this PyTorch file instead."
    )
    common.define_data()
    common.define_labels()


def import_() -> None:
    """Does what FLAGS describe."""
    if bool(FLAGS.checkpoint) == bool(FLAGS.to_torch):
        raise UsageError("give either --checkpoint, to import it, or --to_torch, to export to it.")
    if FLAGS.to_torch:
        _export()
    else:
        _import()


def _export() -> None:
    import_tensorflow()
    from ofa_tf.interop import save_checkpoint

    job = Job(common.workdir())
    save_checkpoint(job.supernet, FLAGS.to_torch)
    common.log.info("The weights are in %s.", FLAGS.to_torch)


@common.writes_job
def _import() -> None:
    from ofa_tf.interop import require_torch
    from ofa_tf.spaces import get_space

    if FLAGS.space is None:
        raise UsageError("give the --space that the checkpoint is of.")
    # Before TensorFlow's slow import, so that a typo ends fast.
    space = get_space(FLAGS.space)
    if FLAGS.checkpoint != _PUBLISHED and not pathlib.Path(FLAGS.checkpoint).is_file():
        raise UsageError(
            f"--checkpoint={FLAGS.checkpoint} is no file. Give a PyTorch file, or {_PUBLISHED}."
        )
    require_torch()
    workdir = common.workdir()
    workdir.check_space(space)
    images = _images(workdir)
    class_names = (
        images.class_names if images else common.read_labels(_NUM_CLASSES, any_number=True)
    )
    path = _checkpoint_file(workdir)
    config = {
        "space": space.name,
        "data": images and images.settings,
        "class_names": class_names,
        "eval_crop": FLAGS.eval_crop,
        "calibration_images": FLAGS.calibration_images,
        "init": None,
        "recipe": {"checkpoint": _sha256(path), "new_head": FLAGS.new_head},
    }
    workdir.check(config)
    supernet = _supernet(space, len(class_names), path)
    _save(supernet, workdir)
    workdir.keep_space(space)
    if images:
        keep_images(workdir, images.data)
    workdir.start(config)
    common.log.info("Imported. The supernet is in %s.", workdir.checkpoints)


def _images(workdir) -> OpenedImages | None:
    """The images, where the flags name some."""
    if FLAGS.data_dir is None and FLAGS.dataset is None:
        if FLAGS.new_head:
            raise UsageError(
                "--new_head is for the classes of images: give --data_dir or --dataset."
            )
        return None
    if FLAGS.labels:
        raise UsageError("--labels is for jobs without images; these have names of their own.")
    return open_images(common.data_config(), workdir)


def _checkpoint_file(workdir) -> pathlib.Path:
    from ofa_tf.interop import download_checkpoint

    if FLAGS.checkpoint == _PUBLISHED:
        return download_checkpoint(FLAGS.space, workdir.path / "downloads")
    return pathlib.Path(FLAGS.checkpoint)


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _supernet(space, num_classes: int, path: pathlib.Path):
    """The supernet with the checkpoint's weights."""
    import_tensorflow()
    import keras

    from ofa_tf.interop import load_checkpoint
    from ofa_tf.models import Supernet

    keras.utils.set_random_seed(FLAGS.seed)
    supernet = Supernet(space, num_classes)
    try:
        load_checkpoint(
            supernet,
            path,
            with_classifier=not FLAGS.new_head,
            classes_remedy=_NEW_HEAD if FLAGS.data_dir or FLAGS.dataset else _LABELS,
        )
    except UsageError as error:
        if FLAGS.checkpoint != _PUBLISHED:
            raise
        raise FailureError(f"{error} Remove {path} to download it again.") from error
    return supernet


def _save(supernet, workdir) -> None:
    """As the checkpoint that ends a training: whatever an arch can choose was trained."""
    from ofa_tf.training import checkpoints
    from ofa_tf.training.phases import PHASE_NAMES

    state = {"phase": PHASE_NAMES[-1], "finished": not FLAGS.new_head}
    arrays = checkpoints.snapshot(weights=supernet.variables)
    checkpoints.CheckpointFolder(workdir.checkpoints).save(0, state, arrays)


def main() -> None:
    define_flags()
    common.define_workdir()
    common.run(import_, __doc__)


if __name__ == "__main__":
    main()
