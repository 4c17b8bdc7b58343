"""load_subnet: exported folders and published networks as Keras models, and what is refused."""

from __future__ import annotations

import json
import shutil

import keras
import numpy as np
import pytest
from export_helpers import NUM_CLASSES

import ofa_tf
from ofa_tf.data import MEAN, STD
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.interop import published, save_checkpoint, write_net_config


@pytest.fixture
def folder(smallest, tmp_path):
    """What load_subnet reads of an exported folder, to be damaged."""
    for name in ("card.json", "net.config", "run.config", "model.keras"):
        shutil.copy(smallest.folder / name, tmp_path)
    return tmp_path


def run(model, images):
    return model(images, training=False).numpy()


def assert_equal(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_exported_subnet_computes_what_was_exported(exported):
    model = ofa_tf.load_subnet(exported.folder)
    expected = run(exported.model, exported.images)
    assert np.ptp(expected, axis=0).min() > 1  # blind where all images look alike
    assert_equal(run(model, exported.images), expected)
    assert model.name == exported.spec.name


def test_images_and_outputs_as_the_caller_wants_them(smallest):
    images = smallest.images[:8].round()
    expected = run(smallest.model, images)
    raw = ofa_tf.load_subnet(smallest.folder, input="uint8")
    assert_equal(run(raw, images.astype(np.uint8)), expected)
    normalized = ((images - MEAN) / STD).astype(np.float32)
    plain = ofa_tf.load_subnet(str(smallest.folder), input="float32", output="softmax")
    exponents = np.exp(expected - expected.max(1, keepdims=True))
    assert_equal(run(plain, normalized), exponents / exponents.sum(1, keepdims=True))


def test_backbone_gives_the_inner_feature_maps(smallest):
    plan, images = smallest.spec.plan, smallest.images[:2]
    backbone = ofa_tf.load_subnet(smallest.folder, include_top=False)
    maps = backbone(images)
    assert list(maps) == [f"stride_{stride}" for stride in plan.feature_blocks]
    assert {"stride_4", "stride_8"} <= set(maps)
    assert not any(isinstance(layer, keras.layers.Dense) for layer in backbone.layers)
    for stride, block in plan.feature_blocks.items():
        side = -(-plan.resolution // stride)
        assert maps[f"stride_{stride}"].shape == (2, side, side, block.out_channels)
    # The classifier of the whole network, on the deepest map, gives the logits.
    last = list(plan.feature_blocks.values())[-1]
    after = plan.blocks[plan.blocks.index(last) + 1]
    inner = next(x for x in smallest.model.layers if x.name.startswith(after.name))
    rest = keras.Model(inner.input, smallest.model.output)
    logits = run(rest, list(maps.values())[-1])
    assert_equal(logits, run(smallest.model, images))


def test_weights_that_were_trained_on_are_taken(folder, smallest):
    model = keras.models.load_model(folder / "model.keras")
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, bias + 5])
    model.save(folder / "model.keras")
    expected = run(smallest.model, smallest.images[:4]) + 5
    assert_equal(run(ofa_tf.load_subnet(folder), smallest.images[:4]), expected)


def refused(kind, message, path, **options):
    with pytest.raises(kind, match=message) as caught:
        ofa_tf.load_subnet(path, **options)
    assert "\n" not in str(caught.value)


def test_unknown_interfaces_are_refused(folder):
    refused(UsageError, "input is one of pixels, uint8, float32", folder, input="bytes")
    refused(UsageError, "output is one of logits, softmax", folder, output="top1")
    refused(UsageError, "top", folder, include_top=False, output="softmax")


def test_other_places_are_refused(folder, tmp_path):
    refused(UsageError, "There is no folder", tmp_path / "missing")
    refused(UsageError, "There is no folder", "runs/missing")
    refused(UsageError, "is a file; give the folder", folder / "model.keras")
    (folder / "card.json").unlink()
    refused(UsageError, "no folder of a subnet: it has to hold card.json, net.config", folder)


def test_damaged_keras_file_is_refused(folder):
    content = (folder / "model.keras").read_bytes()
    for damaged in (b"", b"not Keras", content[: len(content) // 2]):
        (folder / "model.keras").write_bytes(damaged)
        refused(FailureError, "model.keras could not be loaded as a Keras model", folder)


def test_keras_file_of_another_network_is_refused(folder, exports):
    shutil.copy(exports["max"].folder / "model.keras", folder)
    refused(FailureError, "model.keras is of another network .* weights of", folder)
    keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)]).save(folder / "model.keras")
    refused(FailureError, "model.keras is of another network .* missing", folder)


def test_card_of_another_network_is_refused(folder, exports):
    shutil.copy(exports["max"].folder / "card.json", folder)
    refused(FailureError, "card.json and the net.config beside it", folder)


def test_damaged_card_is_refused(folder):
    card = json.loads((folder / "card.json").read_text())
    no_numbers = card | {"input": {"normalization": {"mean": ["red"], "std": [1]}}}
    for damaged in (no_numbers, card | {"input": None}, {}, []):
        (folder / "card.json").write_text(json.dumps(damaged))
        refused(FailureError, r"card\.json .*Export the subnet again\.$", folder)
    (folder / "card.json").write_text("{")
    refused(FailureError, r"card\.json could not be read as JSON", folder)


def test_damaged_net_config_is_refused(folder):
    (folder / "net.config").write_text("{}")
    refused(UsageError, r"net\.config", folder)


def test_unknown_and_unreachable_ids_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(published, "_BASE", "http://127.0.0.1:1")  # nothing answers there
    known = "note10_lat@8ms_top1@71.4_finetune@25"
    refused(FailureError, f"no folder '{known}', nor can it .* could not be downloaded", known)
    refused(UsageError, r"no folder 'what\?', nor can it .* no id of a published network", "what?")


@pytest.mark.reference
def test_published_network(supernet, tmp_path, monkeypatch):
    """One as it is published, found by its id among the downloads."""
    torch = pytest.importorskip("torch")
    space = supernet.space
    plan, expected = space.blueprint(space.max(), NUM_CLASSES), supernet.subnet(space.max())
    net_id = "tiny_lat@1ms_top1@10.0_finetune@25"
    own = tmp_path / ".cache" / "ofa_tf" / net_id.replace("@", "-")
    write_net_config(plan, own)
    save_checkpoint(supernet, own / "init")
    # The largest network's file without kernel transforms is that of a single network.
    state = torch.load(own / "init", weights_only=True)["state_dict"]
    torch.save({key: x for key, x in state.items() if not key.endswith("_matrix")}, own / "init")

    monkeypatch.setenv("HOME", str(tmp_path))
    images = np.random.default_rng(0).normal(0, 1, (2, plan.resolution, plan.resolution, 3))
    for name in (net_id, own):
        model = ofa_tf.load_subnet(name, input="float32")
        assert_equal(run(model, images), run(expected, images))
    assert "stride_8" in ofa_tf.load_subnet(net_id, include_top=False).output
