"""Who may import whom, and what may be read or named where: the walls between the rooms."""

from __future__ import annotations

import ast
import configparser
import functools
import importlib.metadata
import pathlib
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# A room may import rooms of a lower floor only, never one of its own floor.
FLOORS = (
    ("errors", "fields", "files", "locks", "names", "quiet", "version"),
    ("spaces",),
    ("layers",),
    ("models", "data", "workdir"),
    ("interop",),
    ("training", "search", "export", "report"),
    ("job",),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
EVERYWHERE = FLOORS[0]

# Packages that only these files may import, wherever in a file the import stands.
ONLY_IN = {
    "torch": ("ofa_tf/interop/",),
    "tf_keras": ("ofa_tf/export/qat.py",),
    "tensorflow_model_optimization": ("ofa_tf/export/qat.py",),
    "absl.flags": ("ofa_tf/cli/", "mobile_bench/cli.py"),
}
# mobile_bench.measure hands the variables that adb goes by to what looks for adb.
SETTINGS_MAY_BE_READ_IN = ("ofa_tf/cli/", "mobile_bench/cli.py", "mobile_bench/__init__.py")


def imported_names(tree: ast.AST) -> set[str]:
    """Every absolute name that a module imports, lazily too: `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute in this project"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def imported_rooms(tree: ast.AST) -> set[str]:
    """The rooms of ofa_tf that a module imports."""
    return {name.split(".")[1] for name in imported_names(tree) if name.startswith("ofa_tf.")}


_VARIABLES = ("os.environ", "os.getenv", "os.putenv")


def environment_lines(tree: ast.AST) -> list[int]:
    """The lines that touch environment variables."""
    lines = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in _VARIABLES)
        or (isinstance(node, ast.alias) and node.name in ("environ", "getenv", "putenv"))
    ]
    return sorted(lines)


@functools.cache
def sources(folder: str) -> dict[str, ast.AST]:
    """The parsed modules of a package by their path in the project."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths, f"no modules under {folder}"
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


def modules_after(statement: str) -> set[str]:
    """The top-level modules that are loaded in a fresh Python after a statement."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_checks_see_what_they_forbid():
    lazy = ast.parse("def f():\n    from ofa_tf import search\n    import ofa_tf.cli.train")
    assert imported_rooms(lazy) == {"search", "cli"}
    assert "absl.flags" in imported_names(ast.parse("from absl import flags"))
    reads = "import os\nfrom os import environ\nos.environ.get('A')\nos.getenv('B')"
    assert environment_lines(ast.parse(reads)) == [2, 3, 4]


def test_spaces_do_not_load_tensorflow():
    loaded = modules_after("import ofa_tf.spaces")
    assert {"ofa_tf", "numpy"} <= loaded
    assert not loaded & {"tensorflow", "keras", "tensorflow_datasets", "matplotlib"}


def test_mobile_bench_loads_neither_tensorflow_nor_ofa_tf():
    loaded = modules_after("import mobile_bench, mobile_bench.cli")
    assert "mobile_bench" in loaded
    assert not loaded & {"tensorflow", "keras", "ofa_tf"}


def test_mobile_bench_imports_neither_tensorflow_nor_ofa_tf():
    for path, tree in sources("mobile_bench").items():
        tops = {name.split(".")[0] for name in imported_names(tree)}
        assert not tops & {"tensorflow", "keras", "ofa_tf"}, path


def test_rooms_import_only_from_lower_floors():
    wrong = []
    for path, tree in sources("ofa_tf").items():
        room = path.split("/")[1].removesuffix(".py")
        if room == "__init__":
            continue  # the public face names what is in the rooms
        assert room in FLOOR_OF, f"{path}: give this room a floor in FLOORS"
        for other in imported_rooms(tree) - {room, *EVERYWHERE}:
            if FLOOR_OF.get(other, len(FLOORS)) >= FLOOR_OF[room]:
                wrong.append(f"{path} imports ofa_tf.{other}")
    assert wrong == []


def test_the_drawing_has_every_floor():
    drawing = ElementTree.parse(ROOT / "docs" / "pictures" / "house.svg")
    places = {}
    for text in drawing.iter("{http://www.w3.org/2000/svg}text"):
        if text.get("class") == "name":
            places |= dict.fromkeys(text.text.split(" · "), float(text.get("y")))
    drawn = [sorted({places[room] for room in rooms}) for rooms in FLOORS]
    assert [len(heights) for heights in drawn] == [1] * len(FLOORS)
    assert drawn == sorted(drawn, reverse=True)  # y grows downwards


def test_rooms_do_not_import_the_public_face():
    for path, tree in sources("ofa_tf").items():
        plain = [n for n in ast.walk(tree) if isinstance(n, ast.Import)]
        assert "ofa_tf" not in {alias.name for node in plain for alias in node.names}, path


@pytest.mark.parametrize("package", ONLY_IN)
def test_package_is_imported_only_where_it_may(package):
    for path, tree in (sources("ofa_tf") | sources("mobile_bench")).items():
        names = {name for name in imported_names(tree) if f"{name}.".startswith(f"{package}.")}
        assert not names or path.startswith(ONLY_IN[package]), f"{path} imports {package}"


def test_environment_is_touched_only_by_commands():
    for path, tree in (sources("ofa_tf") | sources("mobile_bench")).items():
        if not path.startswith(SETTINGS_MAY_BE_READ_IN):
            assert environment_lines(tree) == [], path


# What a dependency of ours imports without requiring it.
UNDECLARED = {"importlib-resources", "tensorboard"}


def test_requirements_are_what_is_imported():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lines = settings["options"]["install_requires"].split()
    required = {re.split("[<>=!~;]", line)[0].replace("_", "-") for line in lines} - UNDECLARED
    trees = (sources("ofa_tf") | sources("mobile_bench")).values()
    tops = {name.split(".")[0] for tree in trees for name in imported_names(tree)}
    tops -= {*sys.stdlib_module_names, "ofa_tf", "mobile_bench", "torch"}  # an extra
    # The other packages that have files in `google` are not what we import from it.
    owners = importlib.metadata.packages_distributions() | {"google": ["protobuf"]}
    imported = {name.lower().replace("_", "-") for top in tops for name in owners.get(top, [top])}
    assert imported == required


# Folders that only exist on somebody's machine, package indexes, and addresses but loopback's and
# those set aside for documentation.
PRIVATE = re.compile(
    r"(?<![\w.>}])/(?:home|root|Users|work|tmp)/\w"
    r"|index-url|find-links|trusted-host"
    r"|\b(?!127\.0\.0\.1\b|0\.0\.0\.0\b|192\.0\.2\.)(?:\d{1,3}\.){3}\d{1,3}\b"
)


def test_private_is_recognized():
    assert all(map(PRIVATE.search, ("see /" + "home/me/x", "pip --" + "index" + "-url=a")))
    assert PRIVATE.search("server 10.1." + "2.3")
    assert not PRIVATE.search("#!/usr/bin/env bash, /data/local/tmp/x, 127.0.0.1, keras==3.15.1")


def test_no_machine_is_named_in_the_project():
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a git checkout, to know which files belong to the project")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path == pathlib.Path(__file__).resolve() or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1):
            if PRIVATE.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert found == []
