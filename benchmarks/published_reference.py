"""The PyTorch reference's predictors and search, from published files: `pip install ofa torch`."""

from __future__ import annotations

import functools
import importlib.util
import io
import pathlib
import random
import sys
import types
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from typing import Any

import numpy as np
import reference  # noqa: F401 (stands in for torchvision, which the imports below ask for)
import torch
import yaml

if importlib.util.find_spec("gdown") is None:
    sys.modules["gdown"] = types.ModuleType("gdown")  # the reference downloads with it

from ofa.tutorial.accuracy_predictor import AccuracyPredictor
from ofa.tutorial.evolution_finder import EvolutionFinder
from ofa.tutorial.latency_table import LatencyEstimator

Choices = dict[str, Any]  # an arch as the reference has it


def accuracy_predictor(folder: pathlib.Path) -> AccuracyPredictor:
    """The predictor in acc_predictor.pth of a folder."""
    predictor = AccuracyPredictor(pretrained=False, device="cpu")
    path = folder / "acc_predictor.pth"
    predictor.model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return predictor


def latency_predictor(
    folder: pathlib.Path, resolutions: Iterable[int]
) -> Callable[[Choices], float]:
    """The latency of an arch by the tables in the folder note10 of a folder."""
    # It calls yaml.load without a loader, as was possible when it was written.
    load = yaml.load
    yaml.load = functools.partial(load, Loader=yaml.SafeLoader)
    tables = {
        side: LatencyEstimator(url=str(folder / "note10" / f"{side}_lookup_table.yaml"))
        for side in resolutions
    }
    yaml.load = load
    return lambda choices: tables[choices["r"][0]].predict_network_latency_given_spec(choices)


def search(folder: pathlib.Path, resolutions: Iterable[int]) -> Callable[[float, int], float]:
    """The reference's search: of a budget in ms and a seed, the accuracy that it finds."""
    accuracy = accuracy_predictor(folder)
    # What its LatencyTable does, with tables that are on disk.
    latency = types.SimpleNamespace(predict_efficiency=latency_predictor(folder, resolutions))

    def run(budget: float, seed: int) -> float:
        random.seed(seed)
        np.random.seed(seed)
        finder = EvolutionFinder("note10", budget, latency, accuracy)
        with redirect_stderr(io.StringIO()):  # its progress bar
            _, best = finder.run_evolution_search()
        return float(best[0])

    return run
