"""--space=FILE.py: a wrong file ends a command at once, and a job knows its space without it."""

from __future__ import annotations

import pytest
from cli_helpers import assert_one_message, run
from job_helpers import make_config

import ofa_tf
from ofa_tf.workdir import Workdir

TEXT = """
import dataclasses
import ofa_tf
TINY = ofa_tf.get_space("ofa_mbv3_tiny")
SPACE = dataclasses.replace(TINY, name="own", resolutions=(24, 32))
"""
COMMANDS = {
    "train": ("--epochs=1", "--phases=largest", "--base_lr=0.1"),
    "import": ("--checkpoint=none.pth",),
    "latency": ("--num_classes=2",),
    "search": ("--accuracy_predictor=none.npz",),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a space and a job of it that was begun."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_space.py").write_text(TEXT)
    workdir = Workdir("job")
    workdir.keep_space(ofa_tf.get_space("my_space.py"))
    workdir.start(make_config("own"))
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_file(here, command):
    for text, said in (("SPACE = 1", "my_space.py: SPACE holds a"), ("\n1 / 0", "my_space.py:2: ")):
        (here / "my_space.py").write_text(text)
        ended = run(command, "--space=my_space.py", "--workdir=new", *COMMANDS[command])
        assert_one_message(ended, 2, said)
        assert not (here / "new").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_another_space_than_the_job_was_begun_with(here, command):
    (here / "my_space.py").write_text(TEXT.replace("(24, 32)", "(28, 32)"))
    if command == "import":
        (here / "none.pth").touch()
    ended = run(command, "--space=my_space.py", "--workdir=job", *COMMANDS[command])
    if command == "import" and "torch" in ended.message:
        pytest.skip("needs torch")
    assert_one_message(ended, 2, "own is not what it was when", "resolutions were (24, 32), are")


def test_the_job_needs_its_copy(here):
    (here / "job" / "space.py").unlink()
    (here / "my_space.py").unlink()
    ended = run("eval", "--workdir=job", "--arch=largest")
    assert_one_message(ended, 1, "The search space own of the job in job", "job/space.py, the copy")


def test_no_published_checkpoint(here):
    ended = run("import", "--space=my_space.py", "--checkpoint=published", "--workdir=new")
    if "torch" in ended.message:
        pytest.skip("needs torch")
    assert_one_message(ended, 2, "No checkpoint of own is published")
