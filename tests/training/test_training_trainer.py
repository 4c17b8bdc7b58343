"""The trainer: where phases begin, what it tells and saves, interruptions, steps not finite."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from one_stage import TINY
from test_training_metrics import rows, scalars
from training_helpers import CLASSES, make_trainer, randomize, recipe, restore, values

from mobile_bench.signals import Interrupted
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.models import Supernet
from ofa_tf.training import checkpoints
from ofa_tf.training.corners import corner_archs
from ofa_tf.training.interruptions import SIGNALS
from ofa_tf.training.phases import PHASE_NAMES, Phase
from ofa_tf.training.sorting import sort_channels
from ofa_tf.training.step import StepResult
from ofa_tf.training.trainer import Trainer

STEPS_PER_EPOCH = 9  # of 144 images in batches of 16


def steps(count: int) -> float:
    return count / STEPS_PER_EPOCH


def checkpoint(trainer, step: int):
    return trainer.workdir.checkpoints / f"step_{step:09d}.npz"


def arrays(path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint file."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files if name != "state.json"}


def assert_equal(found, expected) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# -- the optimizer of a recipe ----------------------------------------------------------------


def test_weight_decay_is_on_kernels_only(shapes, shared_supernet, tmp_path):
    """A step without gradients moves what is decayed."""
    made = recipe(Phase("largest", 1, 0.05), weight_decay=0.5, momentum=0.0)
    trainer = make_trainer(shapes, tmp_path, made, shared_supernet)
    variables = shared_supernet.trainable_variables
    before = values(variables)
    zeros = [tf.zeros(variable.shape) for variable in variables]
    rate, loss = tf.constant(0.1), tf.constant(1.0)
    trainer.strategy.run(lambda: trainer.optimizer.apply(zeros, loss, rate))
    decayed = 0
    for variable, old in zip(variables, before, strict=True):
        is_kernel = variable.path.endswith("/kernel")
        expected = (1 - 0.1 * 0.5) * old if is_kernel else old
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=variable.path)
        decayed += is_kernel
    assert decayed == 16


# -- where phases begin -----------------------------------------------------------------------


class Recording(Trainer):
    """Instead of training, notes the weights that a phase begins with and draws others."""

    started: dict[str, list[np.ndarray]]
    teachers: dict[str, list[np.ndarray] | None]

    def _train(self, phase, position):
        self.__dict__.setdefault("started", {})[phase.name] = values(self.supernet.variables)
        teacher = values(self.largest.variables) if self.largest else None
        self.__dict__.setdefault("teachers", {})[phase.name] = teacher
        count = phase.num_steps(self.steps_per_epoch) - position.phase_step
        position.phase_step += count
        position.step += count
        randomize(self.supernet, seed=1 + PHASE_NAMES.index(phase.name))
        return [0] * (1 + len(SIGNALS))


def phases(*names: str):
    return recipe(*(Phase(name, steps(2), 0.05) for name in names))


@pytest.fixture(scope="module")
def chained(shapes, shared_supernet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chained")
    made = phases("largest", "depth2", "expand1", "expand2")
    trainer = make_trainer(shapes, folder, made, shared_supernet, kind=Recording)
    trainer.fit()
    return trainer


@pytest.mark.parametrize(("before", "name"), [("depth2", "expand1"), ("expand1", "expand2")])
def test_a_phase_alone_begins_as_in_the_chain(
    chained, shapes, shared_supernet, tmp_path, before, name
):
    init = chained.workdir.phase(before)
    trainer = make_trainer(
        shapes, tmp_path, phases(name), shared_supernet, seed=77, kind=Recording, init=init
    )
    trainer.fit()
    assert_equal(trainer.started[name], chained.started[name])
    assert_equal(trainer.teachers[name], chained.teachers[name])
    # They are the weights that the phase before left, sorted; and the teacher's are its own.
    supernet = Supernet(TINY, len(CLASSES))
    checkpoints.load(init, weights=supernet.variables)
    left = values(supernet.variables)
    assert any(not np.array_equal(a, b) for a, b in zip(left, trainer.started[name], strict=True))
    sort_channels(supernet, Phase(before, 1, 0.1).restrict(TINY))
    assert_equal(values(supernet.variables), trainer.started[name])
    checkpoints.load(chained.workdir.teacher, weights=supernet.variables)
    assert_equal(values(supernet.variables), trainer.teachers[name])
    assert trainer.workdir.teacher.read_bytes() == chained.workdir.teacher.read_bytes()
    # The corners before the phase are those of the chain.
    mine, theirs = (
        [row for row in rows(each.workdir.metrics) if row["phase"] == name]
        for each in (trainer, chained)
    )
    assert [row["when"] for row in mine] == ["before", "after"]
    assert [row["accuracy"] for row in mine] == [row["accuracy"] for row in theirs]


def test_evaluations_are_of_the_phase_s_corners(chained):
    found = [(row["phase"], row["when"], row["step"]) for row in rows(chained.workdir.metrics)]
    assert found == [
        ("largest", "after", 2),
        ("depth2", "before", 2),
        ("depth2", "after", 4),
        ("expand1", "before", 4),
        ("expand1", "after", 6),
        ("expand2", "before", 6),
        ("expand2", "after", 8),
    ]
    for row in rows(chained.workdir.metrics):
        corners = corner_archs(Phase(row["phase"], 1, 0.1).restrict(TINY), (24, 32))
        assert list(row["accuracy"]) == list(corners)


def test_a_step_s_checkpoint_serves_as_init(chained, shapes, shared_supernet, tmp_path):
    init = checkpoint(chained, 6)
    trainer = make_trainer(
        shapes, tmp_path, phases("expand2"), shared_supernet, kind=Recording, init=init
    )
    trainer.fit()
    assert_equal(trainer.started["expand2"], chained.started["expand2"])


def test_the_sandwich_may_begin_with_any_phase(chained, shapes, shared_supernet, tmp_path):
    made = recipe(Phase("sandwich", steps(2), 0.05, subnets_per_step=2))
    init = chained.workdir.phase("expand1")
    trainer = make_trainer(shapes, tmp_path, made, shared_supernet, init=init)
    trainer.restore()
    with np.load(init) as archive:
        for i, variable in enumerate(shared_supernet.variables):
            np.testing.assert_array_equal(variable.numpy(), archive[f"weights/{i:04d}"])
    assert not trainer.workdir.teacher.exists()


def test_without_init_a_later_phase_is_refused(shapes, shared_supernet, tmp_path):
    with pytest.raises(UsageError) as error:
        make_trainer(shapes, tmp_path, phases("kernel", "expand1"), shared_supernet)
    assert str(error.value).startswith(
        "phases begin with kernel, so the weights of an earlier phase are needed: give its "
    )


def test_without_distillation_any_phase_may_be_the_first(shapes, shared_supernet, tmp_path):
    made = recipe(Phase("expand2", steps(2), 0.1, subnets_per_step=2), kd_ratio=0.0)
    trainer = make_trainer(shapes, tmp_path, made, shared_supernet)
    trainer.fit()
    assert trainer.largest is None
    assert not trainer.workdir.teacher.exists()
    assert [row["when"] for row in rows(trainer.workdir.metrics) if "when" in row] == ["after"]


def test_without_distillation_init_needs_no_teacher_beside_it(
    chained, shapes, shared_supernet, tmp_path
):
    init = tmp_path / "elsewhere" / "phase_depth2.npz"
    init.parent.mkdir()
    init.write_bytes(chained.workdir.phase("depth2").read_bytes())
    made = recipe(Phase("expand1", steps(2), 0.1), kd_ratio=0.0)
    trainer = make_trainer(shapes, tmp_path / "job", made, shared_supernet, init=init)
    trainer.fit()
    assert not trainer.workdir.teacher.exists()


def test_unsorted_channels_stay_as_the_phase_before_left_them(
    chained, shapes, shared_supernet, tmp_path
):
    init = chained.workdir.phase("depth2")
    made = dataclasses.replace(phases("expand1"), sort_channels=False)
    trainer = make_trainer(shapes, tmp_path, made, shared_supernet, kind=Recording, init=init)
    trainer.fit()
    left = Supernet(TINY, len(CLASSES))
    checkpoints.load(init, weights=left.variables)
    assert_equal(values(left.variables), trainer.started["expand1"])


def test_a_single_subnet_is_trained_alone(shapes, shared_supernet, tmp_path):
    arch = TINY.restrict(resolutions=[24]).min()
    made = recipe(Phase("single", steps(2), 0.1), resolutions=(24,), arch=arch)
    trainer = make_trainer(shapes, tmp_path, made, shared_supernet)
    before = [[v.numpy().copy() for v in block.variables] for block in shared_supernet.blocks]
    trainer.fit()
    found = [row for row in rows(trainer.workdir.metrics) if "accuracy" in row]
    assert [list(row["accuracy"]) for row in found] == [["subnet"]]
    assert trainer.workdir.phase("single").exists()
    used = {block.name for block in TINY.blueprint(arch, len(CLASSES)).blocks}
    for block, old in zip(shared_supernet.blocks, before, strict=True):
        # Betas do not decay; a projection's has no gradient, for the next batch norm takes it out.
        moved = [
            np.any(variable.numpy() != value)
            for variable, value in zip(block.variables, old, strict=True)
            if variable.path.endswith("depthwise_bn/beta")
        ]
        assert all(each == (block.plan.name in used) for each in moved)
    with pytest.raises(UsageError, match="it takes no init"):
        make_trainer(shapes, tmp_path, made, shared_supernet, init=trainer.workdir.phase("single"))


@pytest.mark.parametrize(
    ("before", "name"), [("expand1", "depth2"), ("expand1", "expand1"), ("largest", "largest")]
)
def test_init_of_a_later_phase_is_refused(chained, shapes, shared_supernet, tmp_path, before, name):
    init = chained.workdir.phase(before)
    trainer = make_trainer(shapes, tmp_path, phases(name), shared_supernet, init=init)
    with pytest.raises(UsageError, match=f"is of phase {before}, which is not before {name}"):
        trainer.fit()
    assert not list(tmp_path.iterdir())


def test_init_without_a_teacher_is_refused(chained, shapes, shared_supernet, tmp_path):
    init = tmp_path / "elsewhere" / "phase_depth2.npz"
    init.parent.mkdir()
    init.write_bytes(chained.workdir.phase("depth2").read_bytes())
    made = phases("expand1")
    trainer = make_trainer(shapes, tmp_path / "job", made, shared_supernet, init=init)
    with pytest.raises(UsageError) as error:
        trainer.fit()
    assert str(error.value) == (
        f"{init.parent / 'phase_largest.npz'} is missing: phase expand1 learns from the largest "
        "net, whose checkpoint must be beside that of --init."
    )


@pytest.mark.parametrize("content", [None, b"PK"])
def test_init_that_cannot_be_read_is_a_failure(shapes, shared_supernet, tmp_path, content):
    init = tmp_path / "phase_kernel.npz"
    if content:
        init.write_bytes(content)
    made = phases("depth1")
    trainer = make_trainer(shapes, tmp_path / "job", made, shared_supernet, init=init)
    with pytest.raises(FailureError, match=r"phase_kernel\.npz is missing or damaged"):
        trainer.fit()


@pytest.mark.parametrize("teacher", [None, b"PK"])
def test_without_a_readable_teacher_it_says_so(shapes, shared_supernet, tmp_path, teacher):
    trainer = make_trainer(shapes, tmp_path, phases("largest"), shared_supernet, kind=Recording)
    trainer.fit()
    trainer.workdir.teacher.unlink()
    if teacher is not None:
        trainer.workdir.teacher.write_bytes(teacher)
    trainer = make_trainer(shapes, tmp_path, phases("largest", "kernel"), shared_supernet)
    with pytest.raises(FailureError, match=r"phase_largest\.npz is missing or damaged"):
        trainer.fit()


# -- another recipe on resume -----------------------------------------------------------------


def test_a_phase_that_the_new_recipe_lacks_is_refused(chained, shapes, shared_supernet):
    made = phases("largest", "kernel")
    trainer = make_trainer(shapes, chained.workdir.path, made, shared_supernet)
    with pytest.raises(UsageError) as error:
        trainer.restore()
    assert "is in phase expand2, which the recipe does not have; it has largest, kernel" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({}, {"ema_decay": 0.5, "precision": "float16"}),
        ({"ema_decay": 0.5, "precision": "float16"}, {}),
    ],
)
def test_an_average_and_a_loss_scale_may_come_and_go(
    shapes, shared_supernet, tmp_path, first, then
):
    phase = Phase("largest", steps(2), 0.05)
    make_trainer(shapes, tmp_path, recipe(phase, **first), shared_supernet, kind=Recording).fit()
    trained = values(shared_supernet.trainable_variables)
    trainer = make_trainer(shapes, tmp_path, recipe(phase, **then), shared_supernet, seed=5)
    trainer.restore()
    assert_equal(values(shared_supernet.trainable_variables), trained)
    if then:  # begins at the weights
        assert_equal(values(trainer.optimizer.average), trained)


@pytest.mark.parametrize(
    ("changes", "settings", "expected"),
    [
        ({"accumulation_steps": 3}, {}, "it must be a multiple of 1 replicas times 3 accumul"),
        ({}, {"eval_resolutions": (24, 26)}, "[24, 28, 32], not to [24, 26]"),
        ({}, {"xla": True}, "xla needs static shapes: give elastic=mask as well."),
    ],
)
def test_what_does_not_go_together_is_refused(
    shapes, shared_supernet, tmp_path, changes, settings, expected
):
    made = recipe(Phase("largest", 1, 0.1), **changes)
    with pytest.raises(UsageError) as error:
        make_trainer(shapes, tmp_path, made, shared_supernet, **settings)
    assert expected in str(error.value)


# -- interruptions ----------------------------------------------------------------------------


class Interrupting(Trainer):
    """Gets a signal while it runs a step of its recipe."""

    at: tuple[int, int]  # the step and the signal

    def _train_step(self, phase, batch_spec):
        train_step = super()._train_step(phase, batch_spec)

        def interrupted(batch, sizes, rate, step, *rest):
            if step == self.at[0]:
                os.kill(os.getpid(), self.at[1])
            return train_step(batch, sizes, rate, step, *rest)

        return interrupted


TWO_PHASES = recipe(
    Phase("largest", steps(6), 0.05, warmup_epochs=steps(2)),
    Phase("kernel", steps(4), 0.05),
    ema_decay=0.5,
)


@pytest.fixture(scope="module")
def undisturbed(shapes, shared_supernet, tmp_path_factory):
    """The last checkpoint and the metrics of a run without interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    trainer = make_trainer(shapes, folder, TWO_PHASES, shared_supernet)
    trainer.fit()
    return arrays(checkpoint(trainer, 10)), rows(trainer.workdir.metrics)


