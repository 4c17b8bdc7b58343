"""Checkpoints in the reference's format, without the reference: what is read, what is refused."""

from __future__ import annotations

import argparse
import pickle
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from interop_helpers import make_images  # noqa: E402

from ofa_tf import interop  # noqa: E402
from ofa_tf.errors import FailureError, UsageError  # noqa: E402
from ofa_tf.models import Supernet, build_subnet  # noqa: E402
from ofa_tf.spaces import get_space  # noqa: E402

pytestmark = pytest.mark.reference  # for torch
NUM_CLASSES = 3
TINY_SPACES = ("ofa_mbv3_tiny", "ofa_resnet_tiny")
PROJECTION = "blocks.1.conv.point_linear.conv.conv.weight"


def values(network) -> list[np.ndarray]:
    return [weight.numpy() for weight in network.weights]  # without the seeds of dropout


def scramble(network, seed: int = 0) -> None:
    """Random values everywhere, so that no two variables are alike."""
    rng = np.random.default_rng(seed)
    for variable in network.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A supernet by space, and the file that it was written to."""
    made = {}
    for name in TINY_SPACES:
        supernet = Supernet(get_space(name), NUM_CLASSES)
        scramble(supernet)
        path = tmp_path_factory.mktemp("saved") / f"{name}.pth"
        interop.save_checkpoint(supernet, path)
        made[name] = supernet, path
    return made


@pytest.fixture
def state(saved):
    """The tensors of the MobileNetV3's file, to be changed."""
    return torch.load(saved["ofa_mbv3_tiny"][1], weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def target():
    """A supernet that files are read into."""
    return Supernet(get_space("ofa_mbv3_tiny"), NUM_CLASSES)


def check_equal(network, other) -> None:
    for ours, theirs in zip(values(network), values(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def check_refused(supernet, path, *told) -> None:
    """The file is refused with a message that has all the parts, and nothing has changed."""
    before = values(supernet)
    with pytest.raises(UsageError) as caught:
        interop.load_checkpoint(supernet, path)
    for part in told:
        assert part in str(caught.value)
    for now, then in zip(values(supernet), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("name", TINY_SPACES)
def test_supernet_survives_the_file(name, saved):
    """Every variable: statistics and kernel transforms too."""
    supernet, path = saved[name]
    other = Supernet(get_space(name), NUM_CLASSES)
    scramble(other, seed=1)
    interop.load_checkpoint(other, path)
    check_equal(other, supernet)


def test_file_has_the_keys_and_shapes_of_the_reference(state):
    plan = get_space("ofa_mbv3_tiny").blueprint(get_space("ofa_mbv3_tiny").max(), NUM_CLASSES)
    block = next(b for b in plan.elastic_blocks if b.se_channels)
    path = f"blocks.{block.position + 1}.conv"
    mid, se = block.mid_channels, block.se_channels
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes[f"{path}.inverted_bottleneck.conv.conv.weight"] == (mid, block.in_channels, 1, 1)
    assert shapes[f"{path}.inverted_bottleneck.bn.bn.running_var"] == (mid,)
    assert shapes[f"{path}.inverted_bottleneck.bn.bn.num_batches_tracked"] == ()
    assert shapes[f"{path}.depth_conv.conv.conv.weight"] == (mid, 1, 7, 7)
    assert shapes[f"{path}.depth_conv.conv.7to5_matrix"] == (25, 25)
    assert shapes[f"{path}.depth_conv.conv.5to3_matrix"] == (9, 9)
    assert shapes[f"{path}.depth_conv.se.fc.reduce.weight"] == (se, mid, 1, 1)
    assert shapes[f"{path}.depth_conv.se.fc.expand.bias"] == (mid,)
    assert shapes[f"{path}.point_linear.conv.conv.weight"] == (block.out_channels, mid, 1, 1)
    # What is not elastic is spelled without the repetition.
    assert shapes["first_conv.conv.weight"][1:] == (3, 3, 3)
    assert "blocks.0.conv.depth_conv.bn.weight" in shapes
    assert "final_expand_layer.bn.weight" in shapes
    assert "feature_mix_layer.bn.weight" not in shapes
    assert shapes["classifier.linear.weight"] == (NUM_CLASSES, plan.blocks[-1].in_channels)
    assert state["first_conv.bn.num_batches_tracked"].dtype == torch.int64


def test_layouts(state, saved):
    """Each kind of weight, element by element."""
    supernet = saved["ofa_mbv3_tiny"][0]
    stem = supernet.blocks[0].named_layers["conv"].kernel.numpy()
    assert state["first_conv.conv.weight"][5, 2, 0, 1] == stem[0, 1, 2, 5]
    dense = supernet.blocks[-1].named_layers["dense"].kernel.numpy()
    assert state["classifier.linear.weight"][2, 7] == dense[7, 2]
    depthwise = supernet.blocks[2].named_layers["depthwise_conv"]
    path = "blocks.1.conv.depth_conv.conv"
    assert state[f"{path}.conv.weight"][6, 0, 1, 4] == depthwise.kernel.numpy()[1, 4, 6]
    assert state[f"{path}.7to5_matrix"][3, 20] == depthwise.transforms[5].numpy()[20, 3]


@pytest.mark.parametrize(
    "respell",
    [
        lambda key: f"module.{key}",
        lambda key: key.replace(".conv.point", ".mobile_inverted_conv.point"),
        lambda key: key.replace(".bn.bn.", ".bn."),
        lambda key: key.replace(".conv.conv.weight", ".conv.weight"),
        lambda key: key.replace(".linear.", ".linear.linear."),
        lambda key: key.replace(".bn.bn.", ".bn.").replace("bn.", "bn.bn."),
    ],
)
def test_spellings(respell, state, saved, target, tmp_path):
    respelled = {respell(key): value for key, value in state.items()}
    assert set(respelled) != set(state)
    torch.save(respelled, tmp_path / "bare.pth")
    scramble(target, seed=2)
    interop.load_checkpoint(target, tmp_path / "bare.pth")
    check_equal(target, saved["ofa_mbv3_tiny"][0])


def test_half_precision_is_read(state, target, tmp_path):
    low = {
        key: value.bfloat16() if value.is_floating_point() else value
        for key, value in state.items()
    }
    torch.save({"state_dict": low}, tmp_path / "low.pth")
    interop.load_checkpoint(target, tmp_path / "low.pth")
    kernel = target.blocks[2].named_layers["project_conv"].kernel.numpy()
    np.testing.assert_array_equal(kernel[0, 0].T, low[PROJECTION].float().numpy()[:, :, 0, 0])


# -- what is refused -------------------------------------------------------------------------------


def test_missing_tensors_are_listed(state, target, tmp_path):
    gone = [key for key in state if key.startswith("blocks.2.")]
    torch.save({k: v for k, v in state.items() if k not in gone}, tmp_path / "a.pth")
    count = sum("num_batches_tracked" not in key for key in gone)
    first = f"missing from the file ({count}): blocks.2.conv.inverted_bottleneck.conv.weight"
    told = "a.pth", "ofa_mbv3_tiny", first, f"and {count - 10} more"
    check_refused(target, tmp_path / "a.pth", *told)


def test_surplus_tensors_are_listed(state, target, tmp_path):
    state["blocks.9.conv.extra"] = torch.zeros(3)
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    check_refused(target, tmp_path / "a.pth", "surplus in the file (1): blocks.9.conv.extra")


def test_shapes_are_compared(state, target, tmp_path):
    shape = tuple(state[PROJECTION].shape)
    state[PROJECTION] = state[PROJECTION][:, :-1]
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    smaller = (shape[0], shape[1] - 1, 1, 1)
    told = f"of another shape (1): {PROJECTION} {smaller} for {shape}"
    check_refused(target, tmp_path / "a.pth", told)


def test_one_tensor_in_two_spellings_is_refused(state, target, tmp_path):
    other = PROJECTION.replace(".conv.conv.", ".conv.")
    state[other] = state[PROJECTION] + 1
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    check_refused(target, tmp_path / "a.pth", "two spellings", PROJECTION)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value, state, target, tmp_path):
    state[PROJECTION][0, 0] = value
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    check_refused(target, tmp_path / "a.pth", f"not finite (1): {PROJECTION}")


def test_another_number_of_classes_says_what_to_do(saved):
    supernet = Supernet(get_space("ofa_mbv3_tiny"), NUM_CLASSES + 2)
    told = "with 3 classes, this one has 5", "Supernet(space, num_classes=3)"
    check_refused(supernet, saved["ofa_mbv3_tiny"][1], *told)


def test_another_space_is_refused(saved, target):
    check_refused(target, saved["ofa_resnet_tiny"][1], "missing", "surplus", "input_stem.0")


@pytest.mark.parametrize("activation", ["swish", "relu6"])
def test_another_activation_is_another_function(activation, saved, tmp_path):
    """All tensors would fit, and the reference's supernet of that file would compute otherwise."""
    supernet = Supernet(get_space("ofa_mbv3_tiny", activation), NUM_CLASSES)
    told = f"ofa_mbv3_tiny-{activation} has no", "hard-swish", f"with {activation} the same weights"
    check_refused(supernet, saved["ofa_mbv3_tiny"][1], *told)
    with pytest.raises(UsageError, match="no PyTorch checkpoints"):
        interop.save_checkpoint(supernet, tmp_path / "a.pth")
    assert not (tmp_path / "a.pth").exists()


def test_files_that_are_no_checkpoints_are_refused(target, tmp_path):
    path = tmp_path / "a.pth"
    check_refused(target, path, "no PyTorch file", "a.pth")
    check_refused(target, tmp_path, "no PyTorch file")
    for content in (b"", b"hello", b"PK\x03\x04 cut short", pickle.dumps([1, 2])):
        path.write_bytes(content)
        check_refused(target, path, "a.pth", "PyTorch")
    for value in ([1, 2], {}, {"state_dict": {}}, {"epoch": 3, "lr": 0.1}):
        torch.save(value, path)
        check_refused(target, path, "a.pth", "tensors")


def test_objects_are_not_unpickled(state, target, tmp_path):
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=1)}, tmp_path / "a.pth")
    check_refused(target, tmp_path / "a.pth", "a.pth", "unpickled")


