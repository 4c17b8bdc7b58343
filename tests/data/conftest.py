"""Fixtures of the data tests: a small embedded set, and a folder of images."""

import pytest
from data_helpers import write_classes

from ofa_tf.data import load_dataset
from ofa_tf.data.embedded import OfaDoodles


@pytest.fixture(scope="session")
def doodles(tmp_path_factory):
    """The first 300 training and 100 test images of the embedded set."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OfaDoodles, "SPLIT_SIZES", {"train": 300, "test": 100})
        return load_dataset("ofa_doodles", tfds_dir=folder, num_validation=30)


@pytest.fixture
def image_folder(tmp_path):
    """A folder with train/ and test/, two classes, 40 and 10 images each."""
    root = tmp_path / "pets"
    write_classes(root / "train", {"cat": 40, "dog": 40})
    write_classes(root / "test", {"cat": 10, "dog": 10}, first_seed=1000)
    return root
