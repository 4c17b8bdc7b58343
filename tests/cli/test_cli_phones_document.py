"""docs/PHONES.md: the flags of its ofa-* commands exist and may have the values they have there."""

from __future__ import annotations

import importlib
import re
import shlex

import pytest
from absl import flags
from cli_helpers import ROOT, own_flags

from ofa_tf.cli import common

TEXT = (ROOT / "docs" / "PHONES.md").read_text()
COMMANDS = re.findall(r"^ {4}(ofa-.*)$", TEXT, re.MULTILINE)


def test_the_document_has_the_road_to_a_search():
    assert [line.split()[0] for line in COMMANDS] == ["ofa-latency", "ofa-search"]


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_are_known(command, monkeypatch):
    monkeypatch.setattr(common, "run", lambda main, usage: None)
    name, *arguments = shlex.split(command)
    with own_flags():
        importlib.import_module(f"ofa_tf.cli.{name.removeprefix('ofa-')}").main()
        rest = flags.FLAGS([name, *arguments])[1:]
    assert rest == []
