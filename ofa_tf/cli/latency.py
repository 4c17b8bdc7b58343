"""ofa-latency: measures the blocks of a job's space and makes its latency table.

    ofa-latency --workdir=DIR --target=host

Run the same command again to go on after an interruption.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
from typing import TYPE_CHECKING

from absl import flags

import mobile_bench
from ofa_tf.cli import common

if TYPE_CHECKING:
    from ofa_tf.search import LatencyTable

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list(
        "latency_resolutions", None, "Pixels at which blocks are measured; three by default."
    )
    flags.DEFINE_float("latency_min_secs", 0.02, "Seconds of timed runs per model and round.", 0.0)
    flags.DEFINE_integer("latency_rounds", 3, "Times that every model is measured.", 1)
    flags.DEFINE_integer("latency_subnets", 16, "Whole subnets measured, to fit and to check.", 4)


def latency() -> None:
    """Makes the table, unless it is there."""
    job = common.Job(common.workdir())
    path = common.latency_file(job.workdir)
    if path.exists():
        common.log.info("%s is there already; remove it to measure anew.", path)
        return
    resolutions = common.whole_numbers("latency_resolutions")
    if resolutions:
        job.space.restrict(resolutions=resolutions)  # an error before any work
    report = _measure(job, path, resolutions).report
    common.log.info(
        "On %d subnets that it was not fitted on: mean error %.1f %%, Kendall %.2f. Table: %s",
        report["n"],
        100 * report["mape"],
        report["kendall"],
        path,
    )


def _measure(job: common.Job, path: pathlib.Path, resolutions: list[int]) -> LatencyTable:
    """Measures with a progress bar each for conversions and measurements."""
    from ofa_tf.data import MEAN, STD
    from ofa_tf.export import convert
    from ofa_tf.search import build_latency_table

    with contextlib.ExitStack() as stack:
        updates = {}
        for what in ("convert", "measure"):
            bar, updates[what] = common.progress_bar(desc=f"{what} blocks", unit="model")
            stack.enter_context(bar)
        return build_latency_table(
            job.space,
            len(job.class_names),
            convert=functools.partial(convert, precision="float32"),
            measure=functools.partial(
                mobile_bench.measure,
                target=FLAGS.target,
                threads=FLAGS.threads,
                rounds=1,  # build_latency_table does the rounds
                num_runs=20,
                min_secs=FLAGS.latency_min_secs,
                warmup_min_secs=FLAGS.latency_min_secs / 2,
            ),
            path=path,
            normalization=(MEAN, STD),
            resolutions=resolutions,
            rounds=FLAGS.latency_rounds,
            num_fit=FLAGS.latency_subnets // 2,
            num_check=FLAGS.latency_subnets - FLAGS.latency_subnets // 2,
            progress=lambda what, done, total: updates[what](done, total),
        )


def main() -> None:
    define_flags()
    common.define_workdir()
    common.define_target()
    common.run(latency, __doc__)


if __name__ == "__main__":
    main()
