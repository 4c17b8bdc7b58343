"""ofa-train and ofa-eval on a folder of images: interrupted, killed, run again, done."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest
from cli_helpers import TRAIN, assert_one_message, finish, run, start, wait_for_step, weights


def test_training_leaves_a_job(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["space"] == "ofa_mbv3_tiny"
    assert config["class_names"] == ["blue", "green", "red"]
    assert [phase["name"] for phase in config["recipe"]["phases"]] == ["largest", "kernel"]
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == [
        "phase_kernel.npz",
        "phase_largest.npz",
        "step_000000009.npz",
        "step_000000018.npz",
    ]
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("when", "epoch") for row in rows] == [
        *("epoch", "after"),
        *("before", "epoch", "after"),
    ]
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))


def checkpoint_steps(workdir) -> list[int]:
    return sorted(
        int(path.stem.removeprefix("step_"))
        for path in (workdir / "checkpoints").glob("step_*.npz")
    )


def assert_same_checkpoint(workdir, expected, name: str) -> None:
    """Bit for bit, weights, velocities and averages."""
    mine, theirs = (weights(each / "checkpoints" / name) for each in (workdir, expected))
    assert mine.keys() == theirs.keys()
    for key, array in theirs.items():
        np.testing.assert_array_equal(mine[key], array, err_msg=key)


@pytest.mark.slow
def test_interrupted_and_killed_it_ends_like_an_undisturbed_run(trained, images, tmp_path):
    """SIGTERM amid the first phase, `kill -9` amid the second, then to the end."""
    workdir = tmp_path / "job"
    args = ["train", *TRAIN, "--deterministic", f"--data_dir={images}", f"--workdir={workdir}"]
    every_step = ["--checkpoint_minutes=0", "--keep_checkpoints=3"]
    process = start(*args, *every_step)
    wait_for_step(process, workdir, 3)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.code == 143, ended.err
    assert "Traceback" not in ended.err
    assert ended.message == "train.py: interrupted. Run the same command again to go on."
    stopped_at = checkpoint_steps(workdir)
    assert len(stopped_at) == 3
    assert 3 <= stopped_at[-1] < 9

    process = start(*args, *every_step)
    wait_for_step(process, workdir, 12)
    process.kill()
    assert finish(process).code == -signal.SIGKILL

    ended = finish(start(*args))
    assert ended.code == 0, ended.err
    assert_same_checkpoint(workdir, trained, "step_000000018.npz")
    assert_same_checkpoint(workdir, trained, "phase_kernel.npz")
    mine, expected = (
        [json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()]
        for each in (workdir, trained)
    )
    assert [(row["step"], row.get("accuracy")) for row in mine] == [
        (row["step"], row.get("accuracy")) for row in expected
    ]


KILLS = 5
THREE_PHASES = (
    "--phases=largest,kernel,expand2",
    "--epochs=0.7,0.7,0.7",
    "--base_lr=0.05,0.05,0.05",
    "--subnets_per_step=1,1,2",
    "--ema_decay=0.8",
    "--eval_images=10",
    "--deterministic",
)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_again_and_again_it_ends_bit_for_bit_like_an_undisturbed_run(images, tmp_path):
    """At random moments, and at those at which the files of a phase appear."""
    args = ["train", *TRAIN, *THREE_PHASES, f"--data_dir={images}"]
    ended = finish(start(*args, f"--workdir={tmp_path}/undisturbed"))
    assert ended.code == 0, ended.err
    last = checkpoint_steps(tmp_path / "undisturbed")[-1]

    workdir = tmp_path / "killed"
    rng = random.Random(0)
    killed_at = []
    for kill in range(KILLS):
        process = start(*args, f"--workdir={workdir}", "--checkpoint_minutes=0")
        # Of every other start the next step's file; else the next phase's: then the kill is
        # between a phase's files, or as the next phase begins.
        found = (_phase_files, checkpoint_steps)[kill % 2]
        _wait_for_more(process, found, workdir)
        time.sleep(rng.uniform(0, 1) if kill % 2 else rng.choice((0.0, 0.01, 0.1)))
        process.kill()
        finish(process)
        killed_at.append(checkpoint_steps(workdir)[-1] if checkpoint_steps(workdir) else 0)
        if killed_at[-1] == last:  # all is done: begin anew
            assert_same_checkpoint(workdir, tmp_path / "undisturbed", f"step_{last:09d}.npz")
            shutil.rmtree(workdir)
    ended = finish(start(*args, f"--workdir={workdir}"))
    assert ended.code == 0, ended.err
    assert len(set(killed_at)) >= KILLS // 2 - 1, killed_at
    assert_same_checkpoint(workdir, tmp_path / "undisturbed", f"step_{last:09d}.npz")
    for phase in ("largest", "kernel", "expand2"):
        assert_same_checkpoint(workdir, tmp_path / "undisturbed", f"phase_{phase}.npz")


def _phase_files(workdir) -> list[str]:
    return sorted(path.name for path in (workdir / "checkpoints").glob("phase_*.npz"))


def _wait_for_more(process, found, workdir) -> None:
    """Until other files are found than are now, or the process ends."""
    before = found(workdir)
    deadline = time.monotonic() + 300
    while process.poll() is None and found(workdir) == before:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_another_recipe_goes_on_where_it_is_allowed(job, images):
    """The one phase more begins with what is there; and it is named where it is not allowed."""
    more = [*TRAIN, "--phases=largest,kernel,depth2", "--epochs=1,1,0.2", "--base_lr=1,1,0.05"]
    args = ["train", *more, f"--data_dir={images}", f"--workdir={job}", "--ema_decay=0.9"]
    before = (job / "config.json").read_text()
    ended = run(*args)
    assert_one_message(
        ended,
        2,
        "--base_lr was 0.05,0.05, is 1,1,0.05; --ema_decay was 0, is 0.9; "
        "--epochs was 1,1, is 1,1,0.2; ",
        "the recipe may change with --allow_recipe_change.",
    )
    assert (job / "config.json").read_text() == before
    done = {path: path.stat().st_mtime_ns for path in (job / "checkpoints").glob("phase_*")}
    ended = run(*args, "--allow_recipe_change")
    assert ended.code == 0, ended.err
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert (job / "checkpoints" / "phase_depth2.npz").exists()
    config = json.loads((job / "config.json").read_text())
    assert config["recipe"]["ema_decay"] == 0.9
    assert [phase["epochs"] for phase in config["recipe"]["phases"]] == [1.0, 1.0, 0.2]
    ended = run(*args)  # it is the job's recipe now
    assert ended.code == 0, ended.err


FORMS = {
    "growing": ("--schedule=growing", "--phases=growing", "--warmup_epochs=0.1"),
    "sandwich": (
        *("--schedule=sandwich", "--phases=sandwich", "--precision=bfloat16"),
        *("--subnets_per_step=3", "--mixup_alpha=0.4", "--activation=swish"),
    ),
    "single": ("--schedule=single", "--phases=single", "--arch=smallest"),
    "mask": ("--elastic=mask", "--xla", "--clip_norm=0.5", "--kd_loss=mse", "--phases=largest"),
    "float16": (
        *("--precision=float16", "--ema_decay=0.9", "--randaugment_layers=2"),
        *("--accumulation_steps=2", "--phases=largest"),
    ),
}


# The forms themselves are tested in tests/training; here, that their flags reach them.
@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[pytest.mark.slow] * (form != "growing")) for form in FORMS]
)
def test_every_form_of_training_trains(form, images, tmp_path):
    """A few steps leave finite weights that moved, and a job that others can go on with."""
    options = ["--epochs=0.5", "--base_lr=0.05", "--checkpoint_minutes=0", "--eval_images=5"]
    options += ["--keep_checkpoints=9", *FORMS[form]]
    workdir = tmp_path / "job"
    ended = run("train", *TRAIN, *options, f"--data_dir={images}", f"--workdir={workdir}")
    assert ended.code == 0, ended.err
    names = sorted(path.name for path in (workdir / "checkpoints").glob("step_*.npz"))
    assert len(names) >= 2
    first, last = (weights(workdir / "checkpoints" / name) for name in (names[0], names[-1]))
    mine = {name: array for name, array in last.items() if name.startswith("weights/")}
    assert all(np.all(np.isfinite(array)) for array in last.values())
    moved = sum(bool(np.any(first[name] != array)) for name, array in mine.items())
    # Phase largest leaves the kernel transforms alone, a small subnet the blocks that it lacks.
    assert moved > (0.4 if form in ("growing", "single") else 0.8) * len(mine)
    has = {name.split("/")[0] for name in last}
    assert has - {"weights", "velocities"} == (
        {"average", "loss_scale"} if form == "float16" else set()
    )
    config = json.loads((workdir / "config.json").read_text())
    assert config["space"] == "ofa_mbv3_tiny" + "-swish" * (form == "sandwich")
    ended = run("eval", f"--workdir={workdir}", "--arch=smallest")
    assert ended.code == 0, ended.err


def test_an_arch_that_is_none_or_missing_is_refused(images, tmp_path):
    args = ["--phases=single", "--epochs=1", "--base_lr=0.1", f"--data_dir={images}"]
    args += ["--space=ofa_mbv3_tiny", "--schedule=single", f"--workdir={tmp_path / 'job'}"]
    assert_one_message(run("train", *args), 2, "arch goes with phase finetune or single")
    ended = run("train", *args, "--arch=middle")
    assert_one_message(ended, 2, "--arch is largest, smallest, or the path", "'middle'")
    assert not (tmp_path / "job").exists()


def test_an_activation_that_a_space_cannot_have():
    args = ["--space=ofa_proxyless_w1.3", "--activation=relu6", "--workdir=x"]
    ended = run("train", *args)
    assert_one_message(ended, 2, "ofa_proxyless_w1.3 cannot have the activation 'relu6'")
    ended = run("train", "--activation=gelu", "--workdir=x")
    assert_one_message(ended, 2, "--activation=gelu", "swish")


def test_a_job_keeps_its_activation(trained, images):
    args = ["train", *TRAIN, "--activation=relu6", f"--data_dir={images}", f"--workdir={trained}"]
    told = "--space was ofa_mbv3_tiny, is ofa_mbv3_tiny-relu6"
    assert_one_message(run(*args), 2, told)


def test_a_second_run_retrains_nothing(trained, images):
    logs = trained / "tensorboard"
    kept = [path for path in trained.rglob("*") if path.is_file() and logs not in path.parents]
    before = {path: path.stat().st_mtime_ns for path in kept}
    ended = run("train", *TRAIN, f"--data_dir={images}", f"--workdir={trained}")
    assert ended.code == 0
    assert ended.message == f"Trained. The supernet is in {trained / 'checkpoints'}."
    assert "largest:" not in ended.err  # the progress bar of a phase
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_eval_prints_a_line_per_arch(trained, tmp_path):
    path = tmp_path / "arch.json"
    path.write_text('{"ks": [3,5,7,3,5,7], "e": [2,3,4,2,3,4], "d": [1,2,2], "r": 28}')
    archs = f"--arch=largest,smallest,{path}"
    ended = run("eval", f"--workdir={trained}", archs, "--split=validation")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["largest", "smallest", str(path)]
    pattern = (
        r"[\d.]+ % on the validation images, (32|24|28) px, [\d.]+ M MACs, [\d.]+ k parameters"
    )
    found = [re.fullmatch(pattern, line.split(": ", 1)[1]) for line in lines]
    assert [match[1] for match in found] == ["32", "24", "28"]
    again = run("eval", f"--workdir={trained}", archs, "--split=validation")
    assert again.out == ended.out


def test_eval_at_another_resolution(trained):
    ended = run("eval", f"--workdir={trained}", "--arch=largest", "--resolution=24")
    assert ", 24 px, " in ended.out
