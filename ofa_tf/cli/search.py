"""ofa-search: the best subnet for each latency budget, or for any other scenario.

    ofa-search --workdir=DIR --budget_ms=0.2,0.3,0.5

Evaluates archs from the supernet, trains the accuracy predictor on them, and searches. Run the
same command again to go on after an interruption. Budgets on several devices, on computations,
parameters, file size and memory come from flags (--max_...) or from a file:

    ofa-search --workdir=DIR --scenarios=FILE.yaml --top=5

The predictor is a guess: --top=K finds K different candidates for each scenario and ranks them by
evaluating each from the supernet. --pareto=MEASURE gives the whole front instead.

With predictors that are published or were made before, no trained supernet is needed:

    ofa-search --workdir=DIR --space=ofa_mbv3_w1.2 --accuracy_predictor=acc_predictor.pth \
        --latency_table=note10 --budget_ms=20,30
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from ofa_tf.cli import common, evaluations, predictor
from ofa_tf.cli.search_inputs import Inputs, gather
from ofa_tf.files import read_json, write_json
from ofa_tf.workdir import SEARCH_REMEDY

if TYPE_CHECKING:
    from ofa_tf.search import AccuracyPredictor, Candidate, Scenario, SearchResult
    from ofa_tf.spaces import Arch

FLAGS = flags.FLAGS
_LIMITED = {  # by a flag each, besides the latency
    "macs_m": "millions of multiply-accumulates",
    "params_m": "millions of parameters",
    "file_kb": "kB of the .tflite file, in --tflite_precision",
    "memory_kb": "kB of the activations alive at once, in --tflite_precision",
}


def define_flags() -> None:
    flags.DEFINE_list("budget_ms", None, "Latency budgets; spread over the range by default.")
    flags.DEFINE_integer("num_budgets", 4, "How many budgets, where --budget_ms is not given.", 1)
    for name, what in _LIMITED.items():
        flags.DEFINE_float(f"max_{name}", None, f"Limit of every subnet: {what}.", 0.0)
        flags.register_validator(f"max_{name}", lambda limit: limit != 0, "give a positive number")
    flags.DEFINE_string("scenarios", None, "YAML file of devices and budgets; see docs/SEARCH.md.")
    flags.DEFINE_enum(
        "pareto",
        None,
        ["latency_ms", *_LIMITED],
        "The front of accuracy against this, instead.",
    )
    flags.DEFINE_integer("top", 1, "Candidates of a scenario, ranked by evaluation if several.", 1)
    flags.DEFINE_integer("rank_images", None, "Validation images for that; all by default.", 1)
    flags.DEFINE_enum("effort", "normal", ["low", "normal", "high"], "How long to search.")
    common.define_seed("search_seed", "Of the search.")
    flags.DEFINE_string(
        "accuracy_predictor", None, "File of a predictor to search with, ours or a published .pth."
    )
    flags.DEFINE_string(
        "latency_table",
        None,
        "File of a table to search with, ours or published YAML, or a folder.",
    )


@common.writes_job
def search() -> None:
    """Writes search.json, or the front, unless it is there for these settings."""
    workdir = common.workdir()
    inputs = gather(workdir)
    result_file = workdir.front(FLAGS.pareto) if FLAGS.pareto else workdir.search_result
    if inputs.job:
        predictor.adopt_settings(inputs.job)
    settings = _settings(inputs)
    found = read_json(result_file, SEARCH_REMEDY) if result_file.exists() else None
    if isinstance(found, dict) and found.get("settings") == settings:
        common.log.info("The search is done already: %s", result_file)
        return
    accuracy = inputs.predictor or predictor.made_predictor(inputs.job)
    rows = _front(inputs, accuracy) if FLAGS.pareto else _subnets(inputs, accuracy)
    write_json(result_file, {"settings": settings, "subnets": rows})
    common.log.info("The archs are in %s.", result_file)


def _settings(inputs: Inputs) -> dict[str, Any]:
    """All that the result depends on."""
    scenarios = [{"name": name, "limits": dict(limits)} for name, limits in inputs.scenarios]
    settings = {
        "space": inputs.space.name,
        "num_classes": inputs.num_classes,
        **inputs.sources,
        "scenarios": scenarios or FLAGS.num_budgets,
        "precision": FLAGS.tflite_precision,
        "form": FLAGS.form,
        "effort": FLAGS.effort,
        "seed": FLAGS.search_seed,
    }
    if FLAGS.top > 1:
        settings |= {"top": FLAGS.top, "rank_images": FLAGS.rank_images}
    if not inputs.predictor or FLAGS.top > 1:
        settings["fingerprint"] = inputs.job.fingerprint
    if not inputs.predictor:
        settings |= predictor.settings()
    return settings


def _subnets(inputs: Inputs, accuracy: AccuracyPredictor) -> list[dict[str, Any]]:
    """A row of search.json for each scenario."""
    from ofa_tf.search import evolve_many
    from ofa_tf.search.accuracy_rows import ranked

    scenarios = inputs.scenarios or _spread_budgets(inputs, accuracy)
    bar, update = common.progress_bar(desc="search", unit="generation")
    with bar:
        results = evolve_many(
            inputs.space,
            accuracy,
            inputs.measures,
            [scenario.limits for scenario in scenarios],
            seed=FLAGS.search_seed,
            effort=FLAGS.effort,
            num_candidates=FLAGS.top,
            progress=update,
        )
    evaluated = _evaluated(inputs, results) if FLAGS.top > 1 else {}
    rows = []
    for scenario, result in zip(scenarios, results, strict=True):
        candidates = ranked(result.candidates, evaluated) if evaluated else result.candidates
        rows.append(_row(inputs, scenario, candidates, evaluated))
        _tell(rows[-1])
    return rows


def _row(
    inputs: Inputs,
    scenario: Scenario,
    candidates: Sequence[Candidate],
    evaluated: dict[Arch, float],
) -> dict[str, Any]:
    """What search.json tells of a scenario: the best candidate, and all of them if ranked."""
    best = candidates[0]
    plan = inputs.space.blueprint(best.arch, inputs.num_classes)
    row = {
        "name": scenario.name,
        "limits": dict(scenario.limits),
        "arch": best.arch.to_dict(),
        "predicted_accuracy": best.accuracy,
        "measures": _measures(inputs, best.arch),
        "macs": plan.macs,
        "params": plan.params,
    }
    if "latency_ms" in inputs.measures:
        row["predicted_latency_ms"] = row["measures"]["latency_ms"]
        row["precision"] = FLAGS.tflite_precision
    if "latency_ms" in scenario.limits:
        row["budget_ms"] = scenario.limits["latency_ms"]
    if evaluated:
        row["evaluated_accuracy"] = evaluated[best.arch]
        row["candidates"] = [
            {
                "arch": candidate.arch.to_dict(),
                "predicted_accuracy": candidate.accuracy,
                "evaluated_accuracy": evaluated[candidate.arch],
                "measures": _measures(inputs, candidate.arch),
            }
            for candidate in candidates
        ]
    return row


def _measures(inputs: Inputs, arch: Arch) -> dict[str, float]:
    """All that is measured in this search, also what the scenario does not limit."""
    code = inputs.space.encode([arch])
    return {name: float(measure(code)[0]) for name, measure in inputs.measures.items()}


def _tell(row: dict[str, Any]) -> None:
    evaluated = row.get("evaluated_accuracy")
    numbers = {**row["measures"], "macs_m": row["macs"] / 1e6}
    common.log.info(
        "%s: predicted accuracy %.1f %%%s, %s.",
        row["name"],
        100 * row["predicted_accuracy"],
        "" if evaluated is None else f", evaluated {100 * evaluated:.1f} %",
        ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()),
    )


def _evaluated(inputs: Inputs, results: list[SearchResult]) -> dict[Arch, float]:
    """Accuracies of all candidates from the supernet; each is evaluated once, for good."""
    from ofa_tf.search.accuracy_rows import evaluate_archs

    job = inputs.job
    bar, update = common.progress_bar(desc="evaluate candidates", unit="arch")
    with evaluations.on_every_core(), bar:
        evaluations.check_same(job.workdir.evaluated_rows, fingerprint=job.fingerprint)
        images = job.data.num_validation
        return evaluate_archs(
            (candidate.arch for result in results for candidate in result.candidates),
            job.evaluator("validation", FLAGS.rank_images).accuracy,
            job.workdir.evaluated_rows,
            fingerprint=job.fingerprint,
            num_images=min(images, FLAGS.rank_images or images),
            progress=update,
        )


def _front(inputs: Inputs, accuracy: AccuracyPredictor) -> list[dict[str, Any]]:
    """The predicted front, printed and drawn; a row of its file for each arch."""
    from ofa_tf.report import front_picture, front_table
    from ofa_tf.search import predicted_front

    limits = inputs.scenarios[0].limits if inputs.scenarios else {}
    codes, costs, accuracies = predicted_front(
        inputs.space,
        accuracy,
        inputs.measures[FLAGS.pareto],
        constraints={name: (inputs.measures[name], limit) for name, limit in limits.items()},
        seed=FLAGS.search_seed,
        effort=FLAGS.effort,
    )
    rows = [
        {"arch": arch.to_dict(), "predicted_accuracy": float(value), FLAGS.pareto: float(cost)}
        for arch, cost, value in zip(inputs.space.decode(codes), costs, accuracies, strict=True)
    ]
    picture = common.workdir().pictures / f"front_{FLAGS.pareto}.png"
    front_picture(costs, accuracies, measure=FLAGS.pareto).write_png(picture)
    print(front_table(rows, FLAGS.pareto))
    common.log.info("The front has %d subnets. Picture: %s", len(rows), picture)
    return rows


def _spread_budgets(inputs: Inputs, accuracy: AccuracyPredictor) -> list[Scenario]:
    """Budgets over the predicted Pareto front, each larger than the last by the same factor.

    The largest is that of the cheapest arch whose accuracy the predictor cannot tell from the
    best: beyond it, latency buys nothing that is known.
    """
    from ofa_tf.search import Scenario, predicted_front
    from ofa_tf.search.scenarios import LATENCY, scenario_name

    _, latencies, accuracies = predicted_front(inputs.space, accuracy, inputs.measures[LATENCY])
    # A published predictor does not tell its error; then only the best is good enough.
    enough = accuracies >= accuracies[-1] - (accuracy.report.get("rmse") or 0.0)
    low, high = latencies[0], latencies[enough.argmax()]
    steps = range(1, FLAGS.num_budgets + 1)
    budgets = {_rounded_up(low * (high / low) ** (i / FLAGS.num_budgets)) for i in steps}
    limits = [{LATENCY: budget} for budget in sorted(budgets)]
    return [Scenario(scenario_name(limit), limit) for limit in limits]


def _rounded_up(value: float) -> float:
    """To two digits, so that budgets and the names made of them are short."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.6g}")


def main() -> None:
    define_flags()
    predictor.define_flags()
    # Not among the others, because ofa-quickstart has those of ofa-train.
    flags.DEFINE_string("space", None, "Name or FILE.py, for a workdir that holds no job.")
    flags.DEFINE_integer("num_classes", 1000, "Of its networks, where no latency table tells.", 1)
    common.define_workdir()
    common.define_moved_images()
    common.define_target()
    common.run(search, __doc__)


if __name__ == "__main__":
    main()
