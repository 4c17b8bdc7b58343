"""Rows of results.json: of each chosen subnet what was predicted and what was measured."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

import mobile_bench
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.fields import Fields, read_fields
from ofa_tf.spaces import SearchSpace
from ofa_tf.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class MeasuredSo:
    """Which measurements count: those on a target with these settings, that nothing slowed down."""

    target: str
    threads: int
    cpus: str
    delegate: str

    def __call__(self, summary: mobile_bench.Summary) -> bool:
        settings = summary.settings
        return (
            self.target in (summary.device.target, summary.device.serial)
            and (settings.threads, settings.cpus, settings.delegate)
            == (self.threads, self.cpus, self.delegate)
            and not (settings.op_profile or settings.memory)
        )


class ResultRows(NamedTuple):
    """Rows of results.json, and which of their latencies are not to be trusted, and why."""

    rows: list[dict[str, Any]]
    warnings: list[str]


class _Exported(NamedTuple):
    """A file of a subnet's card."""

    path: pathlib.Path
    num_bytes: int
    accuracy: float


def result_rows(
    workdir: Workdir, space: SearchSpace, subnets: Sequence[dict], measured_so: MeasuredSo
) -> ResultRows:
    """A row for each subnet, with all its files.

    Args:
        workdir: of the job.
        space: of the job.
        subnets: rows of search.json.
        measured_so: whether a measurement counts.

    Raises:
        UsageError: a subnet is not exported, or was before another search, or a file is not
            measured so.
        FailureError: a card or the measurements are damaged, or a file cannot be read.
    """
    exported = [_exported(workdir, space, subnet) for subnet in subnets]
    measurements = _measurements(workdir, measured_so)
    found = ResultRows([], [])
    for subnet, files in zip(subnets, exported, strict=True):
        measured = _measured(workdir, files, measurements)
        found.rows.append(_row(subnet, files, measured))
        found.warnings.extend(
            f"The latency of {files[name].path} is not to be trusted: "
            f"{'; '.join(summary.verdict.reasons)}."
            for name, summary in measured.items()
            if not summary.verdict.valid
        )
    return found


def _row(
    subnet: dict, files: dict[str, _Exported], measured: dict[str, mobile_bench.Summary]
) -> dict[str, Any]:
    precisions = {name.removeprefix("tflite_"): summary for name, summary in measured.items()}
    return {
        **subnet,
        "resolution": subnet["arch"]["r"],
        "accuracy": {name: file.accuracy for name, file in files.items()},
        "file_bytes": {name: file.num_bytes for name, file in files.items()},
        "measured_latency_ms": {name: one.median_us / 1e3 for name, one in precisions.items()},
        "delegate_partitions": {
            name: one.delegation.partitions for name, one in precisions.items()
        },
    }


def _measured(
    workdir: Workdir,
    files: dict[str, _Exported],
    measurements: dict[str, mobile_bench.Summary],
) -> dict[str, mobile_bench.Summary]:
    """The measurement of each TFLite file, by format."""
    found = {}
    for name, file in files.items():
        if not name.startswith("tflite_"):
            continue
        summary = measurements.get(file_sha256(file.path))
        if summary is None:
            raise UsageError(
                f"{file.path} is not measured in {workdir.measurements} as --target, --threads, "
                "--cpus and --delegate say, without --op_profile and --memory. Run mobile-bench on "
                "it first."
            )
        found[name] = summary
    return found


def _measurements(workdir: Workdir, measured_so: MeasuredSo) -> dict[str, mobile_bench.Summary]:
    """The newest measurement of each file that counts, by the file's sha256."""
    path = workdir.measurements
    if not path.exists():
        flags = f"--models={workdir.subnets}/*/*.tflite", f"--output={path}"
        command = shlex.join(["mobile-bench", *flags])
        raise UsageError(f"{path} is missing. Run this first: {command}")
    try:
        rows = mobile_bench.read_rows(path).measurements
    except mobile_bench.FailureError as error:
        raise FailureError(str(error)) from error
    summaries = sorted(mobile_bench.summarize(rows), key=lambda summary: summary.date)
    return {summary.sha256: summary for summary in summaries if measured_so(summary)}


def _exported(workdir: Workdir, space: SearchSpace, subnet: dict) -> dict[str, _Exported]:
    """The files of an exported subnet, by format."""
    folder = workdir.subnets / subnet["name"]
    path = folder / "card.json"
    if not path.exists():
        raise UsageError(f"{path} is missing. Run ofa-export first.")
    card = read_fields(path, "Run ofa-export again.")
    entries = card.fields("files")
    files = {name: _exported_file(folder, entries.fields(name)) for name, _ in entries.items()}
    if dict(card.fields("arch").items()) != space.arch(subnet["arch"]).to_dict():
        raise UsageError(
            f"{path} is of another arch than {workdir.search_result} has now. Run ofa-export "
            f"again, and mobile-bench."
        )
    return files


def _exported_file(folder: pathlib.Path, entry: Fields) -> _Exported:
    return _Exported(folder / entry.name("file"), entry.whole("bytes"), entry.number("accuracy"))


def file_sha256(path: pathlib.Path) -> str:
    """By which the measurements of an exported file are found. Raises FailureError."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FailureError(
            f"{path} could not be read: {error.strerror}. Run ofa-export again."
        ) from error
