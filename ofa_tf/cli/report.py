"""ofa-report: the table and the pictures of a job whose subnets are exported and measured.

mobile-bench --models='DIR/subnets/*/*.tflite' --output=DIR/measurements.jsonl
ofa-report --workdir=DIR
"""

from __future__ import annotations

import hashlib

import numpy as np
from absl import flags

import mobile_bench
from ofa_tf.cli import common
from ofa_tf.errors import UsageError
from ofa_tf.files import read_json, write_json
from ofa_tf.job import Job

FLAGS = flags.FLAGS
_CLOUD = 2000  # random archs in the picture


def report() -> None:
    """Writes results.json and the pictures, and prints the table."""
    from ofa_tf.report import plot_architectures, plot_pareto, text_table
    from ofa_tf.search import AccuracyPredictor, predicted_front

    job = Job(common.workdir())
    subnets = job.chosen_subnets()
    measurements = _measurements(job)
    table = job.latency_table(FLAGS.target, FLAGS.threads, FLAGS.tflite_precision)
    rows = [_row(job, subnet, measurements) for subnet in subnets]
    for row in rows:  # where the search was for other devices, or for no latency at all
        codes = table.space.encode([row["arch"]])
        row.setdefault("predicted_latency_ms", float(table(codes)[0]))
    write_json(job.workdir.results, rows)

    space = table.space  # at the resolutions that it answers for
    predictor = AccuracyPredictor.load(job.workdir.accuracy_predictor, space)
    codes = space.sample_codes(_CLOUD, np.random.default_rng(0))
    _, latencies, accuracies = predicted_front(space, predictor, table)
    pictures = job.workdir.pictures
    plot_pareto(
        pictures / "pareto.png",
        rows,
        np.stack([table(codes), predictor(codes)], axis=1),
        np.stack([latencies, accuracies], axis=1),
        device=FLAGS.target,
    )
    plans = [job.space.blueprint(row["arch"], len(job.class_names)) for row in rows]
    plot_architectures(pictures / "architectures.png", rows, plans)
    print(text_table(rows))
    common.log.info("Results: %s, pictures: %s", job.workdir.results, pictures)


def _measurements(job: Job) -> dict[str, mobile_bench.Measurement]:
    """The newest measurement of each file with --threads, by the file's sha256."""
    path = job.workdir.measurements
    if not path.exists():
        raise UsageError(
            f"{path} is missing. Run mobile-bench --models='{job.workdir.subnets}/*/*.tflite' "
            f"--output={path} first."
        )
    rows = mobile_bench.read_rows(path).measurements
    return {row.sha256: row for row in rows if row.settings.threads == FLAGS.threads}


def _row(job: Job, subnet: dict, measurements: dict) -> dict:
    """A row of results.json: what was predicted, and what was measured."""
    folder = job.workdir.subnets / subnet["name"]
    card = read_json(folder / "card.json")
    row = {
        **subnet,
        "resolution": subnet["arch"]["r"],
        "accuracy": {},
        "file_bytes": {},
        "measured_latency_ms": {},
        "delegate_partitions": {},
    }
    for name, file in card["files"].items():
        row["accuracy"][name] = file["accuracy"]
        row["file_bytes"][name] = file["bytes"]
        if not name.startswith("tflite_"):
            continue
        path = folder / file["file"]
        measurement = measurements.get(hashlib.sha256(path.read_bytes()).hexdigest())
        if measurement is None:
            raise UsageError(
                f"{path} is not measured in {job.workdir.measurements}. Run "
                "mobile-bench on it first."
            )
        if not measurement.verdict.valid:
            reasons = "; ".join(measurement.verdict.reasons)
            common.log.warning("The latency of %s is not to be trusted: %s.", path, reasons)
        precision = name.removeprefix("tflite_")
        row["measured_latency_ms"][precision] = measurement.timings.median_us / 1e3
        row["delegate_partitions"][precision] = measurement.delegation.partitions
    return row


def main() -> None:
    common.define_workdir()
    common.define_target()
    common.run(report, __doc__)


if __name__ == "__main__":
    main()
