"""What came out, for people: the table and the pictures of the chosen subnets."""

from ofa_tf.report.drawing import architectures_picture
from ofa_tf.report.figures import accuracy_picture, front_picture, tradeoff_picture
from ofa_tf.report.tables import file_table, front_table, markdown_table, text_table

__all__ = [
    "accuracy_picture",
    "architectures_picture",
    "file_table",
    "front_picture",
    "front_table",
    "markdown_table",
    "text_table",
    "tradeoff_picture",
]
