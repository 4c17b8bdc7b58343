"""ofa-search: the best subnet for each latency budget.

    ofa-search --workdir=DIR --budget_ms=0.2,0.3,0.5

Evaluates archs from the supernet, trains the accuracy predictor on them, and searches. Run the
same command again to go on after an interruption. With both predictors published or made before,
no trained supernet is needed:

    ofa-search --workdir=DIR --space=ofa_mbv3_w1.2 --accuracy_predictor=acc_predictor.pth \
        --latency_table=note10 --budget_ms=20,30
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from ofa_tf.cli import common
from ofa_tf.errors import UsageError
from ofa_tf.files import read_json, write_json
from ofa_tf.spaces import SearchSpace, get_space
from ofa_tf.workdir import Workdir

if TYPE_CHECKING:
    from ofa_tf.search import AccuracyPredictor, LatencyTable

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list("budget_ms", None, "Latency budgets; spread over the range by default.")
    flags.DEFINE_integer("num_budgets", 4, "How many budgets, where --budget_ms is not given.", 1)
    flags.DEFINE_integer("num_archs", 200, "Archs evaluated for the accuracy predictor.", 10)
    flags.DEFINE_integer("arch_images", 2000, "Validation images each of them is evaluated on.", 1)
    flags.DEFINE_integer("search_seed", 0, "Of the archs, the predictor and the search.", 0)
    flags.DEFINE_string(
        "accuracy_predictor", None, "File of a predictor to search with, ours or a published .pth."
    )
    flags.DEFINE_string(
        "latency_table",
        None,
        "File of a table to search with, ours or published YAML, or a folder.",
    )


def search() -> None:
    """Finds the archs and writes search.json, unless it is there for these settings."""
    from ofa_tf.search import check_reachable, evolve

    workdir = common.workdir()
    job = _job(workdir)
    space, table, predictor = _space_and_predictors(job)
    num_classes = len(job.class_names) if job else table.num_classes
    budgets = common.positive_numbers("budget_ms")
    for budget in budgets:
        check_reachable(space, "latency_ms", table, budget)  # before the slow part
    settings = _settings(job, table, budgets)
    result_file = workdir.search_result
    if result_file.exists() and read_json(result_file).get("settings") == settings:
        common.log.info("The search is done already: %s", result_file)
        return
    predictor = predictor or _made_predictor(job)
    budgets = budgets or _spread_budgets(space, predictor, table)
    subnets = []
    for budget in budgets:
        found = evolve(space, predictor, {"latency_ms": (table, budget)}, seed=FLAGS.search_seed)
        plan = space.blueprint(found.arch, num_classes)
        subnets.append(
            {
                "name": f"{budget:g}ms",
                "budget_ms": budget,
                "arch": found.arch.to_dict(),
                "predicted_accuracy": found.accuracy,
                "predicted_latency_ms": found.measures["latency_ms"],
                "macs": plan.macs,
                "params": plan.params,
            }
        )
        common.log.info(
            "%g ms: predicted accuracy %.1f %%, latency %.3f ms, %.1f M MACs.",
            budget,
            100 * found.accuracy,
            found.measures["latency_ms"],
            plan.macs / 1e6,
        )
    write_json(result_file, {"settings": settings, "subnets": subnets})
    common.log.info("The archs are in %s.", result_file)


def _job(workdir: Workdir) -> common.Job | None:
    """The job in the workdir; None where there is none and the flags make up for it."""
    given = [FLAGS.space, FLAGS.accuracy_predictor, FLAGS.latency_table]
    if workdir.config_file.exists() or not any(given):
        job = common.Job(workdir)  # an error where there is none
        if FLAGS.space and get_space(FLAGS.space) != job.space:
            raise UsageError(
                f"{workdir.path} holds a job of {job.space.name}, not of --space={FLAGS.space}. "
                f"Leave out --space, or give another --workdir."
            )
        return job
    if not all(given):
        raise UsageError(
            f"{workdir.path} holds no job. Run ofa-train or ofa-import with this --workdir first, "
            f"or give all of --space, --accuracy_predictor and --latency_table."
        )
    return None


def _space_and_predictors(
    job: common.Job | None,
) -> tuple[SearchSpace, LatencyTable, AccuracyPredictor | None]:
    """What is searched, the table, and the predictor where one was given.

    The space is that of the job or of --space, at the resolutions that table and predictor know.
    """
    from ofa_tf.search import LatencyTable

    space = job.space if job else get_space(FLAGS.space)
    if FLAGS.latency_table:
        table = LatencyTable.load(FLAGS.latency_table, space)
    else:
        table = job.latency_table()
    predictor = None
    resolutions = set(table.space.resolutions)
    if FLAGS.accuracy_predictor:
        predictor = _given_predictor(space)
        resolutions &= set(predictor.space.resolutions)
        if not resolutions:
            raise UsageError(
                f"The latency table answers for {list(table.space.resolutions)} pixels, the "
                f"accuracy predictor for {list(predictor.space.resolutions)}; none is in both."
            )
    if resolutions != set(space.resolutions):
        space = space.restrict(resolutions=resolutions)
    if table.space != space:
        table = dataclasses.replace(table, space=space)
    if predictor is not None and predictor.space != space:
        predictor = dataclasses.replace(predictor, space=space)
    if job and table.num_classes != len(job.class_names):
        common.log.warning(
            "The latency table is of networks with %d classes, the job has %d.",
            table.num_classes,
            len(job.class_names),
        )
    return space, table, predictor


def _given_predictor(space: SearchSpace) -> AccuracyPredictor:
    """The predictor of --accuracy_predictor at its own resolutions, if it is of the space."""
    from ofa_tf.search import AccuracyPredictor

    predictor = AccuracyPredictor.load(FLAGS.accuracy_predictor)
    if predictor.space.name == space.name:
        return predictor
    # A published file may serve another space than the one it was made for.
    return AccuracyPredictor.load(FLAGS.accuracy_predictor, space)


def _settings(job: common.Job | None, table: LatencyTable, budgets: list[float]) -> dict[str, Any]:
    """All that the result depends on."""
    settings = {
        "table": _hashes(FLAGS.latency_table) if FLAGS.latency_table else table.setup,
        "budgets_ms": budgets or FLAGS.num_budgets,
        "seed": FLAGS.search_seed,
    }
    if FLAGS.accuracy_predictor:
        predictor = _hashes(FLAGS.accuracy_predictor)
        return {"space": table.space.name, "accuracy_predictor": predictor, **settings}
    of_predictor = {"num_archs": FLAGS.num_archs, "arch_images": FLAGS.arch_images}
    return {"fingerprint": job.fingerprint, **of_predictor, **settings}


def _hashes(path: str) -> dict[str, str]:
    """The sha256 of a file, or of each file of a folder, by its name."""
    given = pathlib.Path(path)
    paths = sorted(p for p in given.iterdir() if p.is_file()) if given.is_dir() else [given]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def _made_predictor(job: common.Job) -> AccuracyPredictor:
    """Evaluates archs, fits the predictor on them and says how good it is."""
    from ofa_tf.search import AccuracyPredictor, collect_accuracies

    bar, update = common.progress_bar(desc="evaluate archs", unit="arch")
    with bar:
        archs, accuracies = collect_accuracies(
            job.space,
            job.evaluator("validation", FLAGS.arch_images).accuracy,
            job.workdir.accuracy_rows,
            FLAGS.num_archs,
            seed=FLAGS.search_seed,
            fingerprint=f"{job.fingerprint}-{FLAGS.arch_images}",
            progress=update,
        )
        update(FLAGS.num_archs, FLAGS.num_archs)
    predictor = AccuracyPredictor.fit(job.space, archs, accuracies, seed=FLAGS.search_seed)
    predictor.save(job.workdir.accuracy_predictor)
    report = predictor.report
    write_json(job.workdir.accuracy_report, report)
    common.log.info(
        "Accuracy predictor on %d archs it never saw: RMSE %.2f points, Kendall %.2f.",
        report["n_held_out"],
        100 * report["rmse"],
        report["kendall"] or 0.0,
    )
    if report["warning"]:
        common.log.warning("The accuracy predictor is weak: %s.", report["warning"])
    return predictor


def _spread_budgets(
    space: SearchSpace, predictor: AccuracyPredictor, table: LatencyTable
) -> list[float]:
    """Budgets over the predicted Pareto front, each larger than the last by the same factor.

    The largest is that of the cheapest arch whose accuracy the predictor cannot tell from the
    best: beyond it, latency buys nothing that is known.
    """
    from ofa_tf.search import predicted_front

    _, latencies, accuracies = predicted_front(space, predictor, table)
    # A published predictor does not tell its error; then only the best is good enough.
    enough = accuracies >= accuracies[-1] - predictor.report.get("rmse", 0.0)
    low, high = latencies[0], latencies[enough.argmax()]
    steps = range(1, FLAGS.num_budgets + 1)
    return sorted({_rounded_up(low * (high / low) ** (i / FLAGS.num_budgets)) for i in steps})


def _rounded_up(value: float) -> float:
    """To two digits, so that budgets and the names made of them are short."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.6g}")


def main() -> None:
    define_flags()
    # Not among the others, because ofa-quickstart has the --space of ofa-train.
    flags.DEFINE_string("space", None, "Search space, for a workdir that holds no job.")
    common.define_workdir()
    common.define_target()
    common.run(search, __doc__)


if __name__ == "__main__":
    main()
