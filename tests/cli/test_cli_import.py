"""ofa-import: a checkpoint becomes a job that the other commands serve, and weights come back."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import sys

import numpy as np
import pytest
from cli_helpers import TRAIN, assert_one_message, run, weights

from ofa_tf import interop
from ofa_tf.interop import published

LONG_ID = "ofa_mbv3_d234_e346_k357_w1.0"
TINY = "--space=ofa_mbv3_tiny"


def assert_no_job(workdir: pathlib.Path) -> None:
    assert not (workdir / "config.json").exists()
    assert not (workdir / "checkpoints").exists()


# -- misuse, without torch --------------------------------------------------------------------


@pytest.fixture
def torch_or_not(monkeypatch):
    """For what is told before torch is of use, whether it is installed or not."""
    monkeypatch.setattr(interop, "require_torch", lambda: None)


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.fixture
def some_file(tmp_path) -> pathlib.Path:
    path = tmp_path / "some.pth"
    path.write_bytes(b"no checkpoint")
    return path


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([TINY], "give either --checkpoint, to import it, or --to_torch, to export to it"),
        ([TINY, "--checkpoint=a.pth", "--to_torch=b.pth"], "give either --checkpoint"),
        (["--checkpoint=a.pth"], "give the --space that the checkpoint is of"),
        (["--checkpoint=a.pth", "--space=nope"], "There is no search space 'nope'"),
        (["--checkpoint=missing.pth", TINY], "--checkpoint=missing.pth is no file. Give a PyTorch"),
        (["--checkpoint=missing.pth", f"--space={LONG_ID}"], "--checkpoint=missing.pth is no file"),
        (["--checkpoint=.", TINY], "--checkpoint=. is no file"),
        (["--checkpoint=published", TINY], "No checkpoint of ofa_mbv3_tiny is published"),
        ([f"--checkpoint={__file__}", TINY, "--new_head"], "--new_head is for the classes of"),
        ([f"--checkpoint={__file__}", TINY, "--labels=missing.txt"], "missing.txt cannot be read"),
        ([f"--checkpoint={__file__}", TINY, "--data_dir=missing"], "missing"),
        (["--to_torch=b.pth"], "holds no job. Run ofa-train or ofa-import"),
    ],
)
def test_wrong_orders(torch_or_not, args, expected, tmp_path):
    ended = run("import", f"--workdir={tmp_path / 'job'}", *args)
    assert_one_message(ended, 2, expected)
    assert not (tmp_path / "job").exists()


def test_labels_are_for_jobs_without_images(torch_or_not, images, some_file, tmp_path):
    args = [TINY, f"--checkpoint={some_file}", f"--data_dir={images}", f"--labels={some_file}"]
    ended = run("import", f"--workdir={tmp_path / 'job'}", *args)
    assert_one_message(ended, 2, "--labels is for jobs without images")
    assert_no_job(tmp_path / "job")


def test_without_torch_nothing_is_imported(no_torch, images, some_file, tmp_path):
    args = [TINY, f"--checkpoint={some_file}", f"--data_dir={images}"]
    ended = run("import", f"--workdir={tmp_path / 'job'}", *args)
    assert_one_message(ended, 2, "torch, which is not installed: pip install ofa_tf[torch]")
    assert_no_job(tmp_path / "job")


def test_without_torch_nothing_is_exported(no_torch, trained, tmp_path):
    ended = run("import", f"--workdir={trained}", f"--to_torch={tmp_path / 'a.pth'}")
    assert_one_message(ended, 2, "torch, which is not installed: pip install ofa_tf[torch]")
    assert list(tmp_path.iterdir()) == []


def test_published_checkpoint_offline(torch_or_not, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "_BASE", "http://127.0.0.1:9/ofa")  # nobody listens
    args = ["--checkpoint=published", f"--space={LONG_ID}"]
    ended = run("import", f"--workdir={tmp_path / 'job'}", *args)
    assert_one_message(ended, 1, "The checkpoint of ofa_mbv3_w1.0 could not be", "refused")
    assert_no_job(tmp_path / "job")


# -- with torch -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Imported:
    """A job, the command that made it, and what it was made from."""

    workdir: pathlib.Path
    args: tuple[str, ...]
    checkpoint: pathlib.Path
    values: list[np.ndarray]

    def kept(self) -> list[np.ndarray]:
        """The weights in the job's checkpoint."""
        return list(weights(self.workdir / "checkpoints" / "step_000000000.npz").values())


