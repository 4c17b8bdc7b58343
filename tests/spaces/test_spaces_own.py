"""Spaces in a file of one's own: how they are found, and what is said about wrong ones."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from job_helpers import make_config

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import write_json
from ofa_tf.spaces import built_in_space, get_space, list_spaces
from ofa_tf.spaces.checks import difference
from ofa_tf.workdir import Workdir

TINY = get_space("ofa_mbv3_tiny")
# A file is this with a few lines more.
HEAD = """
import dataclasses
import ofa_tf
from ofa_tf.spaces import SearchSpace
TINY = ofa_tf.get_space("ofa_mbv3_tiny")
"""
OWN = HEAD + 'SPACE = dataclasses.replace(TINY, name="own", depths=(1, 2))\n'


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes my_space.py into the current folder."""
    monkeypatch.chdir(tmp_path)
    return lambda text: (tmp_path / "my_space.py").write_text(text)


def test_a_file_is_run_once(write, tmp_path, capsys):
    text = OWN + 'print("run")\n'
    write(text)
    space = get_space("my_space.py")
    assert (space.name, space.source) == ("own", text)
    assert dataclasses.replace(space, name="ofa_mbv3_tiny") == TINY
    (tmp_path / "copy.py").write_text(text)
    for name in (tmp_path / "my_space.py", "my_space.py:own", "copy.py", "./copy.py:own"):
        assert get_space(name) is space
    assert capsys.readouterr().out == "run\n"
    assert {path.name for path in tmp_path.iterdir()} == {"copy.py", "my_space.py"}  # no byte code


def test_a_changed_file_is_run_again(write):
    write(OWN)
    before = get_space("my_space.py")
    write(OWN.replace("(1, 2)", "(2,)"))
    assert (before.depths, get_space("my_space.py").depths) == ((1, 2), (2,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nSPACE = (\n", r"my_space\.py:2: this is no Python: '\(' was never closed"),
        ("x = 1\ny = 1 / 0\n", r"my_space\.py:2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit()\n", r"my_space\.py:2: SystemExit"),
        ("import my_neighbor\n", r"my_space\.py:1: ModuleNotFoundError: .*my_neighbor"),
        ('import ofa_tf\nofa_tf.get_space("x")\n', r"my_space\.py:2: There is no search space 'x'"),
        ("x\0", r"my_space\.py"),
        ("SPACES = ()", r"SPACES is a tuple of search spaces, not \(\)"),
        ("x = 1", "it has to define SPACE, a SearchSpace, or SPACES.*; it defines neither"),
        (OWN + "SPACES = (SPACE,)", "it defines both"),
        ('SPACE = "ofa_mbv3_tiny"', "SPACE holds a SearchSpace, not 'ofa_mbv3_tiny'"),
        (HEAD + "SPACES = [TINY, 1]", "SPACES holds a SearchSpace, not 1"),
        (HEAD + "SPACES = [TINY, TINY]", "two search spaces of one name: ofa_mbv3_tiny"),
        (HEAD + "SPACE = TINY", "ofa_mbv3_tiny is the name of a built-in search space"),
        (HEAD + "SPACE = SearchSpace()", r"my_space\.py:6: TypeError: .*missing 6 required"),
        (OWN.replace("(1, 2)", "[1, 2]"), r"my_space\.py: depths of own is a tuple of whole"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(write, text, said):
    write(text)
    for _ in range(2):  # a file that fails is not taken for one that was read
        with pytest.raises(UsageError, match=said):
            get_space("my_space.py")


def test_an_error_of_a_family_is_told_with_its_line(write):
    family = """
@dataclasses.dataclass(frozen=True)
class Broken:
    num_widths = 0
    def stage_runs(self, depths):
        return ({depth: depth for depth in depths},)
    def blueprint(self, arch, num_classes):
        return arch.nothing
"""
    write(HEAD + family + 'SPACE = dataclasses.replace(TINY, name="own", family=Broken())')
    with pytest.raises(UsageError, match=r"my_space\.py:13: AttributeError: .*nothing"):
        get_space("my_space.py")


def test_which_space_of_a_file(write):
    two = "SPACES = tuple(dataclasses.replace(TINY, name=name) for name in ('a', 'b'))"
    write(HEAD + two)
    assert get_space("my_space.py:b").name == "b"
    with pytest.raises(UsageError, match=r"several search spaces, a, b: give .* my_space\.py:a"):
        get_space("my_space.py")
    with pytest.raises(UsageError, match=r"my_space\.py has no search space 'c'; it has a, b"):
        get_space("my_space.py:c")


def test_what_is_no_file(write, tmp_path):
    with pytest.raises(UsageError, match=r"missing\.py cannot be read: .*No such file"):
        get_space("missing.py")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UsageError, match=r"folder\.py cannot be read: .*Is a directory"):
        get_space("folder.py")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"bytes\.py cannot be read: .*decode"):
        get_space("bytes.py")
    with pytest.raises(UsageError, match=r"One of your own is given by its file, my_space\.py"):
        get_space("my_space")


def test_the_activation_is_written_into_the_file(write):
    write(OWN)
    with pytest.raises(UsageError, match=r"'swish' cannot be chosen for own: write it into my_sp"):
        get_space("my_space.py", "swish")


@pytest.mark.parametrize("one", list_spaces())
def test_a_space_does_not_differ_from_itself_but_from_others(one):
    space = get_space(one)
    assert difference(space, dataclasses.replace(space, name="own")) is None
    assert all(difference(space, get_space(other)) for other in list_spaces() if other != one)


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ({"stem_width": 16}, "out_channels of stem was 8, is 16"),
        ({"dropout": 0.5}, "dropout of classifier was 0.1, is 0.5"),
        ({"stages": TINY.family.stages[:2]}, r"block positions were \(2, 2, 2\), are \(2, 2\)"),
        ({"activation": "swish"}, "activation of stem was hard_swish, is swish"),
    ],
)
def test_the_first_difference_is_named(family, said):
    other = dataclasses.replace(TINY, family=dataclasses.replace(TINY.family, **family))
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(difference(TINY, other))


