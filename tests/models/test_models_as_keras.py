"""What one may try on a supernet as on any Keras model: it works, or one line says what to do."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from model_helpers import NUM_CLASSES, TINY_SPACES, deviation, make_images, make_supernet

from ofa_tf.errors import UsageError
from ofa_tf.models import Supernet
from ofa_tf.spaces import get_space

TINY = get_space("ofa_mbv3_tiny")


@pytest.fixture(scope="module")
def net() -> Supernet:
    """Of a built-in space: that of the `supernet` fixture is not quite one."""
    return make_supernet(TINY)


def refused(message: str, act, *args, **options) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        act(*args, **options)
    assert "\n" not in str(caught.value)


def assert_copy(other: Supernet, supernet: Supernet) -> None:
    assert (other.space, other.num_classes) == (supernet.space, supernet.num_classes)
    assert (other.elastic, other.dtype_policy.name) == ("mask", "mixed_bfloat16")
    assert other.name == supernet.name == "my_net"
    for ours, theirs in zip(other.variables, supernet.variables, strict=True):
        assert ours is not theirs
        np.testing.assert_array_equal(ours, theirs)


# By pickle and deepcopy one of a space of one's own too.
COPIES = {
    "deepcopy": lambda supernet, folder: copy.deepcopy(supernet),
    "pickle": lambda supernet, folder: pickle.loads(pickle.dumps(supernet)),
    "save": lambda supernet, folder: (
        supernet.save(folder / "supernet.keras"),
        keras.models.load_model(folder / "supernet.keras"),
    )[1],
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("space", [TINY, TINY_SPACES["proxyless"]], ids=["built-in", "own"])
def test_copies(way, space, tmp_path):
    supernet = Supernet(space, 3, elastic="mask", dtype="mixed_bfloat16", name="my net")
    for variable in supernet.variables:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    if (way, space) == ("save", TINY_SPACES["proxyless"]):
        told = "proxyless_tiny is no built-in space.* save_weights"
        refused(told, supernet.save, tmp_path / "supernet.keras")
    else:
        assert_copy(COPIES[way](supernet, tmp_path), supernet)


def test_a_copy_computes_the_same_and_is_its_own(net):
    images, arch = make_images(24, 2, seed=0), net.space.min()
    expected = net(images, arch).numpy()
    other = copy.deepcopy(net)
    np.testing.assert_array_equal(other(images, arch), expected)
    other.blocks[-1].dense.bias.assign_add(np.ones(NUM_CLASSES))
    np.testing.assert_array_equal(net(images, arch), expected)


def test_weights_go_by_a_file_for_all_spaces(tmp_path):
    one, other = (Supernet(TINY_SPACES["proxyless"], 3) for _ in range(2))
    one.save_weights(tmp_path / "net.weights.h5")
    other.load_weights(tmp_path / "net.weights.h5")
    for ours, theirs in zip(other.variables, one.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_config(net, tmp_path, monkeypatch):
    config = net.get_config()
    assert config["space"] == "ofa_mbv3_tiny"
    assert Supernet.from_config(config).space is TINY
    monkeypatch.chdir(tmp_path)  # a config may be a stranger's: no file of its naming is run
    (tmp_path / "mine.py").write_text("raise SystemExit('executed')")
    refused("no search space 'mine.py'", Supernet.from_config, config | {"space": "mine.py"})


def test_largest_and_smallest_at_the_images_resolution(net):
    for side in (24, 45):
        images = make_images(side, 2, seed=side)
        for word, arch in (("largest", TINY.max()), ("smallest", TINY.min())):
            expected = net(images, TINY.sizes(arch))
            np.testing.assert_array_equal(net(images, word), expected)
    run = tf.function(lambda images: net(images, "smallest"))  # as in the graph of a training step
    assert deviation(run(images), expected) < 1e-4
    largest = net.subnet("largest")
    assert largest.input_shape[1] == TINY.max().resolution
    refused("one of .'largest', 'smallest'., not 'biggest'", net, images, "biggest")
    refused("one of .'largest', 'smallest'., not 'biggest'", net.subnet, "biggest")


@pytest.mark.parametrize(
    ("method", "instead"),
    [
        ("fit", r"ofa-train or ofa_tf\.training\.trainer\.Trainer"),
        ("compile", "ofa-train"),
        ("train_on_batch", "ofa-train"),
        ("evaluate", "ofa-eval"),
        ("test_on_batch", "SubnetEvaluator"),
        ("predict", r"supernet\(images, arch\), or supernet\.subnet\(arch\)\.predict\(images\)"),
        ("predict_on_batch", "supernet.subnet"),
        ("export", "ofa-export"),
        ("quantize", "ofa-export"),
    ],
)
def test_what_takes_one_network_is_refused(net, method, instead):
    refused(f"A supernet is many networks: .*{instead}", getattr(net, method), "int8")


def test_summary_and_counts(net):
    lines = []
    net.summary(print_fn=lambda text, **options: lines.append(text))
    assert f"{net.count_params():,}" in "\n".join(lines)


def test_space_by_its_name():
    assert Supernet("ofa_mbv3_tiny", 10).space is TINY
    refused("no search space 'ofa_tiny'", Supernet, "ofa_tiny", 10)
    refused("space is a SearchSpace or the name of one, not 10", Supernet, 10, TINY)


@pytest.mark.parametrize("number", [0, -1, True, 10.0, "10", None])
def test_number_of_classes(number):
    refused(r"num_classes is a whole number from 1, not ", Supernet, TINY, number)


def test_number_of_classes_may_be_numpys():
    assert Supernet(TINY, np.int64(3)).num_classes == 3


@pytest.mark.parametrize("dtype", ["float16", "float64", keras.DTypePolicy("bfloat16"), None])
def test_other_types_are_refused(dtype):
    refused("dtype is one of .'float32', 'mixed_bfloat16'", Supernet, TINY, 3, dtype=dtype)


IMAGES = make_images(24, 2, seed=0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES.astype(np.uint8), r"normalized floats, not uint8: give \(images - MEAN\) / STD"),
        (tf.constant(IMAGES.astype(np.int32)), "normalized floats, not int32"),
        ([[[[0, 255, 3]]]], "normalized floats, not int64"),
        (IMAGES[0], r"\(batch, height, width, 3\), not of the shape \(24, 24, 3\)"),
        (IMAGES[..., :1], r"not of the shape \(2, 24, 24, 1\)"),
        (IMAGES[:0], r"at least one.* not of the shape \(0, 24, 24, 3\)"),
        (make_images(28, 1, seed=0), "28 x 28 pixels, but the arch's resolution is 24: resize"),
        (IMAGES[:, :20], "20 x 24 pixels, but the arch's resolution is 24"),
        (keras.Input((24, 24, 3)), "no layer of a functional model"),
    ],
)
def test_images_that_are_none(net, images, message):
    refused(message, net, images, TINY.min())
    refused(message, net, images, arch=TINY.min().to_dict(), training=True)


def test_images_of_any_float_are_taken(net):
    expected = net(IMAGES, TINY.min())
    for images in (IMAGES.astype(np.float64), IMAGES.tolist(), tf.constant(IMAGES)):
        np.testing.assert_allclose(net(images, TINY.min()), expected, rtol=1e-6)


def test_sizes_in_any_form(net):
    sizes = TINY.sizes(TINY.min())
    expected = net(IMAGES, TINY.min())
    for given in (sizes, sizes.astype(np.int64), sizes.tolist(), tf.constant(sizes)):
        np.testing.assert_array_equal(net(IMAGES, given), expected)


def test_what_is_no_arch(net):
    refused("give the arch that is to run, an Arch, its dict, 'largest'", net, IMAGES)
    for wrong in (np.zeros((2, 2), np.int32), 3, object()):
        refused(r"what space\.sizes\(arch\) gives, \(6, 5\); not", net, IMAGES, wrong)
    larger = dataclasses.replace(TINY.max(), resolution=1000)
    refused("resolution", net, make_images(1000, 1, seed=0), larger)
