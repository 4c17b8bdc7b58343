"""--version of every command, and --help and --version into a reader that leaves early."""

from __future__ import annotations

import importlib.metadata

import pytest
from cli_helpers import COMMANDS, run, start

import ofa_tf


@pytest.mark.parametrize("command", COMMANDS)
def test_version(command):
    ended = run(command, "--version")
    tensorflow = importlib.metadata.version("tensorflow")
    expected = f"ofa-{command} {ofa_tf.__version__} (ofa_tf), TensorFlow {tensorflow}\n"
    assert (ended.code, ended.out, ended.err) == (0, expected, "")


def test_version_without_tensorflow(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert run("train", "--version").out.endswith(", TensorFlow is not installed\n")


def test_help_may_be_left_early():
    with start("train", "--help") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
