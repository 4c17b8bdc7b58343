"""Trains 20 steps of a phase under a strategy; run by test_training_distributed.py.

python distributed_worker.py STRATEGY PHASE DATA_DIR INIT WORKDIR ACCUMULATION_STEPS
"""

from __future__ import annotations

import sys

import keras
import tensorflow as tf
from one_stage import TINY
from training_helpers import PLAIN

from ofa_tf.data import load_dataset
from ofa_tf.models import Supernet
from ofa_tf.training.calibration import SubnetEvaluator
from ofa_tf.training.phases import Phase
from ofa_tf.training.recipe import Recipe
from ofa_tf.training.strategy import make_strategy, share_cores
from ofa_tf.training.trainer import RunSettings, Trainer
from ofa_tf.workdir import Workdir

STEPS = 20
BATCH = 16


PHASES = {
    "expand2": {"subnets_per_step": 4},
    "growing": {"low_resolution_first": True, "small_subnets_first": True, "coupling": 0.5},
}


def main(
    name: str, phase: str, data_dir: str, init: str, workdir: str, accumulation_steps: str
) -> None:
    if name == "cores":
        strategy = share_cores(2, 2)
    else:
        # As many as each of the two replicas has: the threads of an operation share out its sums.
        tf.config.threading.set_intra_op_parallelism_threads(1)
        strategy = make_strategy(name)
    options = dict(PHASES[phase])
    subnets = options.pop("subnets_per_step", 1)
    # Else threads add in any order, and small batches make much of the last digit in 20 steps.
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    data = load_dataset(data_dir=data_dir)
    epochs = STEPS / data.steps_per_epoch(BATCH)
    recipe = Recipe(
        phases=(Phase(phase, epochs, 0.05, subnets_per_step=subnets),),
        batch_size=BATCH,
        resolutions=(24, 32),
        augmentation=PLAIN,
        accumulation_steps=int(accumulation_steps),
        ema_decay=0.9,
        mixup_alpha=0.2,
        **options,
    )
    with strategy.scope():
        supernet = Supernet(TINY, data.num_classes)
    evaluator = SubnetEvaluator(
        supernet, data, "test", calibration_images=48, batch_size=16, strategy=strategy
    )
    settings = RunSettings(eval_epochs=100)
    Trainer(
        supernet,
        data,
        recipe,
        Workdir(workdir),
        evaluator,
        settings,
        strategy=strategy,
        init=init,
    ).fit()


if __name__ == "__main__":
    main(*sys.argv[1:])
