"""Checkpoints and net.config against the reference: what either writes, the other reads."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ofa")

import interop_helpers as helpers  # noqa: E402

from ofa_tf import interop  # noqa: E402
from ofa_tf.models import Supernet  # noqa: E402
from ofa_tf.spaces import get_space  # noqa: E402

pytestmark = pytest.mark.reference

NUM_CLASSES = 7


@pytest.fixture(scope="module", autouse=True)
def reference():
    helpers.stub_torchvision()


def build_from_config(config: dict) -> torch.nn.Module:
    """The reference's network of a config, with its default weights."""
    from ofa.imagenet_classification.networks import get_net_by_name

    config = copy.deepcopy(config)  # it takes the keys out
    return get_net_by_name(config["name"]).build_from_config(config).eval()


def shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def own_load(network: torch.nn.Module, state: dict) -> None:
    """By the reference's own method, which renames keys."""
    network.load_state_dict(state)


def strict_load(network: torch.nn.Module, state: dict) -> None:
    torch.nn.Module.load_state_dict(network, state, strict=True)


# -- supernets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", helpers.PUBLISHED_SPACES)
def test_published_supernet_there_and_back(name, tmp_path):
    """Every tensor of the reference comes back as it was, through our supernet."""
    network = helpers.reference_network(name)
    supernet = Supernet(get_space(name))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "theirs.pth")
    interop.load_checkpoint(supernet, tmp_path / "theirs.pth")
    interop.save_checkpoint(supernet, tmp_path / "ours.pth")
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)["state_dict"]
    theirs = network.state_dict()
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(ours[key], value), key
    for load in (own_load, strict_load):
        with torch.no_grad():
            for value in network.state_dict().values():
                value.zero_()
        load(network, ours)
        assert all(torch.equal(value, ours[key]) for key, value in network.state_dict().items())


def old_spelling(key: str) -> str:
    """As the published files have it: a network without the wrappers of elastic layers."""
    if key.startswith("blocks."):
        block, number, rest = key.split(".", 2)
        key = f"{block}.{number}.{rest.replace('conv.', 'mobile_inverted_conv.', 1)}"
    key = key.replace(".bn.bn.", ".bn.").replace(".linear.linear.", ".linear.")
    return key.replace(".conv.conv.weight", ".conv.weight")


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", "ofa_proxyless_w1.3"])
def test_old_spelling_means_the_same_in_both(name, tmp_path):
    space = helpers.small_space(name)
    network = helpers.reference_network(space, NUM_CLASSES, seed=3)
    expected = {key: value.clone() for key, value in network.state_dict().items()}
    state = {old_spelling(key): value for key, value in expected.items()}
    assert not set(state) & {key for key in expected if key.startswith("blocks.")}
    helpers.randomize(network, 32, seed=4)
    if name == "ofa_mbv3_w1.0":  # the other class does not know all of the spellings
        own_load(network, state)
        assert all(torch.equal(v, expected[k]) for k, v in network.state_dict().items())

    torch.save(state, tmp_path / "old.pth")
    torch.save(expected, tmp_path / "new.pth")
    old, new = Supernet(space, NUM_CLASSES), Supernet(space, NUM_CLASSES)
    interop.load_checkpoint(old, tmp_path / "old.pth")
    interop.load_checkpoint(new, tmp_path / "new.pth")
    for ours, theirs in zip(old.variables, new.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


# -- net.config ------------------------------------------------------------------------------------


def check_same_network(config: dict, other: dict, resolution: int) -> None:
    """The reference's networks of both configs have the same tensors, and outputs from them."""
    network, twin = build_from_config(config), build_from_config(other)
    assert shapes(network) == shapes(twin)
    assert network.get_bn_param() == twin.get_bn_param()
    helpers.randomize(network, resolution)
    strict_load(twin, network.state_dict())
    images = helpers.make_images(resolution, 2)
    outputs = helpers.run_reference(network, images)
    assert helpers.deviation(*outputs) > 1e-2
    np.testing.assert_array_equal(helpers.run_reference(twin, images), outputs)


def test_published_networks_mean_the_same_when_written_back():
    networks = sorted((helpers.published() / "specialized").iterdir())
    assert len(networks) == 25
    for index, network in enumerate(networks):
        config = json.loads((network / "net.config").read_text())
        plan = interop.read_net_config(network / "net.config")
        written = interop.to_net_config(plan)
        ours, theirs = build_from_config(written), build_from_config(config)
        assert shapes(ours) == shapes(theirs)
        assert ours.module_str == theirs.module_str  # strides, activations, shortcuts
        assert plan.params == sum(p.numel() for p in theirs.parameters())
        if index % 8 == 0:
            check_same_network(config, written, 96)


@pytest.mark.parametrize(
    "net_id",
    ["note10_lat-8ms_top1-71.4_finetune-25", "1080ti_gpu64-12ms_top1-72.6_finetune-25"],
)
def test_published_network_computes_the_same(net_id, tmp_path, record_property):
    """From the published config and a file of the reference's weights to a plain Keras model."""
    config = helpers.published() / "specialized" / net_id / "net.config"
    network = build_from_config(json.loads(config.read_text()))
    resolution = interop.read_net_config(config).resolution
    helpers.randomize(network, resolution)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "init")
    model = interop.load_specialized(config, tmp_path / "init")
    images = helpers.make_images(resolution)
    expected = helpers.run_reference(network, images)
    worst = helpers.deviation(model(images), expected)
    record_property("worst", worst)
    assert helpers.deviation(expected[1], expected[0]) > 1e-2
    assert worst < 1e-4