def write_checkpoint(path: pathlib.Path, space: str, classes: int) -> list[np.ndarray]:
    """A PyTorch file of a supernet with drawn weights, which are given back."""
    pytest.importorskip("torch")
    from ofa_tf.interop import save_checkpoint
    from ofa_tf.models import Supernet
    from ofa_tf.spaces import get_space

    supernet, rng = Supernet(get_space(space), classes), np.random.default_rng(0)
    for variable in supernet.variables:
        shape = variable.shape
        if len(shape) == 1:
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        variable.assign(value)
    save_checkpoint(supernet, path)
    return [variable.numpy() for variable in supernet.variables]


def make_job(folder: pathlib.Path, space: str, classes: int, *args: str) -> Imported:
    checkpoint = folder / "theirs.pth"
    values = write_checkpoint(checkpoint, space, classes)
    workdir = folder / "job"
    args = (f"--space={space}", f"--checkpoint={checkpoint}", f"--workdir={workdir}", *args)
    ended = run("import", *args)
    assert ended.code == 0, ended.err
    assert ended.message == f"Imported. The supernet is in {workdir / 'checkpoints'}."
    return Imported(workdir, args, checkpoint, values)


def of_images(folder: pathlib.Path) -> list[str]:
    return [f"--data_dir={folder}", "--eval_crop=1.0", "--calibration_images=32"]


