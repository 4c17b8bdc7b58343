"""report.html: all that the files of a job tell, on one page that needs nothing but itself.

`read_report` gathers the files into records, `render` makes the page of them.
"""

from ofa_tf.report.page.job_report import JobReport, Predicted, read_report
from ofa_tf.report.page.prediction import latency_files
from ofa_tf.report.page.render import render

__all__ = ["JobReport", "Predicted", "latency_files", "read_report", "render"]
