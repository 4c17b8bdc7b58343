"""A folder of drawn shapes as data, and a tiny supernet; made once, for they take seconds."""

import pytest
from one_stage import TINY
from training_helpers import CLASSES, randomize, restore, values, write_shapes

from ofa_tf.data import load_dataset
from ofa_tf.models import Supernet


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """144 training, 16 validation and 40 test images of four classes."""
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root / "train", 40, seed=0)
    write_shapes(root / "test", 10, seed=1)
    return load_dataset(data_dir=str(root))


@pytest.fixture(scope="session")
def shared_supernet():
    return Supernet(TINY, len(CLASSES))


@pytest.fixture
def supernet(shared_supernet):
    """The tiny space with weights under which its subnets differ; put back after each test."""
    randomize(shared_supernet)
    before = values(shared_supernet.variables)
    yield shared_supernet
    restore(shared_supernet.variables, before)