def assert_equal(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def imported(images, tmp_path_factory) -> Imported:
    """Of the three classes of the images; not to be changed."""
    return make_job(tmp_path_factory.mktemp("imported"), "ofa_mbv3_tiny", 3, *of_images(images))


@pytest.fixture(scope="module")
def without_images(tmp_path_factory) -> Imported:
    """Of a thousand classes; not to be changed."""
    return make_job(tmp_path_factory.mktemp("without"), "ofa_mbv3_tiny", 1000)


@pytest.mark.reference
@pytest.mark.parametrize("space", ["ofa_mbv3_tiny", "ofa_resnet_tiny"])
def test_weights_come_in_and_go_out(space, images, tmp_path):
    import torch

    job = make_job(tmp_path, space, 3, *of_images(images))
    assert_equal(job.kept(), job.values)
    written = tmp_path / "back.pth"
    ended = run("import", f"--workdir={job.workdir}", f"--to_torch={written}")
    assert (ended.code, ended.message) == (0, f"The weights are in {written}.")
    theirs, ours = (
        torch.load(path, weights_only=True)["state_dict"] for path in (job.checkpoint, written)
    )
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.reference
def test_the_job_is_as_a_trained_one(imported, trained):
    """What ofa-train records of the images is recorded, and the checkpoint counts as finished."""
    config, of_trained = (
        json.loads((workdir / "config.json").read_text()) for workdir in (imported.workdir, trained)
    )
    assert set(config) == set(of_trained)
    for name in ("space", "data", "class_names", "eval_crop", "calibration_images"):
        assert config[name] == of_trained[name], name
    ended = run("eval", f"--workdir={imported.workdir}", "--arch=smallest")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("smallest: ")
    assert "is not finished" not in ended.err


@pytest.mark.reference
def test_same_command_again_changes_nothing(imported):
    config = (imported.workdir / "config.json").read_bytes()
    ended = run("import", *imported.args)
    assert ended.code == 0, ended.err
    assert (imported.workdir / "config.json").read_bytes() == config
    assert_equal(imported.kept(), imported.values)


@pytest.mark.reference
def test_other_settings_are_refused(imported, tmp_path):
    write_checkpoint(tmp_path / "other.pth", "ofa_mbv3_tiny", 7)
    for args, told in (
        (["--eval_crop=0.5"], "--eval_crop was 1, is 0.5"),
        (["--seed=3"], "--seed was 0, is 3"),
        (["--new_head"], "--new_head was False, is True"),
        ([f"--checkpoint={tmp_path / 'other.pth'}"], "--checkpoint was "),
        (["--space=ofa_mbv3_cifar"], "--space was ofa_mbv3_tiny, is ofa_mbv3_cifar"),
    ):
        ended = run("import", *imported.args, *args)
        assert_one_message(ended, 2, "holds a job with other settings", told)
    assert_equal(imported.kept(), imported.values)


@pytest.mark.reference
def test_without_images(without_images):
    config = json.loads((without_images.workdir / "config.json").read_text())
    assert config["data"] is None
    assert (config["class_names"][999], len(config["class_names"])) == ("class 999", 1000)
    assert_equal(without_images.kept(), without_images.values)
    ended = run("eval", f"--workdir={without_images.workdir}")
    assert_one_message(ended, 2, "has no images, which this command needs: give --data_dir")


@pytest.mark.reference
def test_labels_name_the_classes(without_images, tmp_path):
    (tmp_path / "labels.txt").write_text("".join(f"kind {i}\n" for i in range(1000)))
    args = [TINY, f"--checkpoint={without_images.checkpoint}", f"--workdir={tmp_path / 'job'}"]
    ended = run("import", *args, f"--labels={tmp_path / 'labels.txt'}")
    assert ended.code == 0, ended.err
    config = json.loads((tmp_path / "job" / "config.json").read_text())
    assert config["class_names"] == [f"kind {i}" for i in range(1000)]


@pytest.mark.reference
def test_labels_tell_the_number_of_classes(tmp_path):
    """Of a checkpoint that is not of ImageNet, where there are no images."""
    from ofa_tf.interop import save_checkpoint
    from ofa_tf.models import Supernet
    from ofa_tf.spaces import get_space

    save_checkpoint(Supernet(get_space("ofa_mbv3_tiny"), 2), tmp_path / "two.pth")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    args = [TINY, f"--checkpoint={tmp_path / 'two.pth'}", f"--workdir={tmp_path / 'job'}"]
    assert_one_message(
        run("import", *args),
        2,
        "a network with 2 classes, this one has 1000",
        "give --labels=FILE, with the names of these 2",
    )
    assert run("import", *args, f"--labels={tmp_path / 'labels.txt'}").code == 0
    config = json.loads((tmp_path / "job" / "config.json").read_text())
    assert config["class_names"] == ["cat", "dog"]


@pytest.mark.reference
def test_other_classes_than_the_images_have_name_the_flag(without_images, images, tmp_path):
    args = [TINY, f"--checkpoint={without_images.checkpoint}", f"--workdir={tmp_path / 'job'}"]
    ended = run("import", *args, *of_images(images))
    assert_one_message(ended, 2, "1000 classes, this one has 3: give --new_head to leave its")
    assert "Supernet(" not in ended.err


WRAPPED = {
    "model": lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {0: {"step": 1}}}},
    "state_dict_ema": lambda state: {"state_dict_ema": state, "arch": "ofa", "metric": 0.5},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "module": lambda state: {f"module.{key}": value for key, value in state.items()},
    "_orig_mod": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.module.{key}": state[key] for key in state},
    "averaged": lambda state: {
        "model_ema": {"n_averaged": 7 + 0 * next(iter(state.values())).sum().long()}
        | {f"module.{key}": value for key, value in state.items()}
    },
    "all of them": lambda state: {
        "state_dict": {f"module._orig_mod.{key}": value for key, value in state.items()},
        "state_dict_ema": {},
    },
}


@pytest.mark.reference
@pytest.mark.parametrize("how", WRAPPED)
def test_a_checkpoint_as_training_programs_wrap_it(how, without_images, tmp_path):
    import torch

    state = torch.load(without_images.checkpoint, weights_only=True)["state_dict"]
    torch.save(WRAPPED[how](state), tmp_path / "wrapped.pth")
    workdir = tmp_path / "job"
    ended = run("import", TINY, f"--checkpoint={tmp_path / 'wrapped.pth'}", f"--workdir={workdir}")
    assert ended.code == 0, ended.err
    kept = weights(workdir / "checkpoints" / "step_000000000.npz").values()
    assert_equal(list(kept), without_images.values)
    told = "has weights as state_dict, state_dict_ema; state_dict is read." in ended.err
    assert told == (how == "all of them")


