"""The published supernets against the PyTorch reference: the same numbers from the same weights.

Each test records the worst deviation that it saw as the property "worst".
"""

from __future__ import annotations

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

torch = pytest.importorskip("torch")
pytest.importorskip("ofa")

from interop_helpers import (  # noqa: E402
    PUBLISHED_SPACES,
    deviation,
    make_images,
    reference_network,
    run_reference,
)

from ofa_tf.interop import load_checkpoint  # noqa: E402
from ofa_tf.interop.checkpoint import supernet_weights  # noqa: E402
from ofa_tf.interop.keys import tensors  # noqa: E402
from ofa_tf.layers import KEEP_STATISTICS  # noqa: E402
from ofa_tf.models import Supernet  # noqa: E402
from ofa_tf.spaces import Arch, get_space  # noqa: E402
from ofa_tf.training.sorting import sort_channels  # noqa: E402

pytestmark = pytest.mark.reference

# What the space of w1.2 has too; 172 leaves odd feature maps on its way, 132 twice.
RESOLUTIONS = {"ofa_mbv3_w1.2": (160, 172, 188)}
DEFAULT_RESOLUTIONS = (132, 160, 172)
NUM_RANDOM = 20
BATCH = 4
BLIND = 1e-3  # outputs of images that differ by less could hide a mistake


@dataclasses.dataclass
class Pair:
    """A supernet of ours and the reference's network, with the same weights."""

    supernet: Supernet
    network: torch.nn.Module

    @property
    def space(self):
        return self.supernet.space

    def archs(self, count: int | None = None) -> list[Arch]:
        """All corners (depth, kernel, expand ratio, width) and random ones; `count` of these."""
        space, rng = self.space, np.random.default_rng(0)
        fields = ("depths", "kernel_sizes", "expand_ratios", "widths")
        ends = [
            sorted({choices[:1], choices[-1:]}) for choices in map(space.__getattribute__, fields)
        ]
        corners = []
        for chosen in itertools.product(*ends):
            kept = {field: choice for field, choice in zip(fields, chosen, strict=True) if choice}
            corners.append(space.restrict(**kept).max())
        archs = [*corners, *(space.sample(rng) for _ in range(NUM_RANDOM))]
        sides = RESOLUTIONS.get(space.name, DEFAULT_RESOLUTIONS)
        archs = [
            dataclasses.replace(arch, resolution=sides[i % len(sides)])
            for i, arch in enumerate(archs)
        ]
        # From both kinds.
        return archs if count is None else archs[:: max(1, len(archs) // count)]


def choose(network, arch: Arch) -> None:
    """Activates an arch in the reference's network; what it switches off is left as it is."""
    network.set_active_subnet(
        ks=[kernel or None for kernel in arch.kernel_sizes],
        e=[ratio or None for ratio in arch.expand_ratios],
        d=list(arch.depths),
        w=list(arch.widths) or None,
    )


def draw_images(arch: Arch, seed: int) -> np.ndarray:
    return make_images(arch.resolution, BATCH, seed)


def spread(logits: np.ndarray) -> float:
    return min(deviation(a, b) for i, a in enumerate(logits) for b in logits[:i])


@pytest.fixture(scope="module", params=PUBLISHED_SPACES)
def pair(request, tmp_path_factory) -> Pair:
    network = reference_network(request.param)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # no two libraries drop the same
    path = tmp_path_factory.mktemp("reference") / "network.pth"
    torch.save({"state_dict": network.state_dict()}, path)
    supernet = Supernet(get_space(request.param))
    load_checkpoint(supernet, path)
    return Pair(supernet, network)


def test_number_of_parameters(pair, record_property):
    ours = sum(int(np.prod(v.shape)) for v in pair.supernet.trainable_variables)
    theirs = sum(p.numel() for p in pair.network.parameters() if p.requires_grad)
    record_property("parameters", ours)
    assert ours == theirs
    if pair.space.name == "ofa_mbv3_w1.0":
        assert ours == 7_678_880


def test_logits(pair, record_property):
    worst = 0.0
    for seed, arch in enumerate(pair.archs()):
        images = draw_images(arch, seed)
        choose(pair.network, arch)
        expected = run_reference(pair.network, images)
        assert spread(expected) > BLIND
        worst = max(worst, deviation(pair.supernet(images, arch), expected))
    record_property("worst", worst)
    assert worst < 1e-4


def test_cut_out_subnets(pair, record_property):
    """The plain Keras network against the reference's own cut-out network."""
    worst = 0.0
    for seed, arch in enumerate(pair.archs(8)):
        images = draw_images(arch, seed)
        choose(pair.network, arch)
        subnet = pair.network.get_active_subnet(preserve_weight=True).eval()
        expected = run_reference(subnet, images)
        model = pair.supernet.subnet(arch)
        worst = max(worst, deviation(model(images), expected))
        state = subnet.state_dict()
        for tensor in tensors(pair.space.blueprint(arch)):
            layer = model.get_layer(f"{tensor.block}_{tensor.layer}")
            ours = tensor.layout.to_torch(getattr(layer, tensor.variable).numpy())
            assert deviation(ours, state[tensor.key].numpy()) < 1e-6, tensor.key
    record_property("worst", worst)
    assert worst < 1e-4


class TrainingStep:
    """Loss and gradients of a supernet, from one graph for all archs and resolutions."""

    def __init__(self, supernet: Supernet, dtype: str, **mode):
        self.supernet, self.mode = supernet, mode
        images = tf.TensorSpec([None, None, None, 3], dtype)
        sizes = tf.TensorSpec(supernet.space.sizes_shape, tf.int32)
        self.run = tf.function(self._run, [images, sizes, tf.TensorSpec([None], tf.int32)])

    def _run(self, images, sizes, labels):
        with tf.GradientTape() as tape:
            logits = self.supernet(images, sizes, **self.mode)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        variables = [variable.value for variable in self.supernet.trainable_variables]
        return loss, tape.gradient(loss, variables, unconnected_gradients="zero")

    def __call__(self, arch: Arch, images, labels) -> tuple[float, dict[str, np.ndarray]]:
        """The loss, and the gradients by the reference's keys, in its layout."""
        loss, gradients = self.run(images, self.supernet.space.sizes(arch), labels)
        variables = self.supernet.trainable_variables
        by_id = {id(v): g.numpy() for v, g in zip(variables, gradients, strict=True)}
        found = {
            weight.tensor.elastic_key: weight.tensor.layout.to_torch(by_id[id(weight.variable)])
            for weight in supernet_weights(self.supernet)
            if id(weight.variable) in by_id
        }
        return float(loss), found


def reference_step(network, arch: Arch, images, labels) -> tuple[float, dict[str, np.ndarray]]:
    """The same of the reference; its moving statistics move."""
    choose(network, arch)
    network.train().zero_grad()
    logits = network(torch.tensor(images.transpose(0, 3, 1, 2)))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels).long())
    loss.backward()
    network.eval()
    gradients = {
        name: np.zeros(weight.shape) if weight.grad is None else weight.grad.numpy()
        for name, weight in network.named_parameters()
    }
    return float(loss), gradients


