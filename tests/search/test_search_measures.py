"""Measures that the Blueprint decides: against its own counts, and their least values."""

from __future__ import annotations

import numpy as np
import pytest

from ofa_tf.errors import UsageError
from ofa_tf.search import block_measure
from ofa_tf.search.measures import MEASURES
from ofa_tf.spaces import get_space


@pytest.mark.parametrize("name", ["ofa_mbv3_tiny", "ofa_resnet_tiny", "ofa_proxyless_w1.3"])
def test_they_are_what_the_blueprint_says(name):
    space = get_space(name)
    space = space.restrict(resolutions=space.resolutions[:2])
    codes = space.sample_codes(30, np.random.default_rng(0))
    plans = [space.blueprint(arch, 7) for arch in space.decode(codes)]
    expected = {
        "macs_m": [plan.macs / 1e6 for plan in plans],
        "params_m": [plan.params / 1e6 for plan in plans],
        "memory_kb": [plan.peak_activations * 4 / 1e3 for plan in plans],
    }
    for measure, values in expected.items():
        found = block_measure(measure, space, 7)(codes)
        np.testing.assert_allclose(found, values, rtol=1e-12, err_msg=measure)
    quarter = block_measure("memory_kb", space, 7, "int8")(codes)
    np.testing.assert_allclose(quarter, np.array(expected["memory_kb"]) / 4, rtol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_smallest_arch_has_the_least(measure):
    space = get_space("ofa_mbv3_tiny")
    costs = block_measure(measure, space, 10)
    least, code = costs.minimum()
    assert least == costs(space.encode([space.min()]))[0] == costs(code[None])[0]
    assert least < costs(space.encode([space.max()]))[0]


def test_int8_files_are_smaller():
    space = get_space("ofa_mbv3_w1.0").restrict(resolutions=[224])
    codes = space.encode([space.max(), space.min()])
    float32, int8 = (block_measure("file_kb", space, 1000, p)(codes) for p in ("float32", "int8"))
    assert (0.25 * float32 < int8).all()
    assert (int8 < 0.3 * float32).all()


@pytest.mark.parametrize(
    ("name", "precision", "said"),
    [
        ("watts", "float32", "A measure is one of macs_m, params_m, file_kb, memory_kb"),
        ("file_kb", "int4", "A precision is one of float32, int8, not 'int4'"),
    ],
)
def test_what_there_is_not(name, precision, said):
    with pytest.raises(UsageError, match=said):
        block_measure(name, get_space("ofa_mbv3_tiny"), 10, precision)
