"""Two commands on one job, and commands that are told to end."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest
from cli_helpers import TRAIN, assert_one_message, finish, run, start
from test_locks import held

from ofa_tf.spaces import get_space

TINY = get_space("ofa_mbv3_tiny")
SANDWICH = ("--schedule=sandwich", "--phases=sandwich", "--epochs=1", "--base_lr=0.1")


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("train", TRAIN),
        ("import", ("--space=ofa_mbv3_tiny", "--checkpoint=x.pth")),
        ("predictor", ()),
        ("predictor", ("--worker=1", "--num_workers=2")),
        ("search", ()),
        ("finetune", ()),
        ("export", ()),
        ("quickstart", TRAIN),
    ],
)
def test_what_writes_leaves_a_job_that_another_writes_to_alone(job, images, command, args):
    if command in ("train", "quickstart"):
        args = (*args, f"--data_dir={images}")
    row = {"name": "a", "arch": TINY.max().to_dict(), "predicted_accuracy": 0.5}
    (job / "search.json").write_text(json.dumps({"subnets": [row]}))
    before = {path: path.stat().st_mtime_ns for path in job.rglob("*")}
    with held(job / ".lock") as holder:
        ended = run(command, *args, f"--workdir={job}")
    assert_one_message(ended, 1, f"{job} is in use: process {holder.pid} on ", "Wait until it ends")
    (job / ".lock").unlink()
    assert {path: path.stat().st_mtime_ns for path in job.rglob("*")} == before


def test_reading_a_job_that_another_writes_to_is_free(job):
    with held(job / ".lock"):
        for command in ("eval", "report"):
            ended = run(command, f"--workdir={job}")
            assert ended.code == 0, ended.err


def test_one_latency_table_of_a_device_is_measured_at_a_time(tmp_path):
    args = ("--space=ofa_mbv3_tiny", "--num_classes=3", f"--workdir={tmp_path}")
    with held(tmp_path / ".latency_host.lock") as holder:
        ended = run("latency", *args)
    assert_one_message(ended, 1, "host is being measured for ", f"process {holder.pid} on ")


def wait_for(path: pathlib.Path, process: subprocess.Popen) -> None:
    """Waits until there is something in a file."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size:
                break
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_says_so_and_leaves_nothing_half(tmp_path, number):
    workdir = tmp_path / "job"
    args = ("--space=ofa_mbv3_tiny", "--num_classes=3", f"--workdir={workdir}")
    process = start("latency", *args)
    wait_for(workdir / ".latency_host.lock", process)
    process.send_signal(number)
    ended = finish(process)
    assert_one_message(ended, 128 + number, "interrupted. Run the same command again to go on.")
    assert not workdir.exists() or not [each for each in os.listdir(workdir) if each[0] == "."]


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As SIGHUP is under nohup."""

    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    workdir = tmp_path / "job"
    args = ("--space=ofa_mbv3_tiny", "--num_classes=3", f"--workdir={workdir}")
    process = start("latency", *args, preexec_fn=ignore)
    wait_for(workdir / ".latency_host.lock", process)
    process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert process.poll() is None
    process.terminate()
    assert finish(process).code == 128 + signal.SIGTERM
