"""A chief or a worker of a search, as keras-tuner's environment variables say; run by a test.

    python tuner_worker.py FOLDER

In FOLDER, worker NAME appends a line per evaluated arch to NAME.jsonl. A worker evaluates only
while two are there. The one called "mortal" kills itself in the middle of its second trial, once.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import time

from search_helpers import TINY, made_up_accuracy

from ofa_tf.files import append_json
from ofa_tf.search import EvolutionOracle, SubnetTuner
from ofa_tf.spaces import Arch, BlockCosts

MAX_TRIALS = 16


class Evaluation:
    """Made-up accuracies, and a record of them."""

    def __init__(self, folder: pathlib.Path, name: str):
        self.folder, self.name = folder, name
        self.accuracy = made_up_accuracy(TINY)

    def __call__(self, arch: Arch) -> float:
        there = self.folder / f"{self.name}.there"
        there.touch()
        while len(list(self.folder.glob("*.there"))) < 2:
            time.sleep(0.05)
        log, killed = self.folder / f"{self.name}.jsonl", self.folder / "killed"
        if self.name == "mortal" and log.exists() and not killed.exists():
            killed.touch()
            there.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        append_json(log, arch.to_dict())
        return float(self.accuracy(TINY.encode([arch]))[0])


def search(folder: pathlib.Path, name: str) -> SubnetTuner:
    macs = BlockCosts(TINY, lambda block, resolution: block.macs, num_classes=10)
    oracle = EvolutionOracle(
        TINY,
        {"macs": (macs, 1.5 * macs.minimum()[0])},
        max_trials=MAX_TRIALS,
        population_size=6,
        sample_size=2,
    )
    tuner = SubnetTuner(oracle, Evaluation(folder, name), directory=folder, project_name="tuner")
    tuner.search(verbose=0)
    return tuner


if __name__ == "__main__":
    search(pathlib.Path(sys.argv[1]), os.environ["KERASTUNER_TUNER_ID"]).results_summary(3)
