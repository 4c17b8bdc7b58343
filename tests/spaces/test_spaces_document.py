"""docs/SEARCH_SPACE.md: its files, scripts and messages are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import document
import pytest
from job_helpers import make_config

import ofa_tf
from ofa_tf.errors import UsageError
from ofa_tf.spaces import get_space
from ofa_tf.workdir import Workdir

# The commands of the page, with what keeps a test short.
SHORT = {
    "ofa-train": ("--epochs=0.1,0.1,0.1,0.1", "--eval_images=50", "--calibration_images=64"),
    "ofa-latency": ("--latency_rounds=1", "--fit_subnets=2", "--check_subnets=1"),
    "ofa-search": ("--num_archs=12", "--arch_images=50", "--num_budgets=1"),
    "ofa-export": ("--formats=keras,tflite_float32", "--test_images=50", "--verify_images=20"),
    "mobile-bench": ("--min_secs=0.05", "--rounds=1"),
    "ofa-report": (),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with the page's files in it."""
    document.write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_known():
    assert list(document.FILES) == ["my_space.py", "my_family.py"]
    assert len(document.SCRIPTS) == len(document.PRINTED) == 2


def test_the_first_script_prints_what_the_page_says(here, capsys):
    exec(document.SCRIPTS[0], {})
    assert capsys.readouterr().out == document.PRINTED[0]


@pytest.mark.slow  # it needs TensorFlow
def test_the_second_script_runs(here, capsys):
    exec(document.SCRIPTS[1], {})
    assert re.fullmatch(r"[\d,]+ weights\n", capsys.readouterr().out)


# What the reader did to see each message of the page.
MISTAKES = (
    ("depths=(1, 2, 3),\n", "\n"),
    ("kernel_sizes=(3, 5)", "kernel_sizes=(3, 4)"),
    ("resolutions=(24, 32)", "resolutions=(2, 32)"),
    ("", ""),
    ("Stage(24, 2", "Stage(32, 2"),
)


def test_messages(here):
    told = [line.removeprefix("ofa-train: ") for line in document.PRINTED[1].splitlines()]
    text = document.FILES["my_space.py"]
    workdir = Workdir("runs/my_space")
    workdir.keep_space(get_space("my_space.py"))
    workdir.start(make_config("my_space"))
    for (old, new), message in zip(MISTAKES, told, strict=True):
        (here / "my_space.py").write_text(text.replace(old, new))
        with pytest.raises(UsageError) as caught:
            workdir.check_space(get_space("my_space.py" if old else "my_family.py"))
        assert str(caught.value) == message


@pytest.mark.slow
def test_the_whole_road(here):
    """Of the page's family, which asks more of the commands than its member of MobileNetV3 does.

    After the training the files are gone.
    """
    (block,) = [text for text in document.COMMANDS if "ofa-latency" in text]
    commands = block.replace("\\\n", " ").replace("my_space.py", "my_family.py:plain").splitlines()
    assert [command.split()[0] for command in commands] == list(SHORT)
    for command in commands:
        name, *flags = command.replace("'", "").split()
        module = {"mobile-bench": "mobile_bench.cli"}.get(name, name.replace("ofa-", "ofa_tf.cli."))
        arguments = [sys.executable, "-m", module, *flags, *SHORT[name]]
        environment = os.environ | {"PYTHONPATH": str(document.PAGE.parents[1])}
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for file in document.FILES:
            (here / file).unlink(missing_ok=True)
    job = here / "runs" / "my_space"
    assert (job / "space.py").read_text() == document.FILES["my_family.py"]
    assert (job / "report.html").is_file()
    (described,) = job.glob("subnets/*/blueprint.json")
    backbone = ofa_tf.load_subnet(described.parent, include_top=False)
    assert list(backbone.output) == ["stride_4", "stride_8"]
