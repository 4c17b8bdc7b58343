"""ofa-export: the subnets of a search, and networks of a net.config."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from cli_helpers import ROOT, assert_one_message, run

from ofa_tf.interop import published, read_net_config, write_net_config
from ofa_tf.spaces import get_space

FLOAT = "--formats=keras,tflite_float32"
SPACE = get_space("ofa_resnet_tiny")
CLASSES = 3
NAME = "_lat@8ms, für alle+"  # which Keras would refuse for a model


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> pathlib.Path:
    """A net.config of our own, with its run.config, in a folder of the network's name."""
    folder = tmp_path_factory.mktemp("networks") / NAME
    write_net_config(SPACE.blueprint(SPACE.min(), CLASSES), folder)
    return folder / "net.config"


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory) -> pathlib.Path:
    """The folder of the network, exported without weights."""
    workdir = tmp_path_factory.mktemp("exported")
    ended = run("export", f"--net_config={network}", f"--workdir={workdir}", FLOAT)
    assert ended.code == 0, ended.err
    assert "the weights are made up" in ended.err
    assert ended.message == f"The network is in {workdir / 'subnets' / NAME}."
    return workdir / "subnets" / NAME


def read_card(folder) -> dict:
    return json.loads((folder / "card.json").read_text())


def logits(folder) -> tuple[np.ndarray, np.ndarray]:
    """Of the Keras model and of the TFLite file, for two images of noise."""
    import keras

    from ofa_tf.export.runtime import TFLiteClassifier

    model = keras.models.load_model(folder / "model.keras", compile=False)
    images = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
    images = images.astype(np.float32)
    return model.predict_on_batch(images), TFLiteClassifier(folder / "model_float32.tflite")(images)


def assert_same(expected, actual) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


# -- made-up weights --------------------------------------------------------------------------


def test_network_becomes_keras_and_tflite(exported):
    plan, card = SPACE.blueprint(SPACE.min(), CLASSES), read_card(exported)
    told = {key: card[key] for key in ("space", "arch", "resolution", "macs", "params", "classes")}
    assert told == {
        "space": None,
        "arch": None,
        "resolution": plan.resolution,
        "macs": plan.macs,
        "params": plan.params,
        "classes": ["class 0", "class 1", "class 2"],
    }
    assert set(card["files"]) == {"keras", "tflite_float32"}
    assert (exported / "labels.txt").read_text() == "class 0\nclass 1\nclass 2\n"
    assert_same(*logits(exported))


def test_same_command_again_does_nothing(exported, network):
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    workdir = exported.parents[1]
    ended = run("export", f"--net_config={network}", f"--workdir={workdir}", FLOAT)
    assert (ended.code, ended.message) == (0, f"{exported} is exported already.")
    assert {path: path.stat().st_mtime_ns for path in exported.iterdir()} == before


@pytest.mark.slow
def test_file_of_another_name_names_the_network(network, tmp_path):
    """Without a run.config beside it, the resolution is 224, and the classes have given names."""
    (tmp_path / "mine.json").write_bytes(network.read_bytes())
    (tmp_path / "labels.txt").write_text("cat\ndog\nemu\n")
    args = [f"--net_config={tmp_path / 'mine.json'}", f"--labels={tmp_path / 'labels.txt'}"]
    ended = run("export", *args, f"--workdir={tmp_path}", "--formats=tflite_float32")
    assert ended.code == 0, ended.err
    card = read_card(tmp_path / "subnets" / "mine")
    assert (card["resolution"], card["classes"]) == (224, ["cat", "dog", "emu"])
    assert set(card["files"]) == {"tflite_float32"}


def test_published_network(tmp_path):
    if "OFA_SHARED" not in os.environ:
        pytest.skip("OFA_SHARED is not set: the published networks are not at hand")
    name = "note10_lat-8ms_top1-71.4_finetune-25"
    root = pathlib.Path(os.environ["OFA_SHARED"], "data", "published", "specialized")
    ended = run("export", f"--net_config={root / name / 'net.config'}", f"--workdir={tmp_path}")
    assert_one_message(ended, 2, "int8 is calibrated on training images")
    args = [f"--net_config={root / name / 'net.config'}", f"--workdir={tmp_path}"]
    ended = run("export", *args, "--formats=tflite_float32")
    assert ended.code == 0, ended.err
    card = read_card(tmp_path / "subnets" / name)
    assert (card["macs"], card["resolution"], len(card["classes"])) == (75_802_880, 160, 1000)


