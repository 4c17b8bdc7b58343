"""What came out, for people: the table and the pictures of the chosen subnets."""

from ofa_tf.report.front import front_table, plot_front
from ofa_tf.report.plots import plot_architectures, plot_pareto
from ofa_tf.report.scatter import plot_predictions
from ofa_tf.report.table import file_table, markdown_table, text_table

__all__ = [
    "file_table",
    "front_table",
    "markdown_table",
    "plot_architectures",
    "plot_front",
    "plot_pareto",
    "plot_predictions",
    "text_table",
]
