"""One supernet for all tests of this folder: its graphs take seconds to trace."""

from __future__ import annotations

import pytest
from model_helpers import make_supernet, without_dropout

from ofa_tf.models import Supernet
from ofa_tf.spaces import get_space


@pytest.fixture(scope="session")
def supernet() -> Supernet:
    """The tiny space without dropout. Tests leave its variables as they found them."""
    return make_supernet(without_dropout(get_space("ofa_mbv3_tiny")))
