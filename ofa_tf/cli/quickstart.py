"""ofa-quickstart: the whole road, from images to measured TFLite files, with one command.

    ofa-quickstart
    ofa-quickstart --data_dir=PATH --workdir=DIR
    ofa-quickstart --preset=cifar10/quarter_hour --data_dir=PATH --workdir=DIR

It runs ofa-train, ofa-latency, ofa-search, ofa-export, mobile-bench and ofa-report on one workdir,
and takes the flags of all of them. Without a preset and a flagfile it uses --preset=quickstart: the
embedded images, in runs/quickstart. Run the same command again to go on after an interruption.
"""

from __future__ import annotations

import sys
import time

from absl import flags

from mobile_bench.cli import main as mobile_bench_main
from mobile_bench.signals import Interrupted
from ofa_tf.cli import common, export, latency, predictor, report, search, train

FLAGS = flags.FLAGS

_SIGNALED = 128  # and the signal's number: the exit code of what was interrupted
_OF_PHONES = ("benchmark_binary", "adb_path")  # flags that mobile-bench takes as they are


def define_flags() -> None:
    for command in (train, latency, predictor, search, export):
        command.define_flags()
    common.define_workdir()
    common.define_target()
    common.define_measuring()
    flags.DEFINE_float("bench_min_secs", 0.5, "Seconds of timed runs per file and round.", 0.0)


@common.writes_job
def quickstart() -> None:
    """Runs the steps; each does nothing where it has been done."""
    steps = {
        "train": train.train,
        "measure block latencies": latency.latency,
        "search": search.search,
        "export": export.export,
        "measure the files": _measure,
        "report": report.report,
    }
    for number, (name, step) in enumerate(steps.items(), start=1):
        common.log.info("Step %d of %d: %s", number, len(steps), name)
        start = time.monotonic()
        step()
        common.log.info("Step %d took %.0f s.", number, time.monotonic() - start)
    page = report.page_path(common.workdir())
    common.log.info("All is done. Open %s in a browser: %s", page, page.resolve().as_uri())


def _measure() -> None:
    workdir = common.workdir()
    code = mobile_bench_main(
        [
            "mobile-bench",
            # Each by its name: no sign in the path is taken for one of a pattern.
            *map(str, sorted(workdir.subnets.glob("*/*.tflite"))),
            f"--output={workdir.measurements}",
            f"--target={FLAGS.target}",
            f"--threads={FLAGS.threads}",
            f"--cpus={FLAGS.cpus}",
            f"--delegate={FLAGS.delegate}",
            *(f"--{name}={FLAGS[name].value}" for name in _OF_PHONES if FLAGS[name].value),
            f"--min_secs={FLAGS.bench_min_secs}",
            "--resume",
        ]
    )
    if code > _SIGNALED:
        raise Interrupted(code - _SIGNALED)
    if code:
        sys.exit(code)


def main() -> None:
    define_flags()
    common.run(quickstart, __doc__, default_preset="quickstart")


if __name__ == "__main__":
    main()
