"""Fine-tuning: what a step trains and who teaches it; an interrupted run ends as another does.

What comes out, and what is refused, is tested with the command: tests/cli/test_cli_finetune.py.
"""

from __future__ import annotations

import os
import signal
from typing import ClassVar

import numpy as np
import pytest
from one_stage import TINY
from training_helpers import CLASSES, recipe, values

from mobile_bench.signals import Interrupted
from ofa_tf.errors import UsageError
from ofa_tf.models import Supernet
from ofa_tf.training import finetuning
from ofa_tf.training.calibration import SubnetEvaluator
from ofa_tf.training.finetuning import accuracies, finetune, is_finished
from ofa_tf.training.interruptions import SIGNALS
from ofa_tf.training.phases import Phase
from ofa_tf.training.step import StepResult
from ofa_tf.training.trainer import RunSettings, Trainer
from ofa_tf.workdir import Workdir

ARCH = TINY.arch({"ks": [5, 7], "e": [2, 4], "d": [1], "r": 28})
RECIPE = recipe(Phase("finetune", 2, 0.02), resolutions=(28,), arch=ARCH, ema_decay=0.5)
STEPS = 18  # two epochs of 144 images in batches of 16
JOB = {
    "space": TINY.name,
    "data": None,
    "class_names": CLASSES,
    "eval_crop": 1.0,
    "calibration_images": 48,
    "init": None,
    "recipe": {},
}
SETTINGS = RunSettings(checkpoint_minutes=0.0, eval_epochs=100)


class Watching(Trainer):
    """Instead of training, notes what it would train, and who would teach."""

    seen: ClassVar[list] = []

    def _train_step(self, phase, batch_spec):
        teacher = super()._train_step(phase, batch_spec).largest
        started = values(self.supernet.variables)

        def step(batch, sizes, *_):
            self.seen.append((teacher, started, batch[0].shape[1], sizes.tolist()))
            return StepResult(1.0, 1.0, True, np.zeros(1 + len(SIGNALS)))

        return step


def test_each_step_trains_the_arch_at_its_resolution_and_the_largest_net_teaches(
    supernet, shapes, tmp_path, monkeypatch
):
    monkeypatch.setattr(finetuning, "Trainer", Watching)
    Watching.seen.clear()
    finetune(supernet, shapes, RECIPE, Workdir(tmp_path), JOB, SETTINGS)
    assert len(Watching.seen) == STEPS
    for teacher, started, side, sizes in Watching.seen:
        assert teacher is supernet
        assert (side, sizes) == (28, [TINY.sizes(ARCH).tolist()])
        for variable, value in zip(supernet.variables, started, strict=True):
            np.testing.assert_array_equal(value, variable.numpy())


def test_without_a_trained_supernet_it_is_refused(shared_supernet, shapes, tmp_path):
    evaluator = SubnetEvaluator(shared_supernet, shapes, calibration_images=48)
    with pytest.raises(UsageError, match="finetune begins with a trained supernet: give it as"):
        Trainer(shared_supernet, shapes, RECIPE, Workdir(tmp_path), evaluator)


class Interrupting(Trainer):
    """Gets SIGTERM in its eighth step."""

    def _train_step(self, phase, batch_spec):
        train_step = super()._train_step(phase, batch_spec)

        def interrupted(batch, sizes, rate, step, *rest):
            if step == 7:
                os.kill(os.getpid(), signal.SIGTERM)
            return train_step(batch, sizes, rate, step, *rest)

        return interrupted


@pytest.mark.slow
def test_interrupted_it_ends_like_an_undisturbed_run(supernet, shapes, tmp_path, monkeypatch):
    undisturbed, disturbed = (Workdir(tmp_path).finetuned(name) for name in ("a", "b"))
    finetune(supernet, shapes, RECIPE, undisturbed, JOB, SETTINGS)
    monkeypatch.setattr(finetuning, "Trainer", Interrupting)
    with pytest.raises(Interrupted):
        finetune(supernet, shapes, RECIPE, disturbed, JOB, SETTINGS)
    assert not is_finished(disturbed)
    monkeypatch.undo()
    finetune(supernet, shapes, RECIPE, disturbed, JOB, SETTINGS)
    assert is_finished(disturbed, RECIPE)
    ends = []
    for workdir in (undisturbed, disturbed):
        tuned = Supernet(TINY, len(CLASSES))
        finetuning.CheckpointFolder(workdir.checkpoints).load_newest(weights=tuned.variables)
        ends.append(values(tuned.variables))
    for found, expected in zip(*ends, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert accuracies(disturbed) == accuracies(undisturbed)
