"""The supernet under tf.distribute: replicas keep moving statistics of their own."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest


@pytest.mark.parametrize("elastic", ["slice", "mask"])
def test_moving_statistics_are_the_mean_of_the_replicas(elastic):
    program = pathlib.Path(__file__).with_name("replicas_program.py")
    run = subprocess.run(
        [sys.executable, program, elastic],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    result = json.loads(run.stdout.splitlines()[-1])
    one, other = np.array(result["copies"])
    assert np.abs(one - other).max() > 1e-3  # each saw images of its own
    np.testing.assert_allclose(result["read"], (one + other) / 2, rtol=1e-6, atol=1e-9)
    assert np.ptp(result["norms"]) > 0
    assert np.isfinite(result["norms"]).all()
    assert result["finite"]
    # A checkpoint that is loaded reaches all of them.
    expected = np.arange(len(one))
    np.testing.assert_array_equal(result["assigned"], [expected, expected])
