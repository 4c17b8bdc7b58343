"""The wheel and the sdist: what is in them, and that an installed wheel works from any folder."""

from __future__ import annotations

import pytest
from release_helpers import ROOT, build, project_files, run, unpack_sdist, wheel_files

import ofa_tf

pytestmark = pytest.mark.slow

INFO = f"ofa_tf-{ofa_tf.__version__}.dist-info/"
GENERATED = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt"}
COMMANDS = (
    "ofa-train",
    "ofa-eval",
    "ofa-latency",
    "ofa-predictor",
    "ofa-search",
    "ofa-finetune",
    "ofa-export",
    "ofa-import",
    "ofa-report",
    "ofa-quickstart",
    "mobile-bench",
)


def test_the_wheel_has_the_packages_and_the_presets_and_nothing_else(wheel):
    expected = {f"{INFO}{name}" for name in GENERATED} | {f"{INFO}licenses/LICENSE"}
    for name in project_files():
        if name.startswith(("ofa_tf/", "mobile_bench/")):
            expected.add(name)
        elif name.startswith("flags/"):
            expected.add(f"ofa_tf/presets/{name.removeprefix('flags/')}")
    assert wheel_files(wheel).keys() == expected
    assert {"ofa_tf/py.typed", "mobile_bench/py.typed"} <= expected


def test_the_sdist_has_the_whole_project(sdist, tmp_path):
    top = unpack_sdist(sdist, tmp_path)
    found = {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}
    extra = {name for name in found if name.startswith("ofa_tf.egg-info/")} | {"PKG-INFO"}
    assert found - extra == set(project_files()) - {".gitignore"}
    for name in sorted(found - extra - {"setup.cfg"}):  # to which a section is added
        assert (top / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_the_sdist_makes_the_same_wheel(sdist, wheel, tmp_path):
    again = build(unpack_sdist(sdist, tmp_path / "sdist"), tmp_path / "wheel", "wheel")
    assert wheel_files(again) == wheel_files(wheel)


@pytest.mark.parametrize("command", COMMANDS)
def test_installed_commands_answer_from_any_folder(command, programs, tmp_path):
    assert run([programs / command, "--help"], tmp_path).startswith(f"{command}: ")
    version = run([programs / command, "--version"], tmp_path)
    assert version.startswith(f"{command} {ofa_tf.__version__} (ofa_tf), ")


def test_installed_packages_are_the_wheel_s(programs, tmp_path):
    code = (
        "import mobile_bench, ofa_tf\n"
        "for package in (ofa_tf, mobile_bench): print(package.__file__)\n"
        "print(ofa_tf.__version__, *ofa_tf.list_spaces())"
    )
    *files, last = run([programs / "python", "-c", code], tmp_path).splitlines()
    for file in files:
        assert file.startswith(str(programs.parent))
    assert last.split() == [ofa_tf.__version__, *ofa_tf.list_spaces()]


def test_installed_quickstart_has_its_preset(programs, tmp_path):
    """It reads the flags, and goes as far as a step that has no work to do for them."""
    code = (
        "from absl import flags\n"
        "from ofa_tf.cli import common, quickstart\n"
        "quickstart.define_flags()\n"
        "common.parse_flags(['ofa-quickstart'], 'quickstart')\n"
        "print(flags.FLAGS.workdir, flags.FLAGS.space, flags.FLAGS.dataset)"
    )
    printed = run([programs / "python", "-c", code], tmp_path)
    assert printed.split() == ["runs/quickstart", "ofa_mbv3_tiny", "ofa_doodles"]
    listed = run([programs / "ofa-quickstart", "--help"], tmp_path)
    assert "imagenet/ofa_mbv3_w1.0/all, " in listed
