"""ofa-eval: accuracy of subnets of a trained supernet, with recalibrated batch norm.

ofa-eval --workdir=DIR --arch=largest,smallest --split=test
"""

from __future__ import annotations

from absl import flags

from ofa_tf.cli import common
from ofa_tf.cli.arch_files import read_arch

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list("arch", ["largest", "smallest"], "largest, smallest, or files of an arch.")
    flags.DEFINE_enum("split", "test", ["validation", "test"], "Which images.")
    flags.DEFINE_integer("resolution", None, "Pixels for largest and smallest, if not their own.")


def evaluate() -> None:
    """Prints a line per arch."""
    job = common.open_job()
    archs = {text: read_arch(job.space, text, FLAGS.resolution) for text in FLAGS.arch}
    evaluator = job.evaluator(FLAGS.split)
    for text, arch in archs.items():
        plan = job.space.blueprint(arch, len(job.class_names))
        print(
            f"{text}: {100 * evaluator.accuracy(arch):.2f} % on the {FLAGS.split} images, "
            f"{arch.resolution} px, {plan.macs / 1e6:.2f} M MACs, {plan.params / 1e3:.1f} k "
            "parameters"
        )


def main() -> None:
    define_flags()
    common.define_workdir()
    common.define_moved_images()
    common.run(evaluate, __doc__)


if __name__ == "__main__":
    main()
