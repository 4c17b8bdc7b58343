"""ofa-train: trains a supernet, or goes on training it.

    ofa-train --preset=cifar10/quarter_hour --data_dir=PATH --workdir=DIR

Run the same command again to go on after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from absl import flags

from ofa_tf.cli import common, recipe_flags
from ofa_tf.cli.arch_files import read_arch
from ofa_tf.errors import UsageError
from ofa_tf.job import keep_images, open_images
from ofa_tf.quiet import import_tensorflow

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string(
        "space",
        "ofa_mbv3_w1.0",
        "Search space: a name, of which a wrong one lists all, or a file that defines one, "
        "FILE.py; see docs/SEARCH_SPACE.md.",
    )
    flags.DEFINE_enum(
        "activation",
        None,
        ["swish", "relu6"],
        "In place of hard-swish, in the spaces of MobileNetV3: --space=NAME-ACTIVATION, in short.",
    )
    common.define_data()
    _define_schedule_flags()
    recipe_flags.define_run()
    flags.DEFINE_list(
        "eval_resolutions", None, "At these pixels; by default the least and the most trained."
    )


def _define_schedule_flags() -> None:
    flags.DEFINE_enum(
        "schedule",
        None,
        ["growing", "progressive", "sandwich", "single"],
        "All choices in one phase that begins with small subnets and images, the paper's "
        "progressive shrinking in phases, the sandwich rule in one phase, or a single subnet from "
        "new weights, for comparison. By default that of --phases, or growing.",
    )
    flags.DEFINE_string("arch", None, "Of --schedule=single: largest, smallest, or an arch.json.")
    flags.DEFINE_list("phases", None, "Phases to run, in order; all of the schedule by default.")
    flags.DEFINE_list("epochs", None, "Epochs of each phase.")
    flags.DEFINE_list("warmup_epochs", None, "Epochs of warm-up of each phase; 0 by default.")
    flags.DEFINE_list("base_lr", None, "Peak learning rate of each phase, for 64 images a step.")
    flags.DEFINE_list(
        "subnets_per_step",
        None,
        "Subnets per step of each phase; by default 1, for the sandwich 4: the largest, the "
        "smallest and 2 random ones.",
    )
    flags.DEFINE_list("resolutions", None, "Pixels, drawn per step; all of the space by default.")
    flags.DEFINE_bool(
        "low_resolution_first",
        None,
        "Begin with smaller images: the default for growing; single takes it, too.",
    )
    flags.DEFINE_bool(
        "small_subnets_first",
        None,
        "Begin with the least depths, kernels and widths: the default for growing alone.",
    )
    flags.DEFINE_float(
        "coupling",
        None,
        "Chance that a random subnet is equally deep, or wide, or has one kernel throughout; by "
        "default 0.5 for growing, else 0.",
        0.0,
        1.0,
    )
    flags.DEFINE_bool(
        "zero_last_gamma",
        None,
        "Blocks with a shortcut begin as the identity: the default for growing.",
    )
    flags.DEFINE_bool(
        "sort_channels", True, "The most important channels first, before the width is elastic."
    )
    recipe_flags.define_recipe()
    flags.DEFINE_string(
        "init", None, "Checkpoint to start from, e.g. DIR/checkpoints/phase_kernel.npz."
    )


def train() -> None:
    """Trains, or goes on training, the job that FLAGS describe."""
    from ofa_tf.spaces import get_space

    # Before TensorFlow's slow import, so that a typo ends fast.
    space = get_space(FLAGS.space, FLAGS.activation)
    common.workdir().check_space(space)
    if FLAGS.activation:
        FLAGS.space = space.name  # which the next steps of ofa-quickstart compare with the job's
    import_tensorflow()
    recipe = _recipe(space)
    strategy = recipe_flags.start_strategy()
    with recipe_flags.sole_writer(strategy):
        _train(space, recipe, strategy)


def _train(space, recipe, strategy) -> None:
    from ofa_tf.training.strategy import chief_first, is_chief, lost_worker_told

    workdir = common.workdir()
    with chief_first(strategy):
        images = open_images(common.data_config(), workdir)
    data = images.data
    with lost_worker_told(strategy):  # weights are made by all workers together
        trainer = _trainer(space, data, recipe, workdir, strategy)
    config = {
        "space": space.name,
        "data": images.settings,
        "class_names": images.class_names,
        "eval_crop": FLAGS.eval_crop,
        "calibration_images": FLAGS.calibration_images,
        "init": FLAGS.init,
        "recipe": recipe.to_dict(),
    }
    workdir.check(config, FLAGS.allow_recipe_change)
    trainer.restore()
    # All is checked by now: settings that cannot work are not recorded.
    if is_chief(strategy):
        workdir.keep_space(space)
        keep_images(workdir, data)
        workdir.start(config, FLAGS.allow_recipe_change)
    trainer.fit()
    common.log.info("Trained. The supernet is in %s.", workdir.checkpoints)


def _trainer(space, data, recipe, workdir, strategy):
    """The Trainer that FLAGS describe."""
    import keras

    from ofa_tf.models import Supernet
    from ofa_tf.training.calibration import SubnetEvaluator
    from ofa_tf.training.trainer import Trainer

    keras.utils.set_random_seed(FLAGS.seed)
    with strategy.scope():
        supernet = Supernet(
            space, data.num_classes, elastic=FLAGS.elastic, dtype=recipe.dtype_policy
        )
    evaluator = SubnetEvaluator(
        supernet,
        data,
        limit=FLAGS.eval_images,
        calibration_images=FLAGS.calibration_images,
        eval_crop=FLAGS.eval_crop,
        strategy=strategy,
    )
    settings = recipe_flags.run_settings(
        eval_resolutions=tuple(common.whole_numbers("eval_resolutions"))
    )
    return Trainer(
        supernet, data, recipe, workdir, evaluator, settings, strategy=strategy, init=FLAGS.init
    )


def _recipe(space):
    """The recipe that FLAGS describe, checked."""
    from ofa_tf.training.phases import GROWING, GROWTH, SANDWICH, SCHEDULES, Phase
    from ofa_tf.training.recipe import Recipe

    schedule = FLAGS.schedule or _schedule_of(FLAGS.phases or [GROWING])
    known = SCHEDULES[schedule]
    names = FLAGS.phases or known
    for name in names:
        if name not in known:
            raise UsageError(
                f"--schedule={schedule} has no phase {name!r}; known: {', '.join(known)}."
            )
    growing, sandwich = schedule == GROWING, schedule == SANDWICH
    columns = zip(
        names,
        _per_phase("epochs", common.numbers, names),
        _per_phase("base_lr", common.numbers, names),
        _per_phase("warmup_epochs", common.numbers, names, 0.0),
        _per_phase("subnets_per_step", common.whole_numbers, names, 4 if sandwich else 1),
        strict=True,
    )
    arch = read_arch(space, FLAGS.arch) if FLAGS.arch else None
    own = [arch.resolution] if arch else space.resolutions
    resolutions = common.whole_numbers("resolutions") or own
    settings = recipe_flags.recipe_settings(FLAGS.flip)
    if FLAGS.clip_norm is None and sandwich:
        settings["clip_norm"] = 1.0
    if growing:
        settings |= GROWTH
    settings |= {name: FLAGS[name].value for name in GROWTH if FLAGS[name].value is not None}
    return Recipe(
        phases=tuple(Phase(*column) for column in columns),
        # Checked to be of the space.
        resolutions=space.restrict(resolutions=resolutions).resolutions,
        sort_channels=FLAGS.sort_channels,
        seed=FLAGS.seed,
        arch=arch,
        **settings,
    )


def _schedule_of(phases: Sequence[str]) -> str:
    """The schedule that has a phase of this name; "progressive" where none has."""
    from ofa_tf.training.phases import SCHEDULES

    found = [schedule for schedule, known in SCHEDULES.items() if phases[0] in known]
    return found[0] if found else "progressive"


def _per_phase(
    flag: str, read: Callable[[str], list], phases: Sequence[str], default: float | None = None
) -> list:
    """A list flag with a number for each phase; the default for each where it is not given."""
    values = read(flag)
    if not values and default is not None:
        return [default] * len(phases)
    if len(values) != len(phases):
        told = f"it has {len(values)}" if values else "give it, or a --preset, which has it"
        if not values and common.workdir().config_file.exists():
            told = f"to go on with the job in {FLAGS.workdir}, give its whole command again"
        raise UsageError(
            f"--{flag} needs a number for each of the phases {', '.join(phases)}; {told}."
        )
    return values


def main() -> None:
    define_flags()
    common.define_workdir()
    common.run(train, __doc__)


if __name__ == "__main__":
    main()
