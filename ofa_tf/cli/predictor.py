"""ofa-predictor: evaluates subnets of a trained supernet and fits the accuracy predictor on them.

    ofa-predictor --workdir=DIR --num_archs=400

Run the same command again to go on after an interruption. Several processes or machines that
share the workdir can evaluate at once, each its share of the archs, here one of four:

    ofa-predictor --workdir=DIR --num_archs=400 --num_workers=4 --worker=0

When all of them have ended, the first command fits. A run with another number of workers takes
over what is missing.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from ofa_tf.cli import common, evaluations
from ofa_tf.errors import UsageError
from ofa_tf.files import write_json
from ofa_tf.job import Job
from ofa_tf.quiet import import_tensorflow

if TYPE_CHECKING:
    from ofa_tf.search import AccuracyPredictor
    from ofa_tf.spaces import Arch

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_integer("num_archs", 200, "Archs evaluated for the accuracy predictor.", 10)
    flags.DEFINE_integer("arch_images", 2000, "Validation images each of them is evaluated on.", 1)
    common.define_seed("predictor_seed", "Of the archs and of the predictor's fit.")
    flags.DEFINE_integer("ensemble", 1, "Networks whose mean the accuracy predictor is.", 1)
    flags.DEFINE_integer(
        "tune_trials",
        0,
        "Trials of keras-tuner, for the width, depth, learning rate and weight decay of the "
        "accuracy predictor.",
        0,
    )


def predictor() -> None:
    """Makes the predictor, or evaluates the archs of one worker."""
    if FLAGS.worker >= FLAGS.num_workers:
        raise UsageError(
            f"--worker={FLAGS.worker} is none of --num_workers={FLAGS.num_workers}, which are "
            f"numbered from 0 to {FLAGS.num_workers - 1}."
        )
    # Several workers each have a file of their own.
    with common.workdir().lock(shared=FLAGS.num_workers > 1):
        job = common.open_job()
        adopt_settings(job)
        if FLAGS.num_workers == 1:
            made_predictor(job)
            return
        archs, _ = _evaluated(job, FLAGS.worker, FLAGS.num_workers)
    common.log.info(
        "Worker %d has evaluated its share; %d of %d archs are missing, which other workers are "
        "to evaluate. When none is, fit with the same command without --worker and --num_workers.",
        FLAGS.worker,
        FLAGS.num_archs - len(archs),
        FLAGS.num_archs,
    )


def adopt_settings(job: Job) -> None:
    """What no flag says is as in the evaluations that the job has."""
    evaluations.adopt(job.workdir, tuple(settings()))


def settings() -> dict[str, Any]:
    """All that the predictor depends on besides the supernet and its images."""
    names = ("num_archs", "arch_images", "predictor_seed", "ensemble", "tune_trials")
    return {name: getattr(FLAGS, name) for name in names}


def made_predictor(job: Job) -> AccuracyPredictor:
    """The predictor of the job: evaluates archs, fits it on them and says how good it is.

    What an earlier run did with the same settings is not done again.
    """
    from ofa_tf.search.accuracy_fitting import ENOUGH

    if FLAGS.tune_trials and FLAGS.num_archs < ENOUGH:
        raise UsageError(
            f"--tune_trials takes --num_archs={ENOUGH} or more, not {FLAGS.num_archs}."
        )
    archs, accuracies = _evaluated(job)
    made_from = {**settings(), "rows": _hash(archs, accuracies)}
    found = _saved(job, made_from)
    if found is None:
        found = _fitted(job, archs, accuracies, made_from)
    _tell(found.report)
    return found


def _fitted(
    job: Job, archs: list[Arch], accuracies: np.ndarray, made_from: dict[str, Any]
) -> AccuracyPredictor:
    """Fits a predictor, tuned where that is asked for; the file comes last."""
    from ofa_tf.report import accuracy_picture
    from ofa_tf.search import AccuracyPredictor

    import_tensorflow()
    tuned = _tuned(job, archs, accuracies) if FLAGS.tune_trials else {}
    common.log.info("Fitting the accuracy predictor on %d archs ...", len(archs))
    found = AccuracyPredictor.fit(
        job.space, archs, accuracies, ensemble=FLAGS.ensemble, seed=FLAGS.predictor_seed, **tuned
    )
    report = {**found.report, "tuned": tuned, "made_from": made_from}
    found = dataclasses.replace(found, report=report)
    write_json(job.workdir.accuracy_report, report)
    picture = accuracy_picture(report["accuracies"], report["predictions"], report["spreads"])
    picture.write_png(job.workdir.pictures / "accuracy_predictor.png")
    found.save(job.workdir.accuracy_predictor)
    return found


def _tuned(job: Job, archs: list[Arch], accuracies: np.ndarray) -> dict[str, Any]:
    """The settings of the fit that keras-tuner found."""
    from ofa_tf.search.accuracy_tuning import tune_fit

    # Trials on other archs or with another seed are another project.
    project = _hash(archs, accuracies)[:16]
    bar, update = common.progress_bar(desc="tune the predictor", unit="trial")
    with bar:
        found, scores = tune_fit(
            job.space,
            archs,
            accuracies,
            job.workdir.accuracy_tuning / f"{project}-{FLAGS.predictor_seed}",
            FLAGS.tune_trials,
            seed=FLAGS.predictor_seed,
            progress=update,
        )
    common.log.info(
        "The best of %d trials has RMSE %.3f points, the default settings %.3f; used: %s.",
        FLAGS.tune_trials,
        100 * scores["best"],
        100 * scores["default"],
        found or "the default settings",
    )
    return found


def _evaluated(job: Job, worker: int = 0, num_workers: int = 1) -> tuple[list[Arch], np.ndarray]:
    """Evaluates the archs of a worker that no file has; returns all that are known."""
    from ofa_tf.search import collect_accuracies

    @functools.cache
    def evaluator():
        return job.evaluator("validation", FLAGS.arch_images)

    bar, update = common.progress_bar(desc="evaluate archs", unit="arch")
    with evaluations.on_every_core(), bar:
        fingerprint = f"{job.fingerprint}-{FLAGS.arch_images}"
        evaluations.check_same(
            job.workdir.accuracy_rows, seed=FLAGS.predictor_seed, fingerprint=fingerprint
        )
        return collect_accuracies(
            job.space,
            lambda arch: evaluator().accuracy(arch),
            job.workdir.accuracy_rows,
            FLAGS.num_archs,
            seed=FLAGS.predictor_seed,
            fingerprint=fingerprint,
            worker=worker,
            num_workers=num_workers,
            progress=update,
        )


def _hash(archs: list[Arch], accuracies: np.ndarray) -> str:
    rows = [[arch.to_dict() for arch in archs], accuracies.tolist()]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _saved(job: Job, made_from: dict[str, Any]) -> AccuracyPredictor | None:
    """The predictor in the workdir, if it was made from the same."""
    from ofa_tf.search import AccuracyPredictor

    try:
        found = AccuracyPredictor.load(job.workdir.accuracy_predictor, job.space)
    except UsageError:
        return None  # none, or one of another version
    if found.report.get("made_from") != made_from:
        return None
    common.log.info("The accuracy predictor is there already: %s", job.workdir.accuracy_predictor)
    return found


def _tell(report: dict[str, Any]) -> None:
    common.log.info(
        "Accuracy predictor on %d archs it never saw: RMSE %.2f points, MAE %.2f, Kendall %.2f, "
        "Spearman %.2f.",
        report["n_held_out"],
        100 * report["rmse"],
        100 * report["mae"],
        report.get("kendall") or 0.0,
        report.get("spearman") or 0.0,
    )
    if report.get("spreads"):
        common.log.info(
            "Its %d networks differ by %.2f points on average.",
            FLAGS.ensemble,
            100 * np.mean(report["spreads"]),
        )
    if report.get("warning"):
        common.log.warning("The accuracy predictor is weak: %s.", report["warning"])


def main() -> None:
    define_flags()
    # Not among the others, because ofa-search evaluates all archs itself.
    flags.DEFINE_integer("worker", 0, "Which share of the archs to evaluate, from 0 on.", 0)
    flags.DEFINE_integer("num_workers", 1, "How many workers share the archs.", 1)
    common.define_workdir()
    common.define_moved_images()
    common.run(predictor, __doc__)


if __name__ == "__main__":
    main()
