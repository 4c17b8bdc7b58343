"""The largest and the smallest subnet of a supernet that tells ten kinds of images apart.

Exported once for all tests: a conversion takes seconds.
"""

from __future__ import annotations

import pytest
from export_helpers import NUM_CLASSES, Exported, draw_weights, export

from ofa_tf.models import Supernet
from ofa_tf.spaces import get_space


@pytest.fixture(scope="session")
def supernet() -> Supernet:
    """The tiny space with weights under which outputs differ between images and archs."""
    supernet = Supernet(get_space("ofa_mbv3_tiny"), NUM_CLASSES)
    draw_weights(supernet)
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
