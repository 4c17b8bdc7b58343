"""ofa-finetune: subnets of a searched job, trained further; interrupted, run again, refused."""

from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pytest
from cli_helpers import assert_one_message, finish, run, start, wait_for_step, weights

import ofa_tf
from ofa_tf.errors import UsageError
from ofa_tf.files import write_json
from ofa_tf.spaces import get_space
from ofa_tf.training.checkpoints import CheckpointFolder

TINY = get_space("ofa_mbv3_tiny")
ARCHS = {"small": TINY.min(), "large": TINY.restrict(resolutions=[28]).max()}
FLAGS = ("--epochs=2", "--base_lr=0.02", "--ema_decay=0.5", "--weight_decay=0")
LAST = "step_000000018.npz"


def search(workdir, **archs) -> None:
    """Leaves what ofa-search would."""
    costs = {"predicted_accuracy": 0.5, "macs": 1, "params": 1}
    rows = [{"name": name, "arch": arch.to_dict(), **costs} for name, arch in archs.items()]
    write_json(workdir / "search.json", {"settings": {}, "subnets": rows})


@pytest.fixture
def searched(job):
    search(job, **ARCHS)
    return job


@pytest.fixture(scope="module")
def tuned(trained, tmp_path_factory):
    """A job one of whose subnets is fine-tuned, and what the command told."""
    job = shutil.copytree(trained, tmp_path_factory.mktemp("tuned") / "job")
    search(job, **ARCHS)
    ended = run("finetune", f"--workdir={job}", "--subnets=small", *FLAGS)
    assert ended.code == 0, ended.err
    return job, ended


def test_it_tells_both_accuracies_and_leaves_a_job_of_its_own(tuned, trained):
    job, ended = tuned
    folder = job / "finetuned" / "small"
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = {row["when"]: row["accuracy"]["subnet"] for row in metrics if "accuracy" in row}
    assert ended.out == (
        f"small: {100 * found['before']:.2f} % before, {100 * found['after']:.2f} % after, on "
        f"held-out images; the weights are in {folder / 'checkpoints'}.\n"
    )
    assert list(found) == ["before", "epoch 1", "after"]
    left = {path.name for path in folder.iterdir()}
    assert left == {"config.json", "checkpoints", "metrics.jsonl", "tensorboard"}
    assert not (job / "finetuned" / "large").exists()
    for path in (trained / "checkpoints").iterdir():
        assert (job / "checkpoints" / path.name).read_bytes() == path.read_bytes()


def test_it_learns_and_only_what_the_subnet_uses_moves(tuned):
    job, _ = tuned
    folder = job / "finetuned" / "small"
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first, second = (row["loss"] for row in metrics if "loss" in row)
    assert second < first
    supernet = ofa_tf.load_job(job).supernet
    trained, tuned_weights = (
        weights(file) for file in (job / "checkpoints" / LAST, folder / "checkpoints" / LAST)
    )
    trainable = {variable.path for variable in supernet.trainable_variables}
    moved = {
        variable.path: not np.array_equal(trained[name], tuned_weights[name])
        for variable, name in (
            (variable, f"weights/{index:04d}") for index, variable in enumerate(supernet.variables)
        )
        if variable.path in trainable
    }
    sizes = TINY.sizes(ARCHS["small"])
    off = [name for name, row in TINY.elastic_rows.items() if not sizes[row][0]]
    assert off
    used = {path: has for path, has in moved.items() if not any(name in path for name in off)}
    assert 0 < len(used) < len(moved)
    assert sum(used.values()) > 0.9 * len(used)
    assert not any(moved[path] for path in set(moved) - set(used))


def test_the_recipe_is_the_job_s_where_no_flag_says_otherwise(tuned):
    job, _ = tuned
    mine = json.loads((job / "finetuned" / "small" / "config.json").read_text())["recipe"]
    theirs = json.loads((job / "config.json").read_text())["recipe"]
    (phase,) = mine.pop("phases")
    assert phase == {
        "name": "finetune",
        "epochs": 2.0,
        "base_lr": 0.02,
        "warmup_epochs": 0.0,
        "subnets_per_step": 1,
    }
    assert mine.pop("arch") == ARCHS["small"].to_dict()
    assert theirs.pop("phases")
    assert mine == theirs | {"ema_decay": 0.5, "weight_decay": 0.0, "resolutions": [24]}
    assert theirs["augmentation"]["crop_scale_min"] == 0.5  # which is not the flag's default


def test_a_finished_one_is_skipped(tuned):
    job, _ = tuned
    kept = [path for path in (job / "finetuned").rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in kept}
    ended = run("finetune", f"--workdir={job}", "--subnets=small", *FLAGS)
    assert (ended.code, ended.out) == (0, "")
    assert ended.message == f"{job / 'finetuned' / 'small'} is fine-tuned already."
    kept = [path for path in (job / "finetuned").rglob("*") if path.is_file()]
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_the_job_gives_the_fine_tuned_subnet(tuned):
    folder, _ = tuned
    job = ofa_tf.load_job(folder)
    small = job.finetuned("small")
    assert small.config["space"] == job.config["space"]
    assert small.class_names == job.class_names
    assert small.data is job.data
    left = weights(folder / "finetuned" / "small" / "checkpoints" / LAST)
    for index, variable in enumerate(small.supernet.variables):
        np.testing.assert_array_equal(variable.numpy(), left[f"weights/{index:04d}"])
    assert small.fingerprint != job.fingerprint
    rows = (folder / "finetuned" / "small" / "metrics.jsonl").read_text().splitlines()
    after = json.loads(rows[-1])["accuracy"]["subnet"]
    assert small.evaluator("validation").accuracy(ARCHS["small"]) == after
    with pytest.raises(UsageError, match=r"finetuned/large holds no fine-tuned subnet. Run ofa-f"):
        job.finetuned("large")
    with pytest.raises(UsageError, match=r"search\.json has no subnet 'x'; it has small, large\."):
        job.finetuned("x")


