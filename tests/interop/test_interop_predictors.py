"""Published accuracy predictors: their inputs, what is refused, and the reference's numbers."""

import random

import numpy as np
import pytest
from interop_helpers import published, stub_torchvision

from ofa_tf.errors import UsageError
from ofa_tf.search import AccuracyPredictor
from ofa_tf.spaces import Arch, get_space

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.reference

W12, W10, RESNET50 = map(get_space, ("ofa_mbv3_w1.2", "ofa_mbv3_w1.0", "ofa_resnet50"))
STEPS = (160, 176, 192, 208, 224)


def tutorial_state(seed=0, inputs=128, hidden=(20, 12)) -> dict:
    """Random weights under the keys of acc_predictor.pth."""
    generator = torch.Generator().manual_seed(seed)
    widths = (inputs, *hidden, 1)
    state = {}
    for index, shape in enumerate(zip(widths[1:], widths, strict=False)):
        state[f"{2 * index}.weight"] = torch.randn(shape, generator=generator)
        state[f"{2 * index}.bias"] = torch.randn(shape[:1], generator=generator)
    return state


def class_state(seed=0, inputs=82, hidden=(20, 12)) -> dict:
    """Random weights under the keys of the ResNet50 predictor."""
    state = {}
    for key, value in tutorial_state(seed, inputs, hidden).items():
        number, _, what = key.partition(".")
        layer = int(number) // 2
        if layer < len(hidden):
            state[f"layers.{layer}.0.{what}"] = value
        else:
            state["base_acc" if what == "bias" else f"layers.{layer}.weight"] = value
    return state


def saved(folder, state):
    path = folder / "predictor.pth"
    torch.save(state, path)
    return path


def first_hidden(path, space, arch) -> np.ndarray:
    """What reaches the first layer's ReLU."""
    predictor = AccuracyPredictor.load(path, space)
    kernel, bias = predictor.members[0][0]
    return predictor.space.one_hot(predictor.space.encode([arch]))[0] @ kernel + bias


def column_sum(state, key, columns) -> np.ndarray:
    weight, bias = (state[f"{key}.{what}"].numpy() for what in ("weight", "bias"))
    return weight[:, columns].sum(axis=1) + bias


