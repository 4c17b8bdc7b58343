"""ofa-search: the best subnet for each latency budget.

    ofa-search --workdir=DIR --budget_ms=0.2,0.3,0.5

Evaluates archs from the supernet, trains the accuracy predictor on them, and searches. Run the
same command again to go on after an interruption.
"""

from __future__ import annotations

import math

from absl import flags

from ofa_tf.cli import common
from ofa_tf.files import read_json, write_json

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list("budget_ms", None, "Latency budgets; spread over the range by default.")
    flags.DEFINE_integer("num_budgets", 4, "How many budgets, where --budget_ms is not given.", 1)
    flags.DEFINE_integer("num_archs", 200, "Archs evaluated for the accuracy predictor.", 10)
    flags.DEFINE_integer("arch_images", 2000, "Validation images each of them is evaluated on.", 1)
    flags.DEFINE_integer("search_seed", 0, "Of the archs, the predictor and the search.", 0)


def search() -> None:
    """Finds the archs and writes search.json, unless it is there for these settings."""
    from ofa_tf.search import check_reachable, evolve

    job = common.Job(common.workdir())
    table = job.latency_table()
    budgets = common.positive_numbers("budget_ms")
    for budget in budgets:
        check_reachable(job.space, "latency_ms", table, budget)  # before the slow part
    settings = {
        "fingerprint": job.fingerprint,
        "table": table.setup,
        "budgets_ms": budgets or FLAGS.num_budgets,
        "num_archs": FLAGS.num_archs,
        "arch_images": FLAGS.arch_images,
        "seed": FLAGS.search_seed,
    }
    result_file = job.workdir.search_result
    if result_file.exists() and read_json(result_file).get("settings") == settings:
        common.log.info("The search is done already: %s", result_file)
        return
    predictor = _accuracy_predictor(job)
    budgets = budgets or _spread_budgets(job.space, predictor, table)
    subnets = []
    for budget in budgets:
        found = evolve(
            job.space, predictor, {"latency_ms": (table, budget)}, seed=FLAGS.search_seed
        )
        plan = job.space.blueprint(found.arch, len(job.class_names))
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


def _accuracy_predictor(job: common.Job):
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


def _spread_budgets(space, predictor, table) -> list[float]:
    """Budgets over the predicted Pareto front, each larger than the last by the same factor.

    The largest is that of the cheapest arch whose accuracy the predictor cannot tell from the
    best: beyond it, latency buys nothing that is known.
    """
    from ofa_tf.search import predicted_front

    _, latencies, accuracies = predicted_front(space, predictor, table)
    enough = accuracies >= accuracies[-1] - predictor.report["rmse"]
    low, high = latencies[0], latencies[enough.argmax()]
    steps = range(1, FLAGS.num_budgets + 1)
    return sorted({_rounded_up(low * (high / low) ** (i / FLAGS.num_budgets)) for i in steps})


def _rounded_up(value: float) -> float:
    """To two digits, so that budgets and the names made of them are short."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.6g}")


def main() -> None:
    define_flags()
    common.define_workdir()
    common.define_target()
    common.run(search, __doc__)


if __name__ == "__main__":
    main()
