"""The largest and the smallest subnet of a supernet that tells ten kinds of images apart.

Exported once for all tests: a conversion takes seconds.
"""

from __future__ import annotations

import numpy as np
import pytest
from export_helpers import NUM_CLASSES, Exported, export

from ofa_tf.models import Supernet
from ofa_tf.spaces import get_space


@pytest.fixture(scope="session")
def supernet() -> Supernet:
    """The tiny space with weights under which outputs differ between images and archs."""
    supernet = Supernet(get_space("ofa_mbv3_tiny"), NUM_CLASSES)
    rng = np.random.default_rng(0)
    for variable in supernet.variables:
        shape, name = variable.shape, variable.name
        if name in ("gamma", "moving_variance"):
            value = rng.uniform(0.7, 1.4, shape)
        elif len(shape) < 2:
            value = rng.normal(0, 0.2, shape)
        else:
            fan_in = np.prod(shape[:-1]) if shape[-1] > 1 else np.prod(shape[:2])
            value = rng.normal(0, np.sqrt(2 / fan_in), shape)
        variable.assign(value.astype(np.float32))
    return supernet


@pytest.fixture(scope="session")
def exports(supernet, tmp_path_factory) -> dict[str, Exported]:
    folder = tmp_path_factory.mktemp("subnets")
    return {which: export(supernet, which, folder / which) for which in ("max", "min")}


@pytest.fixture(params=["max", "min"])
def exported(request, exports) -> Exported:
    return exports[request.param]


@pytest.fixture
def smallest(exports) -> Exported:
    return exports["min"]