@pytest.fixture
def workdir(write, tmp_path) -> Workdir:
    """A job of the space in my_space.py."""
    write(OWN)
    workdir = Workdir(tmp_path / "job")
    workdir.keep_space(get_space("my_space.py"))
    workdir.start(make_config("own"))
    return workdir


def test_a_job_keeps_its_space(workdir, tmp_path, monkeypatch):
    (tmp_path / "my_space.py").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Workdir("../job").space().name == "own"
    workdir.space_file.unlink()
    with pytest.raises(FailureError, match=r"space own of the job in .*space\.py, the copy"):
        workdir.space()


def test_a_job_goes_on_where_only_the_text_has_changed(workdir, write):
    before = workdir.space_file.read_bytes()
    write("# A comment.\n" + OWN)
    space = get_space("my_space.py")
    workdir.check_space(space)
    workdir.keep_space(space)
    assert workdir.space_file.read_bytes() == before


def test_a_job_of_another_space_is_refused(workdir, write):
    write(OWN.replace("(1, 2)", "(2,)"))
    with pytest.raises(
        UsageError, match=r"own is not what it was when .* depths were \(1, 2\), are \(2,\)\. Give"
    ):
        workdir.check_space(get_space("my_space.py"))
    workdir.check_space(TINY)  # of another name: Workdir.check tells
    with pytest.raises(UsageError, match="--space was own, is ofa_mbv3_tiny"):
        workdir.check(make_config())


def test_a_copy_of_a_job_that_was_never_begun_does_not_stay(write, tmp_path):
    write(OWN)
    workdir = Workdir(tmp_path / "job")
    workdir.keep_space(get_space("my_space.py"))
    workdir.keep_space(TINY)
    workdir.start(make_config())
    assert workdir.space() == TINY
    assert not workdir.space_file.exists()


def test_files_are_not_imported_by_others(write):
    write(OWN)
    get_space("my_space.py")
    assert "my_space" not in sys.modules


def test_a_name_that_a_file_gives_runs_no_file(write, tmp_path, capsys):
    write(OWN + 'print("run")\n')
    with pytest.raises(UsageError, match=r"There is no search space 'my_space\.py'"):
        built_in_space("my_space.py")
    workdir = Workdir(tmp_path / "job")
    write_json(workdir.config_file, make_config("my_space.py"))
    with pytest.raises(FailureError, match=r"space\.py, the copy of the file .* is missing"):
        workdir.space()
    assert capsys.readouterr().out == ""
