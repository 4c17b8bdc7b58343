"""The same training on one device, on two replicas of a process, and in two processes."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from one_stage import TINY
from training_helpers import CLASSES, randomize, write_shapes

from ofa_tf.errors import FailureError
from ofa_tf.models import Supernet
from ofa_tf.training import checkpoints
from ofa_tf.training import strategy as strategies

SCRIPT = pathlib.Path(__file__).with_name("distributed_worker.py")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder of images, and the checkpoints of a phase before."""
    root = tmp_path_factory.mktemp("distributed")
    write_shapes(root / "data" / "train", 40, seed=0)
    write_shapes(root / "data" / "test", 10, seed=1)
    supernet = Supernet(TINY, len(CLASSES))
    for phase, seed in (("largest", 0), ("depth2", 1)):
        randomize(supernet, seed)
        arrays = checkpoints.snapshot(weights=supernet.variables)
        checkpoints.save(root / f"phase_{phase}.npz", {"phase": phase}, arrays)
    return root


def spawn(
    start, workdir, strategy, accumulation_steps=1, phase="expand2", **environment
) -> subprocess.Popen:
    command = [SCRIPT, strategy, phase, start / "data", start / "phase_depth2.npz", workdir]
    return subprocess.Popen(
        [sys.executable, *map(str, command), str(accumulation_steps)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def cluster(count: int) -> list[dict[str, str]]:
    """TF_CONFIG of each of so many workers on this host."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(count)]
    tasks = [{"type": "worker", "index": index} for index in range(count)]
    return [
        {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task})} for task in tasks
    ]


def on_one_device(start, phase):
    """The workdir of one device that takes the batch in two halves, as two replicas do."""
    workdir = start / f"one_device_{phase}"
    finish(spawn(start, workdir, "one_device", accumulation_steps=2, phase=phase))
    return workdir


@pytest.fixture(scope="module")
def one_device(start):
    return on_one_device(start, "expand2")


def assert_same_training(workdir, expected) -> None:
    """The weights of a run agree with another's, and so do the accuracies on the way."""
    newest = "checkpoints/step_000000020.npz"
    with np.load(workdir / newest) as mine, np.load(expected / newest) as theirs:
        before = np.load(expected.parent / "phase_depth2.npz")
        names = [variable.name for variable in Supernet(TINY, len(CLASSES)).variables]
        moved = 0
        for i, name in enumerate(names):
            if name.startswith("moving"):
                continue  # each replica's own; they are recalibrated before they count
            key = f"weights/{i:04d}"
            np.testing.assert_allclose(mine[key], theirs[key], rtol=1e-5, atol=1e-5, err_msg=name)
            moved += np.abs(theirs[key] - before[key]).max() > 1e-3
        assert moved > len(names) / 3
    rows = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (workdir, expected)
    ]
    mine, theirs = ([row for row in each if "accuracy" in row] for each in rows)
    assert [row["when"] for row in mine] == ["before", "after"]
    for a, b in zip(mine, theirs, strict=True):
        assert a["accuracy"] == pytest.approx(b["accuracy"])
    assert len(set(mine[-1]["accuracy"].values())) > 3


@pytest.mark.slow
def test_two_replicas_in_one_process(start, one_device):
    workdir = start / "cores"
    finish(spawn(start, workdir, "cores"))
    assert_same_training(workdir, one_device)


@pytest.mark.slow
def test_growing_is_the_same_on_two_replicas(start):
    workdir = start / "growing"
    finish(spawn(start, workdir, "cores", phase="growing"))
    assert_same_training(workdir, on_one_device(start, "growing"))


@pytest.mark.parametrize(
    ("cores", "batch_size", "expected"),
    [(1, 128, 1), (2, 128, 2), (2, 64, 2), (2, 63, 1), (2, 32, 1), (3, 128, 2), (16, 128, 4)],
)
def test_each_replica_has_enough_images_for_batch_norm(cores, batch_size, expected):
    assert strategies.most_replicas(cores, batch_size) == expected


@pytest.mark.slow
def test_two_worker_processes(start, one_device):
    workdir = start / "multi_worker"
    workers = [spawn(start, workdir, "multi_worker", **config) for config in cluster(2)]
    for worker in workers:
        finish(worker)
    assert_same_training(workdir, one_device)


def test_a_worker_lost_before_the_training_is_one_failure(monkeypatch):
    alone = tf.distribute.get_strategy()
    lost = tf.errors.UnavailableError(None, None, "Connection reset by peer\nmore of it")
    with pytest.raises(tf.errors.UnavailableError), strategies.lost_worker_told(alone):
        raise lost
    monkeypatch.setattr(strategies, "num_workers", lambda strategy: 2)
    with pytest.raises(FailureError) as error, strategies.lost_worker_told(alone):
        raise lost
    assert str(error.value).startswith("The workers could not start together")
    assert str(error.value).endswith("(Connection reset by peer)")
