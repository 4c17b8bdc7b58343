"""elastic="mask" computes what elastic="slice" does, in static shapes, so that XLA compiles it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from model_helpers import (
    NUM_CLASSES,
    deviation,
    make_archs,
    make_images,
    twin,
    two_families,
)

from ofa_tf.errors import UsageError
from ofa_tf.layers import KEEP_STATISTICS
from ofa_tf.models import Supernet

TOLERANCE = 1e-5  # of the largest entry
NUM_ARCHS = 5
MODES = {
    "inference": {},
    "training": {"training": True},
    "teacher": {"bn_update": KEEP_STATISTICS},
    "recalibration": {"bn_update": (0.0, 0.5)},
}
pytestmark = two_families


@pytest.fixture(scope="module")
def masked(supernet) -> Supernet:
    return twin(supernet, elastic="mask")


def close(actual, expected) -> bool:
    """Equal to TOLERANCE; where all is zero, exactly."""
    return np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


def gradient_deviation(actual, expected) -> float:
    """The largest difference of any gradient, as a part of its variable's largest entry."""
    largest = max(np.abs(gradient).max() for gradient in expected)
    # A beta whose shift the next batch norm takes away has no gradient but rounding.
    scales = [max(np.abs(theirs).max(), 1e-3 * largest) for theirs in expected]
    return max(
        np.abs(ours - theirs).max() / scale
        for ours, theirs, scale in zip(actual, expected, scales, strict=True)
    )


class Step:
    """Logits, loss and gradients of a training step of one supernet, from one traced graph."""

    def __init__(
        self, supernet: Supernet, batch: int | None = None, side: int | None = None, **xla
    ):
        self.supernet = supernet
        sizes = supernet.space.sizes(supernet.space.max())
        signature = [
            tf.TensorSpec([batch, side, side, 3]),
            tf.TensorSpec(sizes.shape, tf.int32),
            tf.TensorSpec([batch, NUM_CLASSES]),
        ]
        self.run = tf.function(self._run, signature, **xla)

    def _run(self, images, sizes, targets):
        with tf.GradientTape() as tape:
            logits = self.supernet(images, sizes, training=True)
            loss = tf.reduce_mean((logits - targets) ** 2)
        variables = [variable.value for variable in self.supernet.trainable_variables]
        return logits, loss, tape.gradient(loss, variables, unconnected_gradients="zero")

    def __call__(self, arch, seed: int, count: int = 6, side: int | None = None):
        """Logits, loss, gradients, and the statistics after it (which are put back)."""
        images = make_images(side or arch.resolution, count, seed)
        targets = np.random.default_rng(seed).normal(size=(count, NUM_CLASSES))
        with self.supernet.kept_statistics():
            logits, loss, gradients = self.run(
                images, self.supernet.space.sizes(arch), targets.astype(np.float32)
            )
            statistics = [v.numpy() for v in self.supernet.non_trainable_variables]
        assert self.run.experimental_get_tracing_count() == 1
        return [logits.numpy(), loss.numpy(), [g.numpy() for g in gradients], statistics]


@pytest.fixture(scope="module")
def steps(supernet, masked) -> tuple[Step, Step]:
    return Step(supernet), Step(masked)


