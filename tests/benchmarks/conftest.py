"""The scripts import each other by name, as they do when Python runs one of them."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))
