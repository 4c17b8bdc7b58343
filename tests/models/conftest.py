"""One supernet of each family for all tests of this folder: its graphs take seconds to trace."""

from __future__ import annotations

import functools

import pytest
from model_helpers import TINY_SPACES, make_supernet, without_dropout

from ofa_tf.models import Supernet


@pytest.fixture(scope="session")
def supernet(request) -> Supernet:
    """A tiny space without dropout. Tests leave its variables as they found them.

    MobileNetV3, unless a test is parametrized with others (`every_family`).
    """
    return _shared(getattr(request, "param", "mbv3"))


@functools.cache
def _shared(family: str) -> Supernet:
    return make_supernet(without_dropout(TINY_SPACES[family]))
