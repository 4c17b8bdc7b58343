"""The two predictors and the search over them. NumPy; Keras is loaded only to fit or to build.

Both predictors, like `BlockCosts`, answer for whole arrays of encoded archs.
"""

from ofa_tf.search.accuracy import AccuracyPredictor, collect_accuracies
from ofa_tf.search.evolution import SearchResult, check_reachable, evolve
from ofa_tf.search.latency import LatencyTable
from ofa_tf.search.latency_building import build_latency_table
from ofa_tf.search.pareto import pareto_front, predicted_front

__all__ = [
    "AccuracyPredictor",
    "LatencyTable",
    "SearchResult",
    "build_latency_table",
    "check_reachable",
    "collect_accuracies",
    "evolve",
    "pareto_front",
    "predicted_front",
]