@pytest.fixture
def copy(tuned, tmp_path):
    """A copy of the job with the fine-tuned subnet, to be spoiled."""
    return shutil.copytree(tuned[0], tmp_path / "job")


def test_another_recipe_is_refused(copy):
    before = (copy / "finetuned" / "small" / "config.json").read_text()
    args = [f"--workdir={copy}", *FLAGS, "--momentum=0.8", "--epochs=3"]
    ended = run("finetune", *args)
    assert_one_message(
        ended,
        2,
        f"{copy / 'finetuned' / 'small'} holds a job with other settings: --epochs was 2, is 3; "
        "--momentum was 0.9, is 0.8. Give the same settings to go on with it, remove the folder",
        "or let the recipe change with --allow_recipe_change.",
    )
    assert (copy / "finetuned" / "small" / "config.json").read_text() == before


def test_another_arch_of_the_same_name_is_refused(copy):
    search(copy, small=TINY.max())
    ended = run("finetune", f"--workdir={copy}", *FLAGS)
    assert_one_message(ended, 2, "is out of date: search.json has another arch of this name since")
    with pytest.raises(UsageError, match="another arch of this name"):
        ofa_tf.load_job(copy).finetuned("small")


def test_a_supernet_that_was_trained_on_is_refused(copy):
    for path in (copy / "checkpoints").glob("step_*.npz"):
        with np.load(path) as archive:
            changed = {name: archive[name] for name in archive.files}
        changed["weights/0000"] = changed["weights/0000"] + 0.01
        np.savez(path, **changed)
    ended = run("finetune", f"--workdir={copy}", *FLAGS)
    assert_one_message(ended, 2, "is out of date: the supernet has other weights since it was beg")
    with pytest.raises(UsageError, match="the supernet has other weights"):
        ofa_tf.load_job(copy).finetuned("small")


def test_an_unfinished_one_is_not_given(copy):
    folder = CheckpointFolder(copy / "finetuned" / "small" / "checkpoints")
    state = folder.load_newest() | {"finished": False}
    folder.save(state["step"], state, weights(folder.newest()))
    with pytest.raises(UsageError, match=r"in .*small is not finished\. Run ofa-finetune again\."):
        ofa_tf.load_job(copy).finetuned("small")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--subnets=small,tiny"], "search.json has no subnet 'tiny'; it has small, large."),
        (["--epochs=0"], "Phase finetune needs positive epochs, base_lr and subnets_per_step"),
        (["--epochs=nan"], "Phase finetune needs positive epochs"),
        (["--epochs=-1"], "not -1.0,"),
        (["--base_lr=0"], "Phase finetune needs positive epochs"),
        (["--warmup_epochs=30"], "warmup_epochs is from 0 to its 25.0 epochs, not 30.0"),
        (["--epochs=many"], "flag --epochs=many"),
    ],
)
def test_bad_flags(searched, args, expected):
    assert_one_message(run("finetune", f"--workdir={searched}", *args), 2, expected)
    assert not (searched / "finetuned").exists()


def test_what_there_is_not(job, tmp_path):
    ended = run("finetune", f"--workdir={job}")
    assert_one_message(ended, 2, f"{job / 'search.json'} is missing. Run ofa-search first.")
    search(job)
    ended = run("finetune", f"--workdir={job}")
    assert_one_message(ended, 2, "search.json has no subnets. Run ofa-search again.")
    config = json.loads((job / "config.json").read_text())
    write_json(job / "config.json", config | {"data": None})
    ended = run("finetune", f"--workdir={job}")
    assert_one_message(ended, 2, "has no images, which this command needs: give --data_dir or --d")
    ended = run("finetune", f"--workdir={tmp_path / 'nothing'}")
    assert_one_message(ended, 2, "holds no job. Run ofa-train or ofa-import")


@pytest.mark.slow
def test_interrupted_and_killed_it_ends_like_an_undisturbed_run(searched, tmp_path):
    """SIGTERM amid the first subnet, `kill -9` amid the second; bit for bit."""
    undisturbed = shutil.copytree(searched, tmp_path / "undisturbed")
    args = ["finetune", "--epochs=1", "--base_lr=0.02", "--ema_decay=0.5", "--deterministic"]
    ended = finish(start(*args, f"--workdir={undisturbed}"))
    assert ended.code == 0, ended.err
    assert [line.split(":")[0] for line in ended.out.splitlines()] == ["small", "large"]

    every_step = [f"--workdir={searched}", "--checkpoint_minutes=0"]
    process = start(*args, *every_step)
    wait_for_step(process, searched / "finetuned" / "small", 3)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.code == 143, ended.err
    assert ended.message == "finetune.py: interrupted. Run the same command again to go on."

    process = start(*args, *every_step)
    wait_for_step(process, searched / "finetuned" / "large", 2)
    process.kill()
    assert finish(process).code == -signal.SIGKILL

    ended = finish(start(*args, *every_step))
    assert ended.code == 0, ended.err
    assert f"{searched / 'finetuned' / 'small'} is fine-tuned already." in ended.err
    for name in ARCHS:
        last = f"finetuned/{name}/checkpoints/step_000000009.npz"
        mine, theirs = weights(searched / last), weights(undisturbed / last)
        assert mine.keys() == theirs.keys()
        for key, array in theirs.items():
            np.testing.assert_array_equal(mine[key], array, err_msg=f"{name} {key}")
