"""Fine-tuning: one subnet trained further, alone, with the supernet's largest net as its teacher.

The authors' specialized networks were fine-tuned for 25 or 75 epochs (arXiv 1908.09791; their ids
end in finetune@25). How is not published: here it is one more phase of training.
"""

from __future__ import annotations

import json
from typing import Any

import tensorflow as tf

from ofa_tf.data import ImageData
from ofa_tf.errors import UsageError
from ofa_tf.fields import read_lines
from ofa_tf.models import Supernet
from ofa_tf.spaces import Arch
from ofa_tf.training.calibration import SubnetEvaluator
from ofa_tf.training.checkpoints import CheckpointFolder, weights_hash
from ofa_tf.training.recipe import Recipe
from ofa_tf.training.trainer import RunSettings, Trainer
from ofa_tf.workdir import Workdir


def finetune(
    trained: Supernet,
    data: ImageData,
    recipe: Recipe,
    workdir: Workdir,
    job_config: dict[str, Any],
    settings: RunSettings | None = None,
    *,
    strategy: tf.distribute.Strategy | None = None,
    eval_images: int | None = None,
    allow_recipe_change: bool = False,
) -> None:
    """Fine-tunes the recipe's arch, or goes on with it, or finds it done.

    Args:
        trained: the supernet, made within the strategy's scope. It stays as it is: its largest net
            is the teacher, and a copy of its weights is trained.
        data: the images.
        recipe: with the phase "finetune" and the arch.
        workdir: of the subnet, `Workdir.finetuned` of the job's.
        job_config: settings of the supernet's job, from which those of `workdir` follow.
        settings: how to go about it.
        strategy: where it runs; the present one by default.
        eval_images: the subnet is evaluated on so many held-out images; None for all.
        allow_recipe_change: go on with another recipe.

    Raises:
        Interrupted: by a signal, after a checkpoint.
        UsageError: what is in `workdir` is of another arch, supernet or recipe.
        FailureError: as `Trainer.fit`.

    Example:
        job = ofa_tf.load_job("runs/cifar10")
        arch = job.space.arch(job.chosen_subnet("0.2ms")["arch"])
        recipe = Recipe((Phase("finetune", epochs=25, base_lr=2.5e-3),), batch_size=128,
                        resolutions=(arch.resolution,), arch=arch)
        finetune(job.supernet, job.data, recipe, job.workdir.finetuned("0.2ms"), job.config)
        tuned = job.finetuned("0.2ms")
    """
    config = check(trained, recipe, workdir, job_config, allow_recipe_change)
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        supernet = Supernet(
            trained.space, trained.num_classes, elastic=trained.elastic, dtype=recipe.dtype_policy
        )
    evaluator = SubnetEvaluator(
        supernet,
        data,
        limit=eval_images,
        calibration_images=job_config["calibration_images"],
        eval_crop=job_config["eval_crop"],
        strategy=strategy,
    )
    trainer = Trainer(
        supernet, data, recipe, workdir, evaluator, settings, strategy=strategy, largest=trained
    )
    trainer.restore()
    if trainer.is_chief:
        workdir.start(config, allow_recipe_change)
    trainer.fit()


def check(
    trained: Supernet,
    recipe: Recipe,
    workdir: Workdir,
    job_config: dict[str, Any],
    allow_recipe_change: bool = False,
) -> dict[str, Any]:
    """The settings that `finetune` records. Arguments and errors as there; writes nothing."""
    if workdir.config_file.exists():
        assert recipe.arch is not None  # a fine-tuning is of one
        check_origin(workdir, trained, recipe.arch)
    origin = {"init": None, "supernet": weights_hash(trained)}
    config = {**job_config, **origin, "recipe": recipe.to_dict()}
    workdir.check(config, allow_recipe_change)
    return config


def check_origin(workdir: Workdir, trained: Supernet, arch: Arch) -> None:
    """Raises UsageError where a fine-tuned subnet is of another arch or of other weights."""
    config = workdir.config()
    was = {"supernet": config.get("supernet"), "arch": config["recipe"].get("arch")}
    now = {"supernet": weights_hash(trained), "arch": arch.to_dict()}
    why = {
        "supernet": "the supernet has other weights since it was begun",
        "arch": "search.json has another arch of this name since it was begun",
    }
    changed = [why[field] for field in was if was[field] != now[field]]
    if changed:
        raise UsageError(
            f"{workdir.path} is out of date: {' and '.join(changed)}. Remove the folder and run "
            "ofa-finetune to fine-tune anew."
        )


def is_finished(workdir: Workdir, recipe: Recipe | None = None) -> bool:
    """Whether a subnet was fine-tuned to the end; with a recipe, of this very recipe."""
    state = CheckpointFolder(workdir.checkpoints).load_newest() or {}
    same = recipe is None or state.get("recipe") == json.loads(json.dumps(recipe.to_dict()))
    return bool(state.get("finished")) and same


def accuracies(workdir: Workdir) -> dict[str, float]:
    """Accuracy of a fine-tuned subnet "before" and "after", as far as its metrics tell.

    Raises FailureError where they are damaged.
    """
    rows = read_lines(workdir.metrics, "Remove the folder and run ofa-finetune again.")
    found = {
        row.text("when"): row.fields("accuracy").number("subnet")
        for row in rows
        if "accuracy" in row
    }
    return {when: found[when] for when in ("before", "after") if when in found}
