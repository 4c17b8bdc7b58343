"""ofa-eval: accuracy of subnets of a trained supernet, with recalibrated batch norm.

ofa-eval --workdir=DIR --arch=largest,smallest --split=test
"""

from __future__ import annotations

import pathlib

from absl import flags

from ofa_tf.cli import common
from ofa_tf.errors import UsageError
from ofa_tf.job import Job

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list("arch", ["largest", "smallest"], "largest, smallest, or files of an arch.")
    flags.DEFINE_enum("split", "test", ["validation", "test"], "Which images.")
    flags.DEFINE_integer("resolution", None, "Pixels for largest and smallest, if not their own.")


def evaluate() -> None:
    """Prints a line per arch."""
    job = Job(common.workdir())
    archs = {text: _arch(job.space, text) for text in FLAGS.arch}
    evaluator = job.evaluator(FLAGS.split)
    for text, arch in archs.items():
        plan = job.space.blueprint(arch, len(job.class_names))
        print(
            f"{text}: {100 * evaluator.accuracy(arch):.2f} % on the {FLAGS.split} images, "
            f"{arch.resolution} px, {plan.macs / 1e6:.2f} M MACs, {plan.params / 1e3:.1f} k "
            "parameters"
        )


def _arch(space, text: str):
    """An arch by name, or from a file in the published spelling."""
    from ofa_tf.spaces import Arch

    if text in ("largest", "smallest"):
        if FLAGS.resolution:
            space = space.restrict(resolutions=[FLAGS.resolution])
        return space.max() if text == "largest" else space.min()
    try:
        content = pathlib.Path(text).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--arch is largest, smallest, or the path of an arch.json, not {text!r}: {error}."
        ) from error
    try:
        return space.arch(Arch.from_json(content))
    except UsageError as error:
        raise UsageError(f"{text}: {error}") from error


def main() -> None:
    define_flags()
    common.define_workdir()
    common.run(evaluate, __doc__)


if __name__ == "__main__":
    main()
