"""Runs the command: `python -m mobile_bench`."""

import sys

from mobile_bench.cli import main

sys.exit(main())