def test_missing_torch_says_how_to_install_it(saved, target, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    check_refused(target, saved["ofa_mbv3_tiny"][1], "pip install ofa_tf[torch]")
    with pytest.raises(UsageError, match="pip install"):
        interop.save_checkpoint(target, tmp_path / "b.pth")
    assert not list(tmp_path.iterdir())


def test_unwritable_file_is_told(target, tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(FailureError, match=r"b\.pth"):
        interop.save_checkpoint(target, tmp_path / "folder" / "b.pth")


# -- single networks -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY_SPACES)
def test_specialized_network(name, saved, tmp_path):
    """The largest network's file without kernel transforms is that of a single network."""
    supernet, path = saved[name]
    space = supernet.space
    state = torch.load(path, weights_only=True)["state_dict"]
    state = {key: value for key, value in state.items() if not key.endswith("_matrix")}
    torch.save({"state_dict": state}, tmp_path / "init")
    plan = space.blueprint(space.max(), NUM_CLASSES)
    interop.write_net_config(plan, tmp_path)

    model = interop.load_specialized(tmp_path / "net.config", tmp_path / "init", batch_size=2)
    images = make_images(plan.resolution, 2)
    assert model.input_shape == (2, plan.resolution, plan.resolution, 3)
    np.testing.assert_array_equal(model(images), supernet.subnet(space.max(), batch_size=2)(images))


def test_blocks_that_are_skipped_count_in_the_numbers(saved, tmp_path):
    """A published network has blocks without layers, of which its file has no tensors."""
    supernet, path = saved["ofa_mbv3_tiny"]
    plan = supernet.space.blueprint(supernet.space.max(), NUM_CLASSES)
    state = torch.load(path, weights_only=True)["state_dict"]
    moved = {}
    for key, value in state.items():
        block, _, rest = key.removeprefix("blocks.").partition(".")
        shift = key.startswith("blocks.") and int(block) > 1
        if not key.endswith("_matrix"):
            moved[f"blocks.{int(block) + 2}.{rest}" if shift else key] = value
    torch.save(moved, tmp_path / "init")
    expected, model = supernet.subnet(supernet.space.max()), build_subnet(plan)
    interop.load_weights(model, plan, tmp_path / "init")
    check_equal(model, expected)


def test_specialized_network_of_other_weights_is_refused(saved, tmp_path):
    space = get_space("ofa_mbv3_tiny")
    interop.write_net_config(space.blueprint(space.min(), 7), tmp_path)
    with pytest.raises(UsageError) as caught:
        interop.load_specialized(tmp_path / "net.config", saved["ofa_mbv3_tiny"][1])
    for part in ("of another shape", "surplus", "7to5_matrix", "out_features", "3 classes"):
        assert part in str(caught.value)
