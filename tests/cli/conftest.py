"""A folder of images, and a job that was trained on it."""

import shutil

import pytest
from cli_helpers import TRAIN, finish, start, write_images


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """train/ and test/ with three classes: 147 training, 15 validation and 30 test images."""
    root = tmp_path_factory.mktemp("images")
    write_images(root / "train", dict.fromkeys(("blue", "green", "red"), 54))
    write_images(root / "test", dict.fromkeys(("blue", "green", "red"), 10), seed=1)
    return root


@pytest.fixture(scope="session")
def trained(images, tmp_path_factory):
    """The workdir of a run without interruption; not to be changed.

    In a process of its own: --deterministic is for a whole process.
    """
    workdir = tmp_path_factory.mktemp("trained") / "job"
    args = [*TRAIN, "--deterministic", f"--data_dir={images}", f"--workdir={workdir}"]
    ended = finish(start("train", *args))
    assert ended.code == 0, ended.err
    return workdir


@pytest.fixture
def job(trained, tmp_path):
    """A copy of the trained job, to be spoiled."""
    return shutil.copytree(trained, tmp_path / "job")