def test_same_variables_in_the_same_order(supernet, masked):
    assert [(v.path.split("/", 1)[1:], v.shape) for v in masked.variables] == [
        (v.path.split("/", 1)[1:], v.shape) for v in supernet.variables
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("index", range(NUM_ARCHS))
def test_same_logits_and_statistics(supernet, masked, mode, index):
    arch = make_archs(supernet.space, NUM_ARCHS)[index]
    images = make_images(arch.resolution, 6, seed=index)
    with supernet.kept_statistics(), masked.kept_statistics():
        before = [v.numpy() for v in supernet.non_trainable_variables]
        expected, actual = (net(images, arch, **MODES[mode]) for net in (supernet, masked))
        assert deviation(actual, expected) < TOLERANCE
        for ours, theirs, old in zip(
            masked.non_trainable_variables, supernet.non_trainable_variables, before, strict=True
        ):
            assert close(ours.numpy(), theirs.numpy()), ours.path
            # What is not active is left exactly as it was.
            kept = theirs.numpy() == old
            np.testing.assert_array_equal(ours.numpy()[kept], old[kept])


@pytest.mark.parametrize("index", range(NUM_ARCHS))
def test_same_loss_gradients_and_statistics(supernet, steps, index):
    """Gradients for one of three batches: in some, an input of a ReLU rounds across zero."""
    arch = make_archs(supernet.space, NUM_ARCHS)[index]

    def compare(seed: int) -> float:
        (logits, loss, gradients, statistics), actual = (step(arch, seed) for step in steps)
        assert deviation(actual[0], logits) < TOLERANCE
        assert deviation(actual[1], loss) < TOLERANCE
        for ours, theirs in zip(actual[2], gradients, strict=True):
            assert not ours[theirs == 0].any()
        for ours, theirs in zip(actual[3], statistics, strict=True):
            assert close(ours, theirs)
        return gradient_deviation(actual[2], gradients)

    assert any(compare(seed) <= TOLERANCE for seed in range(10 * index, 10 * index + 3))


def test_a_fixed_arch_in_the_callers_graph_is_cut(supernet, masked):
    """Its shapes are static anyway."""
    arch, images = supernet.space.min(), make_images(24, 4, seed=0)
    run = tf.function(lambda images: masked(images, arch))
    assert deviation(run(images), supernet(images, arch)) < TOLERANCE
    graph = run.get_concrete_function(tf.TensorSpec([4, 24, 24, 3])).graph
    kernels = [op.inputs[1].shape for op in graph.get_operations() if op.type == "Conv2D"]
    plan = supernet.space.blueprint(arch)
    widths = {block.mid_channels for block in plan.elastic_blocks}
    widths |= {block.out_channels for block in plan.elastic_blocks}
    assert widths <= {shape[-1] for shape in kernels}


def test_all_shapes_are_static(masked):
    sizes = masked.space.sizes(masked.space.max())
    run = tf.function(lambda images, sizes: masked(images, sizes, training=True))
    graph = run.get_concrete_function(
        tf.TensorSpec([4, 24, 24, 3]), tf.TensorSpec(sizes.shape, tf.int32)
    ).graph
    operations = graph.get_operations()
    assert not {op.type for op in operations} & {"If", "StatelessIf", "While", "StatelessWhile"}
    # The scratch space of the fused batch norm has no shape.
    tensors = [t for op in operations for t in op.outputs if not t.name.endswith("NormV3:5")]
    assert not [t.name for t in tensors if not t.shape.is_fully_defined()]


@pytest.mark.slow
def test_xla_compiles_a_training_step_once(masked):
    plain, compiled = (Step(masked, 4, 24, **xla) for xla in ({}, {"jit_compile": True}))

    def compare(arch, seed: int) -> float:
        expected, actual = (step(arch, seed, count=4, side=24) for step in (plain, compiled))
        assert deviation(actual[0], expected[0]) < 1e-4
        assert deviation(actual[1], expected[1]) < 1e-4
        for ours, theirs in zip(actual[3], expected[3], strict=True):
            assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
        return gradient_deviation(actual[2], expected[2])

    archs = (masked.space.min(), masked.space.max())
    for arch in archs:
        # As above: for a batch in which no ReLU rounds across zero.
        assert any(compare(arch, seed) < 1e-3 for seed in range(4))
    assert deviation(*(compiled(arch, 0, count=4, side=24)[0] for arch in archs)) > 0.01


def test_an_unknown_form_is_refused(supernet):
    with pytest.raises(UsageError, match=r"elastic is one of \['slice', 'mask'\], not 'masked'"):
        Supernet(supernet.space, NUM_CLASSES, elastic="masked")
