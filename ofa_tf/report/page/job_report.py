"""JobReport: all that the files of a job tell, gathered for the page."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence

import mobile_bench
from ofa_tf.report.page.prediction import (
    AccuracyPrediction,
    LatencyPrediction,
    latency_files,
    read_accuracy_prediction,
    read_latency_prediction,
)
from ofa_tf.report.page.reading import Source
from ofa_tf.report.page.searched import Front, SearchRecord, read_fronts, read_search
from ofa_tf.report.page.subnets import Subnet, SubnetReader
from ofa_tf.report.page.timing import is_slowed, read_timings
from ofa_tf.report.page.trained import Training, read_training
from ofa_tf.spaces import SearchSpace
from ofa_tf.workdir import Workdir

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What the predictors say on the device of a latency table.

    Args:
        cloud: (latency in ms, accuracy in 0..1) of random subnets.
        front: the same of those that none other beats.
        subnet_ms: latencies of the chosen subnets, by name.
    """

    cloud: Points
    front: Points
    subnet_ms: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class JobReport:
    """A job; None and () for what it does not have yet.

    Args:
        name: of its folder.
        commands: that make what is missing, by the name of the part.
        training: what was trained.
        accuracy: how well the accuracy predictor does.
        latencies: how well the latency tables do.
        predicted: what both say, by the file of a latency table.
        search: what was chosen.
        fronts: that were searched whole.
        subnets: chosen or exported.
        timing_source: where latencies of files are from.
        notice: what could not be read of the measurements.
    """

    name: str
    commands: Mapping[str, str]
    training: Training
    accuracy: AccuracyPrediction | None
    latencies: tuple[LatencyPrediction, ...]
    predicted: Mapping[str, Predicted]
    search: SearchRecord | None
    fronts: tuple[Front, ...]
    subnets: tuple[Subnet, ...]
    timing_source: Source | None
    notice: str | None


def read_report(
    workdir: Workdir, space: SearchSpace, predicted: Mapping[str, Predicted]
) -> JobReport:
    """Gathers the files of a job.

    Args:
        workdir: of the job.
        space: that it searches.
        predicted: by the names of latency tables.

    Raises:
        UsageError: the workdir holds no job.
        FailureError: a file is damaged.
    """
    num_classes = len(workdir.config()["class_names"])
    commands = _commands(workdir)
    latencies = tuple(
        read_latency_prediction(path, commands["latency"]) for path in latency_files(workdir)
    )
    timings = read_timings(workdir, commands["measure"])
    search = read_search(workdir, space, commands["search"])

    def predict(
        name: str, file_format: str, form: str, summary: mobile_bench.Summary
    ) -> tuple[str, float | None]:
        for table in latencies:
            of_such_files = (f"tflite_{table.precision}", table.form) == (file_format, form)
            if of_such_files and _is_measured_so(table, summary):
                known = predicted.get(table.file)
                return table.file, known and known.subnet_ms.get(name)
        return "", None

    reader = SubnetReader(
        workdir,
        space,
        num_classes,
        timings,
        predict,
        commands["export"],
        commands["measure"],
    )
    return JobReport(
        name=workdir.path.resolve().name,
        commands=commands,
        training=read_training(workdir, space, commands["train"]),
        accuracy=read_accuracy_prediction(workdir, commands["predictor"]),
        latencies=latencies,
        predicted=predicted,
        search=search,
        fronts=read_fronts(workdir, commands["search"]),
        subnets=reader.read(search),
        timing_source=timings.source,
        notice=timings.notice,
    )


def _is_measured_so(table: LatencyPrediction, summary: mobile_bench.Summary) -> bool:
    """Whether a file was measured on the device and with the settings of a table."""
    ours, theirs, settings = table.device, summary.device, summary.settings
    # The host of a job that was copied may be another one; builds of a phone's system come and go.
    same_device = (ours.get("serial") or ours.get("target"), ours.get("cpu")) == (
        theirs.serial or theirs.target,
        theirs.cpu,
    )
    return (
        same_device
        and not is_slowed(summary)
        and all(
            table.settings.get(name) == getattr(settings, name)
            for name in ("threads", "cpus", "delegate")
        )
    )


def _commands(workdir: Workdir) -> dict[str, str]:
    """The command lines of the steps, as far as a job decides them."""
    folder = shlex.quote(str(workdir.path))
    names = ("train", "predictor", "latency", "search", "export")
    models = shlex.quote(str(workdir.subnets / "*" / "*.tflite"))
    output = shlex.quote(str(workdir.measurements))
    return {name: f"ofa-{name} --workdir={folder}" for name in names} | {
        "measure": f"mobile-bench --models={models} --output={output}"
    }
