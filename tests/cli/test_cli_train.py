"""ofa-train and ofa-eval on a folder of images: interrupted, killed, run again, done."""

from __future__ import annotations

import json
import re
import signal

import numpy as np
from cli_helpers import TRAIN, finish, run, start, wait_for_step, weights


def test_training_leaves_a_job(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["space"] == "ofa_mbv3_tiny"
    assert config["class_names"] == ["blue", "green", "red"]
    assert [phase["name"] for phase in config["recipe"]["phases"]] == ["largest", "kernel"]
    names = sorted(path.name for path in (trained / "checkpoints").iterdir())
    assert names == ["step_000000009.npz", "step_000000018.npz", "teacher.npz"]


def test_interrupted_and_killed_it_ends_like_an_undisturbed_run(trained, images, tmp_path):
    """SIGTERM amid the first phase, `kill -9` amid the second, then to the end."""
    workdir = tmp_path / "job"
    args = ["train", *TRAIN, f"--data_dir={images}", f"--workdir={workdir}"]
    process = start(*args, "--checkpoint_minutes=0")
    wait_for_step(process, workdir, 3)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.code == 143, ended.err
    assert "Traceback" not in ended.err
    assert ended.message == "train.py: interrupted. Run the same command again to go on."

    process = start(*args, "--checkpoint_minutes=0")
    wait_for_step(process, workdir, 12)
    process.kill()
    assert finish(process).code == -signal.SIGKILL

    ended = run(*args)
    assert ended.code == 0, ended.err
    newest = "checkpoints/step_000000018.npz"
    mine, expected = weights(workdir / newest), weights(trained / newest)
    assert mine.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(mine[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_second_run_retrains_nothing(trained, images):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    ended = run("train", *TRAIN, f"--data_dir={images}", f"--workdir={trained}")
    assert ended.code == 0
    assert ended.message == f"Trained. The supernet is in {trained / 'checkpoints'}."
    assert "largest:" not in ended.err  # the progress bar of a phase
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


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