# -- with the images of a job -----------------------------------------------------------------


def test_images_of_a_job_calibrate_and_evaluate(job, network):
    args = [f"--net_config={network}", f"--workdir={job}", "--test_images=10", "--int8_images=8"]
    ended = run("export", *args)
    assert ended.code == 0, ended.err
    folder = job / "subnets" / NAME
    card = read_card(folder)
    assert card["classes"] == ["blue", "green", "red"]
    assert list(card["files"]) == ["keras", "tflite_float32", "tflite_int8"]
    assert {entry["num_images"] for entry in card["files"].values()} == {10}
    assert card["files"]["tflite_int8"]["num_calibration_images"] >= 8
    assert card["files"]["tflite_float32"]["keras_agreement"] == 1.0
    assert run("export", *args).message == f"{folder} is exported already."
    ended = run("export", *args, f"--labels={folder / 'labels.txt'}")
    assert_one_message(ended, 2, "--labels is for networks without images")


def test_job_of_other_classes_is_refused(job, tmp_path):
    write_net_config(SPACE.blueprint(SPACE.min(), 7), tmp_path)
    ended = run("export", f"--net_config={tmp_path / 'net.config'}", f"--workdir={job}", FLOAT)
    assert_one_message(ended, 2, "has 7 classes, but the job in", "has 3. Give another --workdir")
    assert not (job / "subnets").exists()


# -- the subnets of a search ------------------------------------------------------------------

SUBNET_FLAGS = (
    "--formats=keras,tflite_float32,tflite_int8",
    "--int8_images=30",
    "--test_images=20",
    "--verify_images=10",
    "--min_agreement=0.5",  # it was hardly trained
)


def choose(job: pathlib.Path, *names: str) -> None:
    """Writes a search.json with the tiny space's smallest subnet under these names."""
    arch = get_space("ofa_mbv3_tiny").min().to_dict()
    subnets = [{"name": name, "arch": arch, "predicted_accuracy": 0.5} for name in names]
    (job / "search.json").write_text(json.dumps({"subnets": subnets}))


def told(ended, name: str) -> list[str]:
    """The cells of a file's line in the table."""
    (line,) = [line for line in ended.out.splitlines() if line.startswith(name)]
    return line.split()


def test_subnet_of_a_search(job, monkeypatch):
    choose(job, "small")
    ended = run("export", f"--workdir={job}", "--jobs=1", *SUBNET_FLAGS)
    assert ended.code == 0, ended.err
    assert ended.message == f"The subnets are in {job / 'subnets'}."
    files = read_card(job / "subnets" / "small")["files"]
    assert {(entry["verified_images"], entry["num_images"]) for entry in files.values()} == {
        (10, 20)
    }
    for name in ("keras", "tflite_float32"):
        assert files[name]["supernet_agreement"] == files[name]["keras_agreement"] == 1.0
    accuracy = files["tflite_int8"]["accuracy"]
    assert told(ended, "small tflite_int8")[-1] == f"{100 * accuracy:.2f}"
    assert "operations" in ended.out.splitlines()[0]

    again = run("export", f"--workdir={job}", "--jobs=1", *SUBNET_FLAGS)
    assert again.out == ended.out
    assert "is exported already." in again.err

    def bad(self, name, entry):
        return "it is bad" if name == "tflite_int8" else None

    monkeypatch.setattr("ofa_tf.export.verification.Thresholds.problem", bad)
    failed = run("export", f"--workdir={job}", "--jobs=1", *SUBNET_FLAGS)
    assert_one_message(failed, 1, "1 of 1 failed", "model_int8.tflite is not made: it is bad")
    assert told(failed, "small tflite_float32") == told(ended, "small tflite_float32")
    assert "tflite_int8" not in failed.out
    left = {path.name for path in (job / "subnets" / "small").glob("model*")}
    assert left == {"model.keras", "model_float32.tflite"}


