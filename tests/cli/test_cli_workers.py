"""Two workers: one of them ends, so does the other; both started again, they go on and finish."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time

import pytest
from cli_helpers import TRAIN, assert_one_message, finish, start, wait_for_step

LONG = ("--phases=largest", "--base_lr=0.05", "--eval_images=5", "--strategy=multi_worker")


def start_workers(count: int, *args: object) -> list[subprocess.Popen]:
    """ofa-train as so many workers on this host."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    tasks = [{"type": "worker", "index": index} for index in range(count)]
    configs = [{"cluster": {"worker": addresses}, "task": task} for task in tasks]
    return [
        start("train", *TRAIN, *LONG, *args, env={"TF_CONFIG": json.dumps(config)})
        for config in configs
    ]


def finish_all(workers: list[subprocess.Popen]) -> list:
    try:
        return [finish(worker) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("victim", [0, 1])
def test_one_worker_killed_ends_the_other_and_both_go_on(images, tmp_path, victim):
    workdir = tmp_path / "job"
    args = [f"--data_dir={images}", f"--workdir={workdir}", "--epochs=20", "--eval_epochs=100"]
    every_step = "--checkpoint_minutes=0"
    workers = start_workers(2, *args, every_step)
    wait_for_step(workers[0], workdir, 3)
    workers[victim].kill()
    killed_at = time.monotonic()
    survivor = finish(workers[1 - victim])
    assert time.monotonic() - killed_at < 60  # the time that is promised
    finish(workers[victim])
    assert_one_message(
        survivor,
        1,
        "Phase largest failed at step ",
        "Another worker may have ended. Run the same command again to go on from the newest "
        "checkpoint, on all workers.",
    )
    for path in (workdir / "checkpoints").glob(".*.tmp"):
        assert victim == 0, path  # the chief may be killed while it writes

    # A signal to either of them stops both.
    reached = max(int(path.stem[5:]) for path in (workdir / "checkpoints").glob("step_*"))
    workers = start_workers(2, *args, every_step)
    wait_for_step(workers[0], workdir, reached + 2)
    workers[victim].send_signal(signal.SIGTERM)
    for ended in finish_all(workers):
        assert ended.code == 143, ended.err
        assert "Traceback" not in ended.err

    ends = start_workers(2, *args, "--epochs=1", "--allow_recipe_change")
    for ended in finish_all(ends):
        assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == sorted(set(steps))  # there is one writer
    assert [row["when"] for row in rows if "when" in row] == ["after"]
