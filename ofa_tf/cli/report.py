"""ofa-report: the table and the pictures of a job whose subnets are exported and measured.

mobile-bench --models='DIR/subnets/*/*.tflite' --output=DIR/measurements.jsonl
ofa-report --workdir=DIR
"""

from __future__ import annotations

import hashlib
import pathlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from absl import flags

import mobile_bench
from ofa_tf.cli import common
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import read_json, write_json
from ofa_tf.job import Job

if TYPE_CHECKING:
    from ofa_tf.search import LatencyTable

FLAGS = flags.FLAGS
_CLOUD = 2000  # random archs in the picture


class _Exported(NamedTuple):
    """A file of a subnet's card."""

    path: pathlib.Path
    num_bytes: int
    accuracy: float


def report() -> None:
    """Writes results.json and the pictures, and prints the table."""
    from ofa_tf.report import plot_architectures, plot_pareto, text_table

    job = Job(common.workdir())
    subnets = job.chosen_subnets()
    measurements = _measurements(job)
    table = job.latency_table(**common.measured_so())
    rows = [_row(job, subnet, measurements) for subnet in subnets]
    for row in rows:  # where the search was for other devices, or for no latency at all
        codes = table.space.encode([row["arch"]])
        row.setdefault("predicted_latency_ms", float(table(codes)[0]))
    write_json(job.workdir.results, rows)

    pictures = job.workdir.pictures
    cloud, front = _predicted(job, table)
    plot_pareto(pictures / "pareto.png", rows, cloud, front, device=FLAGS.target)
    plans = [job.space.blueprint(row["arch"], len(job.class_names)) for row in rows]
    plot_architectures(pictures / "architectures.png", rows, plans)
    print(text_table(rows))
    common.log.info("Results: %s, pictures: %s", job.workdir.results, pictures)


def _predicted(job: Job, table: LatencyTable) -> tuple[np.ndarray, np.ndarray]:
    """(latency, accuracy) of random archs and of the front, as predicted: (n, 2) and (m, 2).

    Empty where the job has no predictor, because ofa-search was given one.
    """
    from ofa_tf.search import AccuracyPredictor, predicted_front

    path = job.workdir.accuracy_predictor
    if not path.exists():
        common.log.warning(
            "%s is missing, so the picture has the chosen subnets only. ofa-predictor makes it.",
            path,
        )
        return np.empty((0, 2)), np.empty((0, 2))
    space = table.space  # at the resolutions that it answers for
    predictor = AccuracyPredictor.load(path, space)
    codes = space.sample_codes(_CLOUD, np.random.default_rng(0))
    _, latencies, accuracies = predicted_front(space, predictor, table)
    cloud = np.stack([table(codes), predictor(codes)], axis=1)
    return cloud, np.stack([latencies, accuracies], axis=1)


def _measurements(job: Job) -> dict[str, mobile_bench.Summary]:
    """The newest measurement of each file as the flags say, by the file's sha256."""
    path = job.workdir.measurements
    if not path.exists():
        raise UsageError(
            f"{path} is missing. Run mobile-bench --models='{job.workdir.subnets}/*/*.tflite' "
            f"--output={path} first."
        )
    summaries = mobile_bench.summarize(mobile_bench.read_rows(path).measurements)
    summaries.sort(key=lambda summary: summary.date)
    return {summary.sha256: summary for summary in summaries if _is_asked_for(summary)}


def _is_asked_for(summary: mobile_bench.Summary) -> bool:
    """Whether it is of --target, --threads, --cpus and --delegate."""
    settings = summary.settings
    return FLAGS.target in (summary.device.target, summary.device.serial) and (
        (settings.threads, settings.cpus, settings.delegate)
        == (FLAGS.threads, FLAGS.cpus, FLAGS.delegate)
    )


def _row(job: Job, subnet: dict, measurements: dict) -> dict:
    """A row of results.json: what was predicted, and what was measured."""
    row = {
        **subnet,
        "resolution": subnet["arch"]["r"],
        "accuracy": {},
        "file_bytes": {},
        "measured_latency_ms": {},
        "delegate_partitions": {},
    }
    for name, file in _exported(job, subnet).items():
        row["accuracy"][name] = file.accuracy
        row["file_bytes"][name] = file.num_bytes
        if not name.startswith("tflite_"):
            continue
        summary = measurements.get(_sha256(file.path))
        if summary is None:
            raise UsageError(
                f"{file.path} is not measured in {job.workdir.measurements} as --target, "
                "--threads, --cpus and --delegate say. Run mobile-bench on it first."
            )
        if not summary.verdict.valid:
            reasons = "; ".join(summary.verdict.reasons)
            common.log.warning("The latency of %s is not to be trusted: %s.", file.path, reasons)
        precision = name.removeprefix("tflite_")
        row["measured_latency_ms"][precision] = summary.median_us / 1e3
        row["delegate_partitions"][precision] = summary.delegation.partitions
    return row


def _exported(job: Job, subnet: dict) -> dict[str, _Exported]:
    """The files of an exported subnet, by format.

    Raises:
        UsageError: the subnet is not exported, or was before another search.
        FailureError: its card is damaged.
    """
    folder = job.workdir.subnets / subnet["name"]
    path = folder / "card.json"
    if not path.exists():
        raise UsageError(f"{path} is missing. Run ofa-export first.")
    card = read_json(path)
    try:
        arch = card["arch"]
        files = {
            name: _Exported(folder / file["file"], int(file["bytes"]), float(file["accuracy"]))
            for name, file in card["files"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FailureError(
            f"{path} is damaged: it does not tell the arch, or name, bytes and accuracy of each "
            f"file. Run ofa-export again."
        ) from error
    if arch != job.space.arch(subnet["arch"]).to_dict():
        raise UsageError(
            f"{path} is of another arch than {job.workdir.search_result} has now. Run ofa-export "
            f"again, and mobile-bench."
        )
    return files


def _sha256(path: pathlib.Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FailureError(
            f"{path} could not be read: {error.strerror}. Run ofa-export again."
        ) from error


def main() -> None:
    common.define_workdir()
    common.define_target()
    common.run(report, __doc__)


if __name__ == "__main__":
    main()
