"""ofa-report: what a job has come to, as a page, a table and pictures.

    ofa-report --workdir=DIR

DIR/report.html tells all that the files of the job tell, after any step; it is one file that opens
in any browser. Where the chosen subnets are exported and measured as --target, --threads, --cpus
and --delegate say, there are also DIR/results.json, pictures, and the table that is printed:

    mobile-bench --models='DIR/subnets/*/*.tflite' --output=DIR/measurements.jsonl
    ofa-report --workdir=DIR
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from ofa_tf.cli import common
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.fields import read_fields
from ofa_tf.files import write_bytes, write_json
from ofa_tf.job import Job
from ofa_tf.workdir import SEARCH_REMEDY, Workdir

if TYPE_CHECKING:
    from ofa_tf.report.page import Predicted
    from ofa_tf.search import AccuracyPredictor, LatencyTable

FLAGS = flags.FLAGS
_CLOUD = 2000  # random archs in the pictures


def report() -> None:
    """Writes the page; and results.json and the pictures, and prints the table, if it can."""
    from ofa_tf.report import text_table
    from ofa_tf.report.page import read_report, render

    job = Job(common.workdir())
    subnets = job.chosen_subnets() if job.workdir.search_result.exists() else []
    predicted = _predictions(job, subnets)
    page = render(read_report(job.workdir, job.space, predicted), job.space)
    rows = _result_rows(job)
    # All is read by now: what is damaged has left everything as it was.
    if rows:
        write_json(job.workdir.results, rows)
        _draw(job, rows, predicted.get(common.latency_file(job.workdir).name))
        print(text_table(rows))
        common.log.info("Results: %s, pictures: %s", job.workdir.results, job.workdir.pictures)
    write_bytes(page_path(job.workdir), page.encode())
    common.log.info("Report: %s", page_path(job.workdir).resolve().as_uri())


def page_path(workdir: Workdir) -> pathlib.Path:
    """Where the page goes."""
    return workdir.path / "report.html"


def _result_rows(job: Job) -> list[dict[str, Any]]:
    """The rows of results.json; none, and a warning that says why, where something is missing."""
    from ofa_tf.report.result_rows import MeasuredSo, result_rows

    measured_so = MeasuredSo(FLAGS.target, FLAGS.threads, FLAGS.cpus, FLAGS.delegate)
    try:
        subnets = job.chosen_subnets()
        rows, warnings = result_rows(job.workdir, job.space, subnets, measured_so)
        _predict_there(job, rows)
    except UsageError as error:
        there = job.workdir.results.exists()
        earlier = f" What is in {job.workdir.results} and the pictures is of before." * there
        common.log.warning("There is no table of results: %s%s", error, earlier)
        return []
    for warning in warnings:
        common.log.warning(warning)
    return rows


def _predict_there(job: Job, rows: list[dict[str, Any]]) -> None:
    """Gives rows the predictions of where they were measured: others may have been searched for.

    Raises:
        UsageError: there is no latency table of that, or it does not answer for a subnet.
    """
    table = job.latency_table(**common.measured_so())
    search = read_fields(job.workdir.search_result, SEARCH_REMEDY)
    tables = search.fields_or_empty("settings").fields_or_empty("tables")
    of_another = "latency_ms" in tables and (
        common.latency_file(job.workdir).name not in tables.fields("latency_ms")
    )
    for row in rows:
        row["predicted_latency_ms"] = float(table(table.space.encode([row["arch"]]))[0])
        row["precision"] = table.precision
        if of_another:
            row.pop("budget_ms", None)


def _draw(job: Job, rows: list[dict[str, Any]], predicted: Predicted | None) -> None:
    """The pictures of results.json."""
    from ofa_tf.report import architectures_picture, tradeoff_picture

    pictures = job.workdir.pictures
    cloud, front = (predicted.cloud, predicted.front) if predicted else ((), ())
    tradeoff = tradeoff_picture(rows, cloud, front, device=FLAGS.target)
    tradeoff.write_png(pictures / "pareto.png")
    plans = [job.space.blueprint(row["arch"], len(job.class_names)) for row in rows]
    architectures_picture(rows, plans).write_png(pictures / "architectures.png")


def _predictions(job: Job, subnets: list[dict[str, Any]]) -> dict[str, Predicted]:
    """What the predictors say for each latency table of the job, by the table's name."""
    from ofa_tf.report.page import latency_files
    from ofa_tf.search import AccuracyPredictor, LatencyTable

    files, predictor = latency_files(job.workdir), None
    try:
        tables = {path.name: LatencyTable.load(path, job.space) for path in files}
        if job.workdir.accuracy_predictor.exists():
            predictor = AccuracyPredictor.load(job.workdir.accuracy_predictor, job.space)
    except UsageError as error:  # nobody asked for this file
        raise FailureError(str(error)) from error
    if tables and predictor is None:
        common.log.warning(
            "%s is missing, so the pictures have the chosen subnets only. ofa-predictor makes it.",
            job.workdir.accuracy_predictor,
        )
    found = {}
    for name, table in tables.items():
        if predictor is not None:
            common.log.info("Predicting the front for %s ...", name)
        found[name] = _predicted(table, predictor, subnets)
    return found


def _predicted(
    table: LatencyTable, predictor: AccuracyPredictor | None, subnets: list[dict[str, Any]]
) -> Predicted:
    """Random archs, the front and the chosen subnets, as predicted; the first two need both."""
    from ofa_tf.report.page import Predicted
    from ofa_tf.search import predicted_front

    space = table.space  # at the resolutions that it answers for
    known = [row for row in subnets if row["arch"]["r"] in space.resolutions]
    codes = space.encode([row["arch"] for row in known])
    names = (row["name"] for row in known)
    subnet_ms = dict(zip(names, table(codes).tolist(), strict=True)) if known else {}
    if predictor is None:
        return Predicted(np.empty((0, 2)), np.empty((0, 2)), subnet_ms)
    predictor = dataclasses.replace(predictor, space=space)
    codes = space.sample_codes(_CLOUD, np.random.default_rng(0))
    _, latencies, accuracies = predicted_front(space, predictor, table)
    cloud = np.stack([table(codes), predictor(codes)], axis=1)
    return Predicted(cloud, np.stack([latencies, accuracies], axis=1), subnet_ms)


def main() -> None:
    common.define_workdir()
    common.define_target()
    common.run(report, __doc__)


if __name__ == "__main__":
    main()
