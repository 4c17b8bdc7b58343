"""The two predictors and the search over them. NumPy; Keras is loaded only to fit or to build.

Both predictors, like `BlockCosts`, answer for whole arrays of encoded archs.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ofa_tf.search.accuracy import AccuracyPredictor
from ofa_tf.search.accuracy_rows import collect_accuracies
from ofa_tf.search.evolution import (
    Candidate,
    SearchResult,
    check_reachable,
    evolve,
    evolve_many,
)
from ofa_tf.search.front import pareto_front, predicted_front
from ofa_tf.search.latency import LatencyTable
from ofa_tf.search.latency_building import build_latency_table
from ofa_tf.search.measures import block_measure
from ofa_tf.search.scenarios import Scenario, read_scenarios

if TYPE_CHECKING:
    from ofa_tf.search.tuner import EvolutionOracle, SubnetTuner

__all__ = [
    "AccuracyPredictor",
    "Candidate",
    "EvolutionOracle",
    "LatencyTable",
    "Scenario",
    "SearchResult",
    "SubnetTuner",
    "block_measure",
    "build_latency_table",
    "check_reachable",
    "collect_accuracies",
    "evolve",
    "evolve_many",
    "pareto_front",
    "predicted_front",
    "read_scenarios",
]

# Importing keras-tuner imports TensorFlow, so what needs it is loaded when it is first asked for.
_LOADED_LATER = {
    "EvolutionOracle": "ofa_tf.search.tuner",
    "SubnetTuner": "ofa_tf.search.tuner",
}


def __getattr__(name: str) -> Any:
    if name in _LOADED_LATER:
        return getattr(importlib.import_module(_LOADED_LATER[name]), name)
    raise AttributeError(f"module 'ofa_tf.search' has no attribute {name!r}")