def test_the_tutorials_inputs_by_hand(tmp_path):
    """Kernel 3, 5, 7 of each position, expand 3, 4, 6 of each, resolution from 112 in steps."""
    state = tutorial_state()
    kernels, expands = [3, 5] * 10, [6, 6, 4, 3] * 5
    arch = Arch.from_dict({"ks": kernels, "e": expands, "d": [4, 2, 3, 4, 2], "r": 192})
    columns = [120 + 5]
    for position in range(20):
        if position % 4 < arch.depths[position // 4]:
            columns.append(3 * position + (3, 5, 7).index(kernels[position]))
            columns.append(60 + 3 * position + (3, 4, 6).index(expands[position]))
    found = first_hidden(saved(tmp_path, state), None, arch)
    np.testing.assert_allclose(found, column_sum(state, "0", columns), rtol=1e-5, atol=1e-5)


def test_the_resnet_predictors_inputs_by_hand(tmp_path):
    """Resolution, stem flag (0: skipped), widths, expand ratios of each position."""
    state = class_state()
    widths, depths = [0, 2, 1, 1, 0, 2], [2, 0, 1, 2, 0]
    expands = [0.2, 0.35, 0.25] * 6
    arch = Arch.from_dict({"e": expands, "d": depths, "w": widths, "r": 176})
    columns = [3, 8 + 1] + [10 + 3 * place + width for place, width in enumerate(widths)]
    starts, blocks = (0, 4, 8, 14), (2, 3, 6, 2)
    for start, count in zip(starts, blocks, strict=True):
        for position in range(start, start + count):
            columns.append(28 + 3 * position + (0.2, 0.25, 0.35).index(expands[position]))
    found = first_hidden(saved(tmp_path, state), None, arch)
    np.testing.assert_allclose(found, column_sum(state, "layers.0.0", columns), atol=1e-5)


def test_the_space_is_where_the_predictor_was_trained(tmp_path):
    path = saved(tmp_path, tutorial_state())
    predictor = AccuracyPredictor.load(path)
    assert predictor.space == W12.restrict(resolutions=STEPS)
    assert predictor.report == {"source": "published file predictor.pth"}
    with pytest.raises(UsageError, match="is one of"):
        predictor.space.encode([Arch(**{**vars(W12.max()), "resolution": 196})])
    resnet = AccuracyPredictor.load(saved(tmp_path, class_state()))
    assert resnet.space == RESNET50.restrict(resolutions=(128, 144, 160, 176, 192, 224))
    given = RESNET50.restrict(resolutions=(144, 208))
    only = AccuracyPredictor.load(saved(tmp_path, class_state()), given)
    assert only.space.resolutions == (144,)
    with pytest.raises(UsageError, match=r"knows the resolutions \[128, .*, none of \[208\]"):
        AccuracyPredictor.load(
            saved(tmp_path, class_state()), RESNET50.restrict(resolutions=(208,))
        )


@pytest.mark.parametrize("space", [W12, W10], ids=lambda space: space.name)
def test_a_given_space_is_answered_for_as_the_reference_does(tmp_path, space):
    """Resolutions between the steps count as the next lower step."""
    predictor = AccuracyPredictor.load(saved(tmp_path, tutorial_state()), space)
    assert predictor.space == space
    arch = vars(space.max())
    codes = space.encode(Arch(**{**arch, "resolution": side}) for side in (176, 180, 188, 192))
    at_176, at_180, at_188, at_192 = predictor(codes)
    assert at_176 == at_180 == at_188 != at_192


@pytest.mark.parametrize(
    ("inputs", "space", "resolutions"),
    [
        (121, "ofa_mbv3_w1.2", (224,)),
        (124, "ofa_mbv3_w1.2", (160, 192, 224)),
        (127, "ofa_proxyless_w1.3", (224,)),
        (130, "ofa_proxyless_w1.3", (128, 160, 192, 224)),
        (78, "ofa_resnet50", (128, 160, 192, 224)),
    ],
)
def test_the_number_of_inputs_tells_the_resolutions(tmp_path, inputs, space, resolutions):
    predictor = AccuracyPredictor.load(saved(tmp_path, class_state(inputs=inputs)))
    assert (predictor.space.name, predictor.space.resolutions) == (space, resolutions)


def test_wrapped_in_a_state_dict_it_is_the_same(tmp_path):
    codes = RESNET50.restrict(resolutions=(128, 224)).sample_codes(9, np.random.default_rng(0))
    bare = AccuracyPredictor.load(saved(tmp_path, class_state()))(codes)
    wrapped = AccuracyPredictor.load(saved(tmp_path, {"state_dict": class_state()}))(codes)
    np.testing.assert_array_equal(wrapped, bare)


# -- what is refused -----------------------------------------------------------------------------


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (without(tutorial_state(), "2.bias"), "missing: 2.bias"),
        (tutorial_state() | {"extra": torch.ones(1)}, "surplus: extra"),
        (
            without(tutorial_state(), "0.bias") | {"7.weight": torch.ones(1)},
            "missing: 0.bias, 6.bias, 6.weight; surplus: 7.weight",
        ),
        (tutorial_state() | {"2.weight": torch.ones(12, 19)}, "misshapen: 2.weight (12, 19)"),
        (tutorial_state() | {"0.bias": torch.ones(19)}, "0.weight (20, 128), 0.bias (19,)"),
        (tutorial_state() | {"0.bias": torch.tensor(1.0)}, "misshapen: 0.weight"),
        (tutorial_state() | {"4.weight": torch.ones(2, 12)}, "misshapen: 4.weight (2, 12)"),
        (tutorial_state(inputs=127), "has 127 inputs; for ofa_mbv3_w1.2 it would have 128"),
        (tutorial_state() | {"4.bias": torch.tensor([float("nan")])}, "not all of its numbers"),
        (without(class_state(), "base_acc"), "missing: base_acc"),
        (without(class_state(), "layers.1.0.weight"), "missing: layers.1.0.weight"),
        (class_state() | {"layers.2.bias": torch.ones(1)}, "surplus: layers.2.bias"),
        (class_state(inputs=83), "has 83 inputs, and which resolutions they stand for"),
        (class_state(inputs=83), "82 (ofa_resnet50 at 8 resolutions)"),
        ({"state_dict": 3}, "holds values that are no tensors"),
        ([1, 2], "holds no tensors by name"),
    ],
)
def test_another_file_is_refused_and_the_reason_told(tmp_path, state, said):
    path = saved(tmp_path, state)
    with pytest.raises(UsageError, match=r"predictor\.pth") as error:
        AccuracyPredictor.load(path)
    assert said in str(error.value)