def made_by_the_reference() -> dict[str, torch.nn.Module]:
    from ofa.imagenet_classification import networks
    from ofa.imagenet_classification.networks.proxyless_nets import MobileNetV2

    return {
        "MobileNetV3Large": networks.MobileNetV3Large(n_classes=NUM_CLASSES, width_mult=0.5),
        "MobileNetV2": MobileNetV2(n_classes=NUM_CLASSES, width_mult=0.5),
        "ResNet50": networks.ResNet50(n_classes=NUM_CLASSES, width_mult=0.25),
        "ResNet50D": networks.ResNet50D(n_classes=NUM_CLASSES, width_mult=0.25),
    }


@pytest.mark.parametrize("name", ["MobileNetV3Large", "MobileNetV2", "ResNet50", "ResNet50D"])
def test_networks_of_other_kinds_compute_the_same(name, tmp_path, record_property):
    """Configs and weights that the reference writes, straight to plain Keras models."""
    resolution = 68  # odd on its way: 34, 17, 9, 5, 3
    network = made_by_the_reference()[name]
    helpers.randomize(network, resolution)
    (tmp_path / "net.config").write_text(json.dumps(network.config))
    (tmp_path / "run.config").write_text(json.dumps({"image_size": resolution}))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "init")

    plan = interop.read_net_config(tmp_path / "net.config")
    assert plan.params == sum(p.numel() for p in network.parameters())
    model = interop.load_specialized(tmp_path / "net.config", tmp_path / "init")
    images = helpers.make_images(resolution)
    expected = helpers.run_reference(network, images)
    worst = helpers.deviation(model(images), expected)
    record_property("worst", worst)
    assert helpers.deviation(expected[1], expected[0]) > 1e-2
    assert worst < 1e-4
    check_same_network(network.config, interop.to_net_config(plan), resolution)


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", "ofa_proxyless_w1.3", "ofa_resnet50"])
def test_subnets_that_the_reference_cuts_out(name, tmp_path, record_property):
    """Its config of a random subnet is our plan of it, and its weights give its outputs."""
    space = helpers.small_space(name)
    network = helpers.reference_network(space, NUM_CLASSES)
    rng, worst = np.random.default_rng(0), 0.0
    for arch in (space.max(), space.min(), space.sample(rng), space.sample(rng)):
        network.set_active_subnet(
            ks=[kernel or 3 for kernel in arch.kernel_sizes],
            e=[ratio or space.expand_ratios[0] for ratio in arch.expand_ratios],
            d=list(arch.depths),
            w=list(arch.widths) or None,
        )
        subnet = network.get_active_subnet().eval()
        (tmp_path / "net.config").write_text(json.dumps(subnet.config))
        (tmp_path / "run.config").write_text(json.dumps({"image_size": arch.resolution}))
        torch.save({"state_dict": subnet.state_dict()}, tmp_path / "init")
        plan = interop.read_net_config(tmp_path / "net.config")
        drawn = space.blueprint(arch, NUM_CLASSES)
        assert [block.key for block in plan.blocks] == [block.key for block in drawn.blocks]
        assert (plan.bn_momentum, plan.bn_epsilon) == (drawn.bn_momentum, drawn.bn_epsilon)

        model = interop.load_specialized(tmp_path / "net.config", tmp_path / "init")
        images = helpers.make_images(arch.resolution)
        expected = helpers.run_reference(subnet, images)
        worst = max(worst, helpers.deviation(model(images), expected))
    record_property("worst", worst)
    assert worst < 1e-4
