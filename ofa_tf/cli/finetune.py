"""ofa-finetune: trains subnets that ofa-search chose further, each alone.

    ofa-finetune --workdir=DIR --epochs=25

The supernet's largest net is the teacher. Images are the job's, and so is the recipe where no flag
says otherwise. Each subnet is in DIR/finetuned/NAME, the supernet stays as it is. Run the same
command again to go on after an interruption.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from ofa_tf.cli import common, recipe_flags
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.job import Job
from ofa_tf.workdir import CONFIG_REMEDY, Workdir

if TYPE_CHECKING:
    import tensorflow as tf

    from ofa_tf.models import Supernet
    from ofa_tf.spaces import Arch
    from ofa_tf.training.recipe import Recipe

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list("subnets", None, "Names of subnets in search.json; all by default.")
    flags.DEFINE_float("epochs", 25.0, "Epochs of each subnet; published are 25 and 75.")
    # That of the published phases of 25 epochs; what fine-tuning took is not published.
    flags.DEFINE_float("base_lr", 2.5e-3, "Peak learning rate, for 64 images a step.")
    flags.DEFINE_float("warmup_epochs", 0.0, "Epochs of warm-up.")
    recipe_flags.define_recipe()
    recipe_flags.define_run()


def finetune() -> None:
    """Fine-tunes each subnet that is not fine-tuned yet."""
    job = Job(common.workdir())
    archs = _archs(job)
    _adopt_recipe(job)
    strategy = recipe_flags.start_strategy()
    with recipe_flags.sole_writer(strategy):
        _finetune_all(job, archs, strategy)


def _finetune_all(job: Job, archs: dict[str, Arch], strategy: tf.distribute.Strategy) -> None:
    from ofa_tf.training import finetuning
    from ofa_tf.training.strategy import chief_first, is_chief, lost_worker_told

    recipes = {name: _recipe(job, arch) for name, arch in archs.items()}
    with chief_first(strategy):
        common.move_images(job)
        data = job.data
    with lost_worker_told(strategy):
        trained = _trained(job, strategy)
    settings, changes = recipe_flags.run_settings(), FLAGS.allow_recipe_change
    for name, recipe in recipes.items():  # all, before the first takes its time
        finetuning.check(trained, recipe, job.workdir.finetuned(name), job.config, changes)
    for name, recipe in recipes.items():
        folder = job.workdir.finetuned(name)
        if finetuning.is_finished(folder, recipe):
            common.log.info("%s is fine-tuned already.", folder.path)
            continue
        common.log.info("Fine-tuning %s", name)
        finetuning.finetune(
            trained,
            data,
            recipe,
            folder,
            job.config,
            settings,
            strategy=strategy,
            eval_images=FLAGS.eval_images,
            allow_recipe_change=changes,
        )
        if is_chief(strategy):
            _tell(name, finetuning.accuracies(folder), folder)


def _archs(job: Job) -> dict[str, Arch]:
    """What to fine-tune, by name, of a job that has images."""
    _ = job.data_config
    names = FLAGS.subnets or [row["name"] for row in job.chosen_subnets()]
    if not names:
        raise UsageError(f"{job.workdir.search_result} has no subnets. Run ofa-search again.")
    return {name: job.space.arch(job.chosen_subnet(name)["arch"]) for name in names}


def _trained(job: Job, strategy: tf.distribute.Strategy) -> Supernet:
    from ofa_tf.models import Supernet
    from ofa_tf.training.recipe import dtype_policy

    dtype = dtype_policy(FLAGS.precision)
    with strategy.scope():
        trained = Supernet(job.space, len(job.class_names), elastic=FLAGS.elastic, dtype=dtype)
    job.load_weights(trained)
    return trained


def _adopt_recipe(job: Job) -> None:
    """Makes the recipe of the job's training the defaults of the flags."""
    recipe = job.config["recipe"]  # an imported job's is only where it is from
    for name, value in (recipe | recipe.get("augmentation", {})).items():
        if name in FLAGS:
            try:
                FLAGS.set_default(name, value)
            except flags.Error as error:
                raise FailureError(
                    f"{job.workdir.config_file} is damaged: recipe: {error}. {CONFIG_REMEDY}"
                ) from error


def _recipe(job: Job, arch: Arch) -> Recipe:
    from ofa_tf.training.phases import FINETUNE, Phase
    from ofa_tf.training.recipe import Recipe

    return Recipe(
        phases=(Phase(FINETUNE, FLAGS.epochs, FLAGS.base_lr, FLAGS.warmup_epochs),),
        resolutions=(arch.resolution,),
        seed=job.data_config["seed"],
        arch=arch,
        **recipe_flags.recipe_settings(job.data_config["flip"]),
    )


def _tell(name: str, accuracies: dict[str, float], folder: Workdir) -> None:
    percents = ", ".join(f"{100 * value:.2f} % {when}" for when, value in accuracies.items())
    where = f"the weights are in {folder.checkpoints}."
    print(f"{name}: {percents}, on held-out images; {where}")


def main() -> None:
    define_flags()
    common.define_workdir()
    common.define_moved_images()
    common.run(finetune, __doc__)


if __name__ == "__main__":
    main()