def relative_errors(actual: dict, expected: dict) -> dict[str, float]:
    """The error of each weight's gradient as a part of its norm, and of all together ("all").

    A weight whose effect the next batch norm takes away has no gradient but rounding: a millionth
    of the largest norm counts as nothing.
    """
    assert actual.keys() == expected.keys()
    norms = {name: np.linalg.norm(gradient) for name, gradient in expected.items()}
    nothing = 1e-6 * max(norms.values())
    errors = {name: np.linalg.norm(actual[name] - expected[name]) for name in expected}
    together = np.linalg.norm(list(errors.values())) / np.linalg.norm(list(norms.values()))
    # Plain numbers: what a test records has to pass from one process to another.
    return {n: float(errors[n] / max(norms[n], nothing)) for n in errors} | {"all": float(together)}


def draw_labels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, BATCH).astype(np.int32)


def test_training(pair, record_property):
    """Loss and moving statistics after a step on a batch, and the gradient as a whole."""
    step = TrainingStep(pair.supernet, "float32", training=True, dropout_scale=0.0)
    kept = {key: value.clone() for key, value in pair.network.state_dict().items()}
    worst = dict.fromkeys(("loss", "whole gradient", "statistics"), 0.0)
    for seed, arch in enumerate(pair.archs()):
        images, labels = draw_images(arch, seed), draw_labels(seed)
        expected, theirs = reference_step(pair.network, arch, images, labels)
        with pair.supernet.kept_statistics():
            loss, ours = step(arch, images, labels)
            found = {
                "loss": deviation(loss, expected),
                "whole gradient": relative_errors(ours, theirs)["all"],
                "statistics": statistics_deviation(pair),
            }
        worst = {name: max(value, found[name]) for name, value in worst.items()}
        pair.network.load_state_dict(kept)
    for name, value in worst.items():
        record_property(f"worst {name}", value)
    assert worst["loss"] < 1e-4
    # Loose because of kinks, see test_gradient_of_every_weight.
    assert worst["whole gradient"] < 5e-2
    assert worst["statistics"] < 1e-4
    assert step.run.experimental_get_tracing_count() == 1


