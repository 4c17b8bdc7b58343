"""--space=FILE.py: a wrong file ends a command at once, and a job knows its space without it."""

from __future__ import annotations

import pytest
from cli_helpers import assert_one_message, run
from job_helpers import make_config

import ofa_tf
from ofa_tf.files import write_json
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


# -- whose code runs --------------------------------------------------------------------------


def made_job(folder, space: str) -> Workdir:
    """A job with a space.py, which leaves a file called `run` beside it where it is run."""
    workdir = Workdir(folder / "given")
    workdir.path.mkdir()
    leaves = f"open({str(workdir.path / 'run')!r}, 'w').close()\n"
    workdir.space_file.write_text(leaves + TEXT)  # no other file has this text
    workdir.start(make_config(space, recipe={"checkpoint": "ab", "new_head": False}))
    return workdir


def was_run(workdir: Workdir) -> bool:
    return (workdir.path / "run").exists()


def test_a_file_beside_a_job_of_a_built_in_space_is_never_run(tmp_path):
    workdir = made_job(tmp_path, "ofa_mbv3_tiny")
    for command in (["report"], ["search", "--accuracy_predictor=none.npz"], ["latency"]):
        if command == ["latency"]:
            command.append("--target=a,b")
        run(command[0], *command[1:], f"--workdir={workdir.path}")
    assert run("report", f"--workdir={workdir.path}").code == 0
    assert not was_run(workdir)


def test_a_jobs_own_file_is_run_and_told_before(tmp_path):
    workdir = made_job(tmp_path, "own")
    ended = run("report", f"--workdir={workdir.path}")
    assert ended.code == 0
    told = f"Running {workdir.space_file}, which defines the search space of this job."
    assert ended.err.splitlines()[0] == told
    assert ended.err.count("Running ") == 1
    assert was_run(workdir)


def test_a_jobs_file_that_changed_is_not_run_unless_it_is_trusted(tmp_path):
    workdir = made_job(tmp_path, "own")
    workdir.space_file.write_text(workdir.space_file.read_text() + "# one line more\n")
    ended = run("report", f"--workdir={workdir.path}")
    assert_one_message(ended, 2, "space.py, which", "is not the file with which the job was begun")
    assert "Running" not in ended.err
    assert not was_run(workdir)
    ended = run("report", f"--workdir={workdir.path}", "--trust_space_file")
    assert ended.code == 0
    assert "Running " in ended.err
    assert was_run(workdir)


def test_a_job_that_did_not_record_its_file_goes_on(tmp_path):
    workdir = made_job(tmp_path, "own")
    config = workdir.config()
    recorded = config.pop("space_file")
    write_json(workdir.config_file, config)
    assert run("report", f"--workdir={workdir.path}").code == 0
    workdir.start(config)  # the same settings, whether the file was recorded or not
    write_json(workdir.config_file, config | {"space_file": recorded})
    workdir.start(config)
    assert workdir.config()["space_file"] == recorded