def test_another_space_is_refused(tmp_path):
    for space in (RESNET50, get_space("ofa_mbv3_tiny")):
        with pytest.raises(UsageError, match=f"has 128 inputs; for {space.name} it would have"):
            AccuracyPredictor.load(saved(tmp_path, tutorial_state()), space)
    with pytest.raises(UsageError, match=r"has 82 inputs, .*known are 121 "):
        AccuracyPredictor.load(saved(tmp_path, class_state()), W10)


class Anything:
    """What no weights file needs."""


def test_nothing_but_tensors_is_unpickled(tmp_path):
    path = saved(tmp_path, tutorial_state() | {"object": Anything()})
    with pytest.raises(UsageError, match=r"predictor\.pth is damaged, or no PyTorch file"):
        AccuracyPredictor.load(path)
    with pytest.raises(UsageError, match=r"none\.pth"):
        AccuracyPredictor.load(tmp_path / "none.pth")


# -- the reference -------------------------------------------------------------------------------


def worst_deviation(found, expected) -> float:
    return float(np.max(np.abs(np.asarray(found) / np.asarray(expected) - 1)))


def test_the_published_predictor_is_the_references(record_property):
    pytest.importorskip("ofa")
    stub_torchvision()
    from ofa.tutorial.accuracy_predictor import AccuracyPredictor as Reference

    path = published() / "acc_predictor.pth"
    reference = Reference(pretrained=False, device="cpu")
    reference.model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    ours = AccuracyPredictor.load(path)
    assert ours.space.resolutions == STEPS
    codes = ours.space.sample_codes(1000, np.random.default_rng(0))
    expected = [
        float(reference.predict_accuracy([choices | {"r": [choices["r"]]}])[0, 0])
        for choices in (arch.to_dict() for arch in ours.space.decode(codes))
    ]
    assert np.ptp(expected) > 0.02
    worst = worst_deviation(ours(codes), expected)
    record_property("worst_relative_deviation", worst)
    assert worst < 1e-5


@pytest.mark.parametrize("kind", ["resnet50", "mobilenet", "proxyless"])
def test_the_later_class_is_the_references(kind, tmp_path, record_property):
    pytest.importorskip("ofa")
    stub_torchvision()
    from ofa.nas import accuracy_predictor

    if kind == "resnet50":
        sides = [128, 144, 160, 176, 192, 224, 240, 256]
        encoder = accuracy_predictor.ResNetArchEncoder(image_size_list=sides)
    else:
        encoder = accuracy_predictor.MobileNetArchEncoder(image_size_list=[128, 160, 192, 224])
        if kind == "proxyless":
            proxyless = type("Proxyless", (type(encoder),), {"SPACE_TYPE": "mbv2"})
            encoder = proxyless(image_size_list=[128, 160, 192, 224])
    torch.manual_seed(0)
    reference = accuracy_predictor.AccuracyPredictor(encoder, device="cpu")
    reference.base_acc.data = torch.rand(1) + 0.5
    ours = AccuracyPredictor.load(saved(tmp_path, reference.state_dict()))
    random.seed(0)
    drawn = []
    while len(drawn) < 1000:
        choices = encoder.random_sample_arch()
        if kind == "proxyless":
            choices["d"][-1] = 1
        if choices["image_size"] in ours.space.resolutions:
            drawn.append(choices)
    with torch.no_grad():
        expected = [float(reference.predict_acc([choices])) for choices in drawn]
    assert np.ptp(expected) > 1e-3
    worst = worst_deviation(ours(ours.space.encode(drawn)), expected)
    record_property("worst_relative_deviation", worst)
    assert worst < 1e-5