def accuracies(metrics: list[dict]) -> list[dict]:
    return [row for row in metrics if "accuracy" in row]


def test_interrupted_at_the_end_of_a_phase_it_ends_like_an_undisturbed_run(
    shapes, shared_supernet, tmp_path, undisturbed
):
    """At the last step of a phase, and at the very last; amid one: tests/cli/test_cli_train.py."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for seed, (step, number) in enumerate([(5, signal.SIGINT), (9, signal.SIGTERM)]):
        # Only the first start may depend on the fresh weights.
        trainer = make_trainer(
            shapes, tmp_path, TWO_PHASES, shared_supernet, seed, kind=Interrupting
        )
        trainer.at = step, number
        with pytest.raises(Interrupted) as interrupted:
            trainer.fit()
        assert interrupted.value.exit_code == 128 + number
        assert checkpoint(trainer, step + 1).exists()
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers

    before = {path: path.stat().st_mtime_ns for path in trainer.workdir.checkpoints.iterdir()}
    metrics_before = trainer.workdir.metrics.read_text()
    trainer = make_trainer(shapes, tmp_path, TWO_PHASES, shared_supernet, seed=9)
    trainer.fit()  # nothing is left to do
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert trainer.workdir.metrics.read_text() == metrics_before
    expected, metrics = undisturbed
    found = arrays(checkpoint(trainer, 10))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, err_msg=name)
    assert accuracies(rows(trainer.workdir.metrics)) == accuracies(metrics)
    state = checkpoints.load(checkpoint(trainer, 10), weights=trainer.supernet.variables)
    assert state == {
        "phase": "kernel",
        "phase_step": 4,
        "ended": True,
        "step": 10,
        "finished": True,
        "has_average": True,
        "recipe": json.loads(json.dumps(TWO_PHASES.to_dict())),
    }


GROWING_RECIPE = recipe(
    Phase("growing", steps(12), 0.05, warmup_epochs=steps(2)),
    low_resolution_first=True,
    small_subnets_first=True,
    coupling=0.5,
    zero_last_gamma=True,
)


class Watching(Interrupting):
    """Keeps the pixels and the subnets of each step."""

    def _train_step(self, phase, batch_spec):
        train_step, self.seen = super()._train_step(phase, batch_spec), {}

        def watched(batch, sizes, rate, step, *rest):
            self.seen[step] = batch[0].shape[1], sizes, rate
            return train_step(batch, sizes, rate, step, *rest)

        return watched


def test_growing_goes_on_where_it_was_interrupted(shapes, shared_supernet, tmp_path):
    whole = make_trainer(shapes, tmp_path / "whole", GROWING_RECIPE, shared_supernet, kind=Watching)
    whole.at = -1, 0
    gammas = [block.last_batch_norm for block in shared_supernet.blocks if block.last_batch_norm]
    assert len(gammas) == 2  # the first block, and one of the stage
    whole.restore()
    assert all(not layer.gamma.numpy().any() for layer in gammas)
    whole.fit()
    assert all(layer.gamma.numpy().any() for layer in gammas)
    expected = arrays(checkpoint(whole, 12))
    sides = [whole.seen[step][0] for step in range(12)]
    assert sides[:6] == [16] * 6
    assert sides[6:9] == [20] * 3
    assert set(sides[9:]) <= {24, 32}
    # At first no stage has more than one block.
    active = [int((whole.seen[step][1][0, :, 0] > 0).sum()) for step in range(12)]
    assert active[:3] == [active[0]] * 3
    assert max(active) > active[0]

    for seed, at in enumerate((2, 7)):
        parts = make_trainer(
            shapes, tmp_path / "parts", GROWING_RECIPE, shared_supernet, seed, kind=Watching
        )
        parts.at = at, signal.SIGTERM
        with pytest.raises(Interrupted):
            parts.fit()
    parts = make_trainer(
        shapes, tmp_path / "parts", GROWING_RECIPE, shared_supernet, 9, kind=Watching
    )
    parts.at = -1, 0
    parts.fit()
    assert list(parts.seen) == [9, 10, 11]  # an interruption is heeded a step later
    for step, (side, sizes, rate) in parts.seen.items():
        assert (side, rate) == (whole.seen[step][0], whole.seen[step][2])
        np.testing.assert_array_equal(sizes, whole.seen[step][1])
    found = arrays(checkpoint(parts, 12))
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


def test_metrics_have_a_row_per_epoch_and_one_per_evaluation(undisturbed):
    _, metrics = undisturbed
    assert [(row["phase"], row["step"], row.get("when")) for row in metrics] == [
        ("largest", 6, None),
        ("largest", 6, "after"),
        ("kernel", 6, "before"),
        ("kernel", 10, None),
        ("kernel", 10, "after"),
    ]
    assert all(np.isfinite(row["loss"]) for row in metrics if "loss" in row)


# -- steps that are not finite ----------------------------------------------------------------


class Spoiling:
    """ImageData one of whose batches is not a number."""

    def __init__(self, whole, step: int):
        self.whole, self._step = whole, step

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def train_batches(self, *args, first_step, **options):
        def spoiled(index, batch):
            images, labels = batch
            bad = tf.equal(index + first_step, self._step)
            return tf.where(bad, np.nan, images), labels

        batches = self.whole.train_batches(*args, first_step=first_step, **options)
        return batches.enumerate().map(spoiled)


def test_a_bad_batch_is_skipped_and_counted_and_epochs_are_evaluated(
    shapes, shared_supernet, tmp_path
):
    """Two epochs; a batch of the second is spoiled. And TensorBoard has what metrics.jsonl has."""
    made = recipe(Phase("largest", 2, 0.05), ema_decay=0.9)
    data = Spoiling(shapes, step=12)
    settings = {"eval_epochs": 1, "eval_resolutions": (28,)}
    trainer = make_trainer(data, tmp_path, made, shared_supernet, **settings)
    trainer.fit()
    metrics = rows(trainer.workdir.metrics)
    assert [(row["step"], row.get("when"), row.get("skipped_steps")) for row in metrics] == [
        (9, None, 0),
        (9, "epoch 1", None),
        (18, None, 1),
        (18, "after", None),
    ]
    assert list(metrics[1]["accuracy"]) == ["r28_d2_e4_k7"]
    for variable in shared_supernet.trainable_variables:
        assert np.all(np.isfinite(variable)), variable.path
    found = scalars(trainer.workdir.tensorboard)
    epochs = [row for row in metrics if "loss" in row]
    for name in ("loss", "learning_rate", "images_per_second", "gradient_norm", "skipped_steps"):
        expected = [(row["step"], pytest.approx(row[name])) for row in epochs]
        assert found[name] == expected
    assert found["accuracy/r28_d2_e4_k7"] == [
        (row["step"], pytest.approx(row["accuracy"]["r28_d2_e4_k7"]))
        for row in metrics
        if "accuracy" in row
    ]


class Diverging(Trainer):
    """From the third step on, nothing is finite."""

    def _train_step(self, phase, batch_spec):
        def step(batch, sizes, rate, number, *_):
            good = number < 2
            return StepResult(1.0 if good else np.nan, 1.0, good, np.eye(1, 1 + len(SIGNALS))[0])

        return step


def test_many_bad_steps_in_a_row_end_the_run(shapes, shared_supernet, tmp_path):
    made = recipe(Phase("largest", steps(9), 0.4))
    trainer = make_trainer(
        shapes, tmp_path, made, shared_supernet, kind=Diverging, max_skipped_steps=3
    )
    with pytest.raises(FailureError) as error:
        trainer.fit()
    message = str(error.value)
    rate = made.phases[0].learning_rate(4, STEPS_PER_EPOCH, 16)
    assert message.startswith(
        "The loss or a gradient was not finite in 3 steps in a row. Phase largest, step 4 of the "
        f"phase, learning rate {rate:.4g}, arch {{"
    )
    arch = json.loads(re.search(r"arch (\{.*?\})\. Last", message)[1])
    assert TINY.arch(arch) == TINY.restrict(resolutions=[arch["r"]]).max()
    newest = checkpoint(trainer, 5)  # made while step 4 ran, which was skipped
    assert f"Last good checkpoint: {newest}. Train on from it with --allow_recipe" in message
    assert checkpoints.load(newest, weights=shared_supernet.variables)["phase_step"] == 5


# -- a disk that refuses ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_leaves_the_earlier_checkpoints(
    shapes, shared_supernet, tmp_path, monkeypatch, number
):
    made = recipe(Phase("largest", steps(9), 0.4))
    trainer = make_trainer(shapes, tmp_path, made, shared_supernet, kind=Diverging)
    save, calls = np.savez, []

    def refuse_the_third(*args, **arrays):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(number, os.strerror(number))
        save(*args, **arrays)

    monkeypatch.setattr(np, "savez", refuse_the_third)
    with pytest.raises(FailureError) as error:
        trainer.fit()
    assert str(error.value) == (
        f"{checkpoint(trainer, 4)} could not be written: {os.strerror(number)}."
    )
    left = sorted(path.name for path in trainer.workdir.checkpoints.iterdir())
    assert left == ["step_000000002.npz", "step_000000003.npz"]
    trainer = make_trainer(shapes, tmp_path, made, shared_supernet)
    trainer.restore()


# -- what TensorFlow raises -------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        "{{function_node __wrapped__IteratorGetNext}} the peer is gone: [Op:X]",
        "Graph execution error:\n\nDetected at node X defined at (most recent call last):\n"
        "<stack traces unavailable>\nthe peer is gone:\n\t [[{{node X}}]]",
    ],
)
def test_tensorflow_s_errors_are_one_line(shapes, shared_supernet, tmp_path, monkeypatch, message):
    def fails(*_):
        raise tf.errors.UnavailableError(None, None, message)

    trainer = make_trainer(shapes, tmp_path, phases("largest"), shared_supernet)
    monkeypatch.setattr(trainer, "_train", fails)
    with pytest.raises(FailureError) as error:
        trainer.fit()
    text = str(error.value)
    assert text.startswith("Phase largest failed at step 0: the peer is gone")
    assert text.endswith("Run the same command again to go on from the newest checkpoint.")
    assert "\n" not in text
    assert "{{" not in text


# -- learning ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_learns(shapes, shared_supernet, tmp_path):
    """Drawn shapes are told apart after some epochs, by the largest and the smallest net."""
    phases = (Phase("largest", 12, 0.2, 1), Phase("expand2", 4, 0.1, subnets_per_step=2))
    trainer = make_trainer(shapes, tmp_path, recipe(*phases), shared_supernet)
    keras.utils.set_random_seed(0)
    restore(trainer.supernet.variables, values(Supernet(TINY, len(CLASSES)).variables))
    trainer.fit()
    assert trainer.evaluator.accuracy(TINY.max()) > 0.6
    assert trainer.evaluator.accuracy(TINY.min()) > 0.45


def test_randomized_weights_are_not_trivial(shared_supernet):
    """The guard of the tests above: other images and other archs give other outputs."""
    randomize(shared_supernet)
    images = np.random.default_rng(0).normal(size=(4, 28, 28, 3)).astype(np.float32)
    largest, smallest = (shared_supernet(images, a).numpy() for a in ("largest", "smallest"))
    assert np.std(largest, axis=0).min() > 1e-3
    assert np.abs(largest - smallest).max() > 1e-2
