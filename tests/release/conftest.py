"""The release, built once: an sdist, a wheel, and an environment with the wheel in it."""

import pytest
import release_helpers


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A clean copy of the project."""
    folder = tmp_path_factory.mktemp("source")
    release_helpers.copy_project(folder)
    return folder


@pytest.fixture(scope="session")
def wheel(source, tmp_path_factory):
    return release_helpers.build(source, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="session")
def sdist(source, tmp_path_factory):
    return release_helpers.build(source, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="session")
def programs(wheel, tmp_path_factory):
    """The programs of an environment in which the wheel is installed."""
    return release_helpers.install(wheel, tmp_path_factory.mktemp("environment"))
