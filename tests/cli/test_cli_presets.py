"""--preset: a recipe by its name, in any folder, below what is given on the command line."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from absl import flags
from cli_helpers import COMMANDS, ROOT, assert_one_message, own_flags, run

from ofa_tf.cli import common, presets

NAMES = sorted(
    path.relative_to(ROOT / "flags").as_posix().removesuffix(".flags")
    for path in ROOT.glob("flags/**/*.flags")
)
OF_TRAIN = [name for name in NAMES if name != "quickstart"]


@pytest.fixture(autouse=True)
def _far_from_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@contextlib.contextmanager
def flags_of(command: str):
    """FLAGS with the flags of a command."""
    module = importlib.import_module(f"ofa_tf.cli.{command}")
    with own_flags():
        module.define_flags()
        if "workdir" not in flags.FLAGS:
            common.define_workdir()
        yield


def values(command: str, *args: object, **options) -> dict:
    """The values of all flags after a command line."""
    with flags_of(command):
        rest = common.parse_flags(["x", *map(str, args)], **options)
        assert rest == ["x"]
        return flags.FLAGS.flag_values_dict() | {"flagfile": None}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_its_flagfile(name):
    command = "quickstart" if name == "quickstart" else "train"
    flagfile = ROOT / "flags" / f"{name}.flags"
    as_preset = values(command, "--workdir=a", f"--preset={name}")
    assert as_preset == values(command, f"--flagfile={flagfile}", "--workdir=a")
    assert as_preset != values(command, "--workdir=a")


@pytest.mark.parametrize("preset", [["--preset=cifar10/largest"], ["--preset", "cifar10/largest"]])
def test_what_is_given_wins_wherever_it_stands(preset):
    for args in (["--batch_size=7", *preset], [*preset, "--batch_size=7"]):
        read = values("train", "--workdir=a", *args)
        assert read["batch_size"] == 7
        assert read["phases"] == ["largest"]  # its own
        assert read["space"] == "ofa_mbv3_cifar"  # of the preset that it starts from


def test_a_flagfile_may_name_a_preset(tmp_path):
    (tmp_path / "mine.flags").write_text("--batch_size=7\n--preset=cifar10/largest\n--epochs=2\n")
    read = values("train", "--workdir=a", "--flagfile=mine.flags", "--base_lr=0.5")
    assert (read["batch_size"], read["epochs"], read["base_lr"]) == (7, ["2"], ["0.5"])
    assert read["space"] == "ofa_mbv3_cifar"


def test_given_images_replace_those_of_the_preset():
    preset = "--preset=imagenet/ofa_mbv3_w1.0/all"
    read = values("train", "--workdir=a", preset, "--data_dir=here")
    assert (read["data_dir"], read["dataset"], read["test_split"]) == ("here", None, None)
    read = values("train", "--workdir=a", preset, "--dataset=flowers", "--test_split=late")
    assert (read["dataset"], read["test_split"]) == ("flowers", "late")
    read = values("train", "--workdir=a", preset)
    assert (read["dataset"], read["test_split"]) == ("imagenet2012", "validation")


def test_each_command_knows_the_presets_that_fit_it():
    fitting = {}
    for command in COMMANDS:
        if command in ("import", "report"):  # their flags are defined elsewhere
            continue
        with flags_of(command):
            fitting[command] = presets.fitting(flags.FLAGS)
    assert fitting.pop("train") == OF_TRAIN
    assert fitting.pop("quickstart") == NAMES
    assert set(map(tuple, fitting.values())) == {()}


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("cifar10/progresive", "cifar10/progressive_shrinking"),
        ("progressive", "cifar10/progressive_shrinking"),
        ("ofa_mbv3_w1.2", "imagenet/ofa_mbv3_w1.2/all"),
        ("flags/quickstart.flags", "quickstart"),
        ("", "cifar10/all_open"),
    ],
)
def test_a_wrong_name_lists_all_and_the_nearest_first(wrong, nearest):
    ended = run("quickstart", f"--preset={wrong}")
    assert_one_message(ended, 2, f"no preset {wrong!r}; known: {nearest}, ", *NAMES)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("quickstart",)])
def test_a_preset_of_another_command(command):
    ended = run(command, "--workdir=x", "--preset=quickstart")
    expected = "--preset=quickstart is for ofa-quickstart; this command has no --"
    known = ", ".join(OF_TRAIN) if command == "train" else "none"
    assert_one_message(ended, 2, expected, f"Its presets: {known}.")


def test_help_lists_the_presets_where_there_are_some():
    assert f"known: {', '.join(NAMES)}." in run("quickstart", "--help").out
    assert "--preset" not in run("search", "--help").out


def test_quickstart_has_a_preset_of_its_own(tmp_path):
    alone = values("quickstart", default_preset="quickstart")
    assert alone == values("quickstart", "--preset=quickstart")
    assert alone["workdir"] == "runs/quickstart"
    other = values("quickstart", "--workdir=a", "--threads=2", default_preset="quickstart")
    assert other == alone | {"workdir": "a", "threads": 2}
    for instead in ("--preset=cifar10/largest", "--flagfile=mine.flags"):
        (tmp_path / "mine.flags").write_text("--preset=cifar10/largest\n")
        read = values("quickstart", "--workdir=a", instead, default_preset="quickstart")
        assert read == values("quickstart", "--workdir=a", "--preset=cifar10/largest")


def test_presets_are_read_from_an_installed_package_in_an_archive(tmp_path):
    """As a wheel has them, inside the package; and without unpacking."""
    package = tmp_path / "package"
    shutil.copytree(ROOT / "ofa_tf", package / "ofa_tf", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copytree(ROOT / "mobile_bench", package / "mobile_bench")
    shutil.copytree(ROOT / "flags", package / "ofa_tf" / "presets")
    archive = shutil.make_archive(str(tmp_path / "package"), "zip", package)
    assert "ofa_tf/presets/quickstart.flags" in zipfile.ZipFile(archive).namelist()
    code = (
        f"import sys; sys.path.insert(0, {archive!r})\n"
        "import ofa_tf.cli.presets as presets\n"
        "print(presets.__file__)\n"
        "print(presets.expand(['--a=1', '--preset=imagenet/ofa_mbv3_w1.2/all'], {*map("
        "presets._name, presets._read_all()['imagenet/ofa_mbv3_w1.0/all'].split())}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    file, flags_read = done.stdout.splitlines()
    assert file.startswith(archive)
    assert flags_read.startswith("['--space=ofa_mbv3_w1.0', ")
    assert flags_read.endswith("'--space=ofa_mbv3_w1.2', '--a=1']")