@pytest.mark.slow
def test_several_subnets_at_a_time_are_as_one_after_the_other(job, tmp_path):
    choose(job, "a", "b", "c")
    other = shutil.copytree(job, tmp_path / "other")
    ended = run("export", f"--workdir={job}", "--jobs=2", *SUBNET_FLAGS)
    assert ended.code == 0, ended.err
    expected = run("export", f"--workdir={other}", "--jobs=1", *SUBNET_FLAGS)
    for name in ("a", "b", "c"):
        for format_name in ("tflite_float32", "tflite_int8"):
            file = f"{name} {format_name}"
            assert told(ended, file) == told(expected, file)
    for name in ("a", "b", "c"):
        for file in ("model_float32.tflite", "model_int8.tflite"):
            path = pathlib.Path("subnets", name, file)
            assert (job / path).read_bytes() == (other / path).read_bytes()


@pytest.mark.slow
def test_finetuned_weights(job):
    choose(job, "small")
    ended = run("finetune", f"--workdir={job}", "--epochs=1", "--base_lr=0.02")
    assert ended.code == 0, ended.err
    args = [f"--workdir={job}", *SUBNET_FLAGS, "--formats=keras"]
    assert run("export", *args).code == 0
    before = read_card(job / "subnets" / "small")
    assert run("export", *args, "--weights=finetuned").code == 0
    after = read_card(job / "subnets" / "small")
    assert after["fingerprint"] != before["fingerprint"]
    assert after["files"]["keras"]["sha256"] != before["files"]["keras"]["sha256"]
    assert after["files"]["keras"]["supernet_agreement"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("form", ["cpu", "plain"])
def test_quantization_aware_training(job, form):
    choose(job, "small")
    args = [f"--workdir={job}", "--jobs=1", *SUBNET_FLAGS, f"--form={form}", "--qat_epochs=1"]
    ended = run("export", *args, "--min_agreement=0")
    assert ended.code == 0, ended.err
    folder = job / "subnets" / "small"
    entry = read_card(folder)["files"]["tflite_qat"]
    assert entry["dtype"] == "int8"
    assert entry["qat"]["epochs"] == 1
    before, first, choice = entry["qat_history"]
    assert (before["epoch"], first["epoch"]) == (0, 1)
    accuracies = choice["validation_accuracies"]
    assert accuracies[choice["kept"]] == max(accuracies.values())
    # The other candidate is the very file of tflite_int8.
    same = (folder / "model_qat.tflite").read_bytes() == (folder / "model_int8.tflite").read_bytes()
    assert same == (choice["kept"] == "post-training")


def test_finetuned_weights_that_are_missing(job):
    choose(job, "small")
    ended = run("export", f"--workdir={job}", "--weights=finetuned")
    assert_one_message(ended, 2, "Run ofa-finetune first")
    assert not (job / "subnets").exists()


def test_calibration_seed_chooses_images(job):
    from ofa_tf.cli.export_task import ImageOptions
    from ofa_tf.job import load_job

    opened = load_job(job)
    first, again, other = (
        ImageOptions(str(job), 20, seed, None, 10).calibration(opened, 24) for seed in (0, 0, 1)
    )
    assert first.shape == (20, 24, 24, 3)
    assert first.max() > 100  # raw pixels
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(np.unique(first, axis=0), np.unique(other, axis=0))


# -- weights ----------------------------------------------------------------------------------


@pytest.fixture
def init(network, tmp_path) -> pathlib.Path:
    """Weights of the network as a PyTorch file."""
    torch = pytest.importorskip("torch")
    from ofa_tf.interop.keys import tensors
    from ofa_tf.models import build_subnet

    plan, rng, state = read_net_config(network), np.random.default_rng(0), {}
    model = build_subnet(plan)
    for tensor in tensors(plan):
        layer = model.get_layer(f"{tensor.block}_{tensor.layer}")
        shape = getattr(layer, tensor.variable).shape
        value = rng.uniform(0.1, 1, shape) if len(shape) == 1 else rng.normal(0, 0.2, shape)
        state[tensor.key] = torch.tensor(tensor.layout.to_torch(value.astype(np.float32)))
    torch.save({"state_dict": state}, tmp_path / "init")
    return tmp_path / "init"


@pytest.mark.reference
def test_weights_are_read(init, network, tmp_path):
    from ofa_tf.data import MEAN, STD
    from ofa_tf.interop import load_specialized

    workdir = tmp_path / "job"
    args = [f"--net_config={network}", f"--checkpoint={init}", f"--workdir={workdir}", FLOAT]
    ended = run("export", *args)
    assert ended.code == 0, ended.err
    assert "made up" not in ended.err
    folder = workdir / "subnets" / NAME
    in_keras, in_tflite = logits(folder)
    assert_same(in_keras, in_tflite)
    model = load_specialized(network, init, normalization=(MEAN, STD))
    images = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
    assert_same(model.predict_on_batch(images.astype(np.float32)), in_keras)

    # Other weights are another network.
    assert run("export", *args).message == f"{folder} is exported already."
    assert run("export", *args[:1], *args[2:]).message == f"The network is in {folder}."


@pytest.mark.reference
def test_weights_of_another_network_are_refused(init, tmp_path):
    write_net_config(SPACE.blueprint(SPACE.max(), CLASSES), tmp_path)
    args = [f"--net_config={tmp_path / 'net.config'}", f"--checkpoint={init}", FLOAT]
    ended = run("export", *args, f"--workdir={tmp_path / 'job'}")
    assert_one_message(ended, 2, str(init), "do not fit each other", "missing from the file")


# -- misuse -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--specialized=a"], "give either --net_config or --specialized"),
        (["--formats=keras,onnx"], "unknown: onnx"),
        ([], "int8 is calibrated on training images, but the --workdir holds no job with images"),
        ([FLOAT, "--checkpoint=missing.pth"], "--checkpoint=missing.pth is no file"),
        ([FLOAT, "--labels=missing.txt"], "--labels=missing.txt cannot be read"),
        ([FLOAT, f"--labels={__file__}"], ".py, line 2: the name is blank. Expected the name of a"),
        ([FLOAT, f"--labels={ROOT / 'MANIFEST.in'}"], "has 7 lines, but there are 3 classes"),
        (["--formats=keras,tflite_int16x8"], "int16x8 is calibrated on training images"),
    ],
)
def test_wrong_orders(args, expected, network, tmp_path):
    ended = run("export", f"--net_config={network}", f"--workdir={tmp_path / 'job'}", *args)
    assert_one_message(ended, 2, expected)
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--checkpoint=a.pth"], "go with --net_config or --specialized"),
        (["--net_config=a", "--weights=finetuned"], "--weights is for subnets"),
        (["--formats=tflite_qat"], "say for how many epochs, --qat_epochs=N"),
        (["--labels=a.txt"], "go with --net_config or --specialized"),
        (["--specialized=a", "--checkpoint=b"], "--specialized has its own weights"),
        (["--specialized=a/b"], "'a/b' is no id of a published network"),
        (["--net_config=missing/net.config"], "missing/net.config could not be read as JSON"),
    ],
)
def test_wrong_orders_without_a_network(args, expected, tmp_path):
    ended = run("export", f"--workdir={tmp_path / 'job'}", FLOAT, *args)
    assert_one_message(ended, 2, expected)
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text[:100], "could not be read as JSON"),
        (lambda text: text.replace('"ResNets"', '"DenseNets"'), "DenseNets"),
        (lambda text: text.replace('"stride": 2', '"stride": 0'), "stride"),
        (lambda text: text.replace('"in_features"', '"in_things"'), "in_features"),
    ],
)
def test_damaged_network(change, expected, network, tmp_path):
    path = tmp_path / "net.config"
    path.write_text(change(network.read_text()))
    ended = run("export", f"--net_config={path}", f"--workdir={tmp_path / 'job'}", FLOAT)
    assert_one_message(ended, 2, str(path), expected)
    assert not (tmp_path / "job").exists()


def test_specialized_network_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "_BASE", "http://127.0.0.1:9/ofa")  # nobody listens
    args = ["--specialized=note10_lat@8ms_top1@71.4_finetune@25", FLOAT]
    ended = run("export", f"--workdir={tmp_path}", *args)
    assert_one_message(ended, 1, "could not be downloaded", "Connection refused")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
