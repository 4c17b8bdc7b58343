"""What came out, for people: the table and the pictures of the chosen subnets."""

from ofa_tf.report.plots import plot_architectures, plot_pareto
from ofa_tf.report.table import markdown_table, text_table

__all__ = ["markdown_table", "plot_architectures", "plot_pareto", "text_table"]
