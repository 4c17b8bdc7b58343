"""The PyTorch reference's predictors and search, from published files: `pip install ofa torch`."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import sys
import types
from collections.abc import Iterable

import reference  # noqa: F401 (stands in for torchvision, which the imports below ask for)
import torch
import yaml

if importlib.util.find_spec("gdown") is None:
    sys.modules["gdown"] = types.ModuleType("gdown")  # the reference downloads with it

from ofa.tutorial.accuracy_predictor import AccuracyPredictor
from ofa.tutorial.evolution_finder import EvolutionFinder
from ofa.tutorial.latency_table import LatencyEstimator

__all__ = ["EvolutionFinder", "accuracy_predictor", "latency_estimators"]


def accuracy_predictor(folder: pathlib.Path) -> AccuracyPredictor:
    """The predictor in acc_predictor.pth of a folder."""
    predictor = AccuracyPredictor(pretrained=False, device="cpu")
    path = folder / "acc_predictor.pth"
    predictor.model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return predictor


def latency_estimators(
    folder: pathlib.Path, resolutions: Iterable[int]
) -> dict[int, LatencyEstimator]:
    """The tables in the folder note10 of a folder, by resolution."""
    # It calls yaml.load without a loader, as was possible when it was written.
    load = yaml.load
    yaml.load = functools.partial(load, Loader=yaml.SafeLoader)
    tables = {
        side: LatencyEstimator(url=str(folder / "note10" / f"{side}_lookup_table.yaml"))
        for side in resolutions
    }
    yaml.load = load
    return tables