@pytest.mark.reference
@pytest.mark.parametrize("how", ["settings", "no weights", "two spellings"])
def test_a_checkpoint_that_cannot_be_unwrapped_says_how_to(how, without_images, tmp_path):
    import argparse

    import torch

    state = torch.load(without_images.checkpoint, weights_only=True)["state_dict"]
    key = next(iter(state))
    content = {
        "settings": {"model": state, "args": argparse.Namespace(lr=0.1)},
        "no weights": {"weights": state, "epoch": 3},
        "two spellings": state | {f"module.{key}": state[key]},
    }
    torch.save(content[how], tmp_path / "wrapped.pth")
    args = [TINY, f"--checkpoint={tmp_path / 'wrapped.pth'}", f"--workdir={tmp_path / 'job'}"]
    ended = run("import", *args)
    assert_one_message(ended, 2, "wrapped.pth", "Where it was made, save the weights alone: torch")


@pytest.mark.reference
def test_new_head_is_trained_from_there(without_images, images, tmp_path):
    """Everything but the classifier is the checkpoint's, and ofa-train starts from it."""
    args = [TINY, f"--checkpoint={without_images.checkpoint}", *of_images(images)]
    ended = run("import", *args, "--new_head", f"--workdir={tmp_path / 'job'}")
    assert ended.code == 0, ended.err
    start = tmp_path / "job" / "checkpoints" / "step_000000000.npz"
    values = list(weights(start).values())
    different = [
        theirs.shape
        for ours, theirs in zip(values, without_images.values, strict=True)
        if ours.shape != theirs.shape or (ours != theirs).any()
    ]
    assert len(different) == 2  # kernel and bias of the classifier
    assert all(shape[-1] == 1000 for shape in different)

    train = [*TRAIN, "--schedule=sandwich", "--phases=sandwich", "--epochs=1", "--base_lr=0.01"]
    args = [f"--data_dir={images}", f"--init={start}", f"--workdir={tmp_path / 'trained'}"]
    ended = run("train", *train, *args)
    assert ended.code == 0, ended.err
    (newest,) = (tmp_path / "trained" / "checkpoints").glob("step_*.npz")
    assert newest.name > start.name


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("truncated", [TINY], ["is damaged, or no PyTorch file of tensors"]),
        ("whole", ["--space=ofa_resnet_tiny"], ["missing from the file", "surplus in the file"]),
        ("whole", [TINY], ["3 classes, this one has 1000: give --labels=FILE, with the names of"]),
        ("whole", [f"--space={LONG_ID}"], ["ofa_mbv3_w1.0 do not fit each other"]),
    ],
)
def test_files_that_do_not_fit(name, args, told, imported, tmp_path):
    content = imported.checkpoint.read_bytes()
    path = tmp_path / f"{name}.pth"
    path.write_bytes(content if name == "whole" else content[: len(content) // 2])
    ended = run("import", f"--checkpoint={path}", f"--workdir={tmp_path / 'job'}", *args)
    assert_one_message(ended, 2, str(path), *told)
    assert_no_job(tmp_path / "job")


@pytest.mark.reference
def test_latency_search_and_export_serve_it(imported, tmp_path):
    """The whole road from a checkpoint to TFLite files, with as little work as it takes."""
    few = [
        "--latency_resolutions=24,32",
        "--latency_rounds=1",
        "--fit_subnets=2",
        "--check_subnets=2",
    ]
    workdir = shutil.copytree(imported.workdir, tmp_path / "job")
    for command, args in (
        ("latency", few),
        ("search", ["--num_archs=10", "--arch_images=8", "--num_budgets=1"]),
        ("export", ["--formats=keras,tflite_float32", "--test_images=10"]),
    ):
        ended = run(command, f"--workdir={workdir}", *args)
        assert ended.code == 0, ended.err
        assert "is not finished" not in ended.err
    (folder,) = (workdir / "subnets").iterdir()
    card = json.loads((folder / "card.json").read_text())
    assert card["classes"] == ["blue", "green", "red"]
    assert card["files"]["tflite_float32"]["keras_agreement"] == 1.0