def _double_batch_norm(x, scale, offset, *, epsilon, is_training):
    """What TensorFlow's fused op computes in training, which it has in float32 only."""
    assert is_training
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    outputs = (x - mean) * tf.math.rsqrt(variance + epsilon) * scale + offset
    return outputs, tf.cast(mean, tf.float32), tf.cast(variance, tf.float32)


def test_gradient_of_every_weight(pair, record_property, monkeypatch):
    """In double precision: in float32 activations that round to either side of a kink show."""
    monkeypatch.setattr(tf.compat.v1.nn, "fused_batch_norm", _double_batch_norm)
    monkeypatch.setattr("ofa_tf.models.supernet.DTYPES", ("float64",))
    supernet = Supernet(pair.space, dtype="float64")
    for ours, theirs in zip(supernet.variables, pair.supernet.variables, strict=True):
        ours.assign(theirs.numpy().astype(np.float64))
    network = copy.deepcopy(pair.network).double()
    step = TrainingStep(supernet, "float64", bn_update=KEEP_STATISTICS)
    worst = 0.0
    for seed, arch in enumerate(pair.archs()):
        images, labels = draw_images(arch, seed)[:2].astype(np.float64), draw_labels(seed)[:2]
        expected, theirs = reference_step(network, arch, images, labels)
        loss, ours = step(arch, images, labels)
        assert deviation(loss, expected) < 1e-6
        worst = max(worst, *relative_errors(ours, theirs).values())
    record_property("worst", worst)
    assert worst < 1e-5


def statistics_deviation(pair: Pair) -> float:
    """The worst of all moving statistics."""
    buffers = dict(pair.network.named_buffers())
    return max(
        deviation(weight.variable.numpy(), buffers[weight.tensor.elastic_key].numpy())
        for weight in supernet_weights(pair.supernet)
        if weight.tensor.elastic_key in buffers
    )


def test_recalibrated_statistics(pair, record_property):
    """The mean over batches of each batch's own statistics."""
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

    kept = {key: value.clone() for key, value in pair.network.state_dict().items()}
    worst = 0.0
    for arch in pair.archs(8):
        batches = [draw_images(arch, seed) for seed in range(3)]
        choose(pair.network, arch)
        loader = [(torch.tensor(images.transpose(0, 3, 1, 2)), None) for images in batches]
        set_running_statistics(pair.network.eval(), loader)
        with pair.supernet.kept_statistics():
            for index, images in enumerate(batches):
                pair.supernet(images, arch, bn_update=(float(index > 0), 1 / len(batches)))
            worst = max(worst, statistics_deviation(pair))
        pair.network.load_state_dict(kept)
    record_property("worst", worst)
    assert worst < 1e-4


def test_sorting(pair, record_property):
    """Before each phase of elastic expand: the same order as the reference's, so equal subnets.

    The reference's stages count the expand ratios that were trained beyond the largest. Both
    stages follow one another here, as each begins where the one before it ended.
    """
    space, worst = pair.space, 0.0
    kept = {key: value.clone() for key, value in pair.network.state_dict().items()}
    ours = [variable.numpy() for variable in pair.supernet.variables]
    widest = {"widths": space.widths[-1:]} if space.widths else {}
    for stage in range(len(space.expand_ratios)):
        trained = space.restrict(expand_ratios=space.expand_ratios[-1 - stage :], **widest)
        # The reference keeps bands apart by adding 1e5 to norms, which costs float32 their digits.
        pair.network.double().re_organize_middle_weights(expand_ratio_stage=stage)
        pair.network.float()
        sort_channels(pair.supernet, trained)
        for seed, arch in enumerate(pair.archs(12)):
            images = draw_images(arch, seed)
            choose(pair.network, arch)
            expected = run_reference(pair.network, images)
            worst = max(worst, deviation(pair.supernet(images, arch), expected))
    pair.network.load_state_dict(kept)
    changed = 0
    for variable, value in zip(pair.supernet.variables, ours, strict=True):
        changed += not np.array_equal(variable.numpy(), value)
        variable.assign(value)
    record_property("worst", worst)
    assert worst < 1e-4
    assert changed > 100
