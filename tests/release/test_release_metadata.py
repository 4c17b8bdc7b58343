"""What a release says of itself agrees with what is in the project."""

from __future__ import annotations

import configparser
import importlib
import re

import pytest
from release_helpers import ROOT

import ofa_tf


@pytest.fixture(scope="module")
def settings():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_every_package_is_in_the_wheel(settings):
    folders = {
        path.parent
        for name in ("ofa_tf", "mobile_bench")
        for path in (ROOT / name).rglob("__init__.py")
    }
    packages = {folder.relative_to(ROOT).as_posix().replace("/", ".") for folder in folders}
    assert set(lines(settings["options"]["packages"])) == packages | {"ofa_tf.presets"}


def test_every_command_is_there(settings):
    scripts = lines(settings["options.entry_points"]["console_scripts"])
    assert len(scripts) == 11
    for script in scripts:
        _, _, place = script.partition(" = ")
        module, _, function = place.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_version_is_the_changelog_s_newest():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", ofa_tf.__version__]


def test_what_builds_is_there_for_the_tests(settings):
    tested = lines(settings["options.extras_require"]["test"])
    needed = re.search(r'^requires = \["(.+)"\]$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert needed[1] in tested


def test_the_public_face_lists_what_is_loaded_later():
    assert set(dir(ofa_tf)) == {*ofa_tf.__all__, "__version__"}
    for name in dir(ofa_tf):
        assert getattr(ofa_tf, name) is not None
