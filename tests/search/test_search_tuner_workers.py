"""SubnetTuner on a chief and two workers: three processes, one of which is killed on the way."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
from search_helpers import TINY
from tuner_worker import MAX_TRIALS, search

from ofa_tf.spaces import Arch

FOLDER = pathlib.Path(__file__).parent
TIMEOUT = 200  # seconds for a process; keras-tuner's chief looks for its end every 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Processes:
    """Starts chief and workers of one search; kills what is left of them in the end."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.all: list[subprocess.Popen] = []
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(FOLDER.parents[1]), str(FOLDER)]),
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(free_port()),
            "no_proxy": "127.0.0.1",
            "no_grpc_proxy": "127.0.0.1",
        }

    def start(self, name: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, str(FOLDER / "tuner_worker.py"), str(self.folder)],
            env=self.environment | {"KERASTUNER_TUNER_ID": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.all.append(process)
        return process

    def kill(self) -> None:
        for process in self.all:
            process.kill()
            process.communicate()


@pytest.fixture
def processes(tmp_path):
    started = Processes(tmp_path)
    yield started
    started.kill()


@pytest.mark.slow
def test_two_workers_and_a_chief_do_every_trial_once(processes, tmp_path, capsys):
    chief = processes.start("chief")
    steady, mortal = processes.start("steady"), processes.start("mortal")
    mortal.communicate(timeout=TIMEOUT)
    assert mortal.returncode == -signal.SIGKILL
    again = processes.start("mortal")
    outputs = []
    for process in (steady, again, chief):
        output, _ = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, output
        outputs.append(output)

    logs = [(tmp_path / f"{name}.jsonl").read_text() for name in ("steady", "mortal")]
    evaluated = [Arch.from_dict(json.loads(line)) for log in logs for line in log.splitlines()]
    assert all(logs)
    assert len(evaluated) == len(set(evaluated)) == MAX_TRIALS

    # A process without chief goes on from there, finds all done, and prints what the chief did.
    capsys.readouterr()
    tuner = search(tmp_path, "alone")
    tuner.results_summary(3)
    assert capsys.readouterr().out.splitlines()[-3:] == outputs[-1].splitlines()[-3:]
    trials = tuner.oracle.trials.values()
    assert {trial.status for trial in trials} == {"COMPLETED"}
    assert {tuner.oracle.arch(trial) for trial in trials} == set(evaluated)
    best = tuner.best_archs(1)[0]
    assert TINY.arch(best) == tuner.oracle.arch(max(trials, key=lambda trial: trial.score))
