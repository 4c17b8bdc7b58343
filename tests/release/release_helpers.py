"""Builds the release from a clean copy of the project, and an environment to install it in."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(command: Sequence[object], folder: pathlib.Path, seconds: float = 300) -> str:
    """Runs a program in a folder and returns what it printed; a failure is the test's."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def project_files() -> list[str]:
    """The files of the project as git knows them, new ones among them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = run(command, ROOT).split("\0")
    return sorted(name for name in names if name and (ROOT / name).is_file())


def copy_project(folder: pathlib.Path) -> None:
    """Copies the project's files, and nothing else, into a new folder."""
    for name in project_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)


def build(source: pathlib.Path, target: pathlib.Path, kind: str) -> pathlib.Path:
    """Builds a distribution ("wheel" or "sdist") with what is installed here; downloads nothing."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", target]
    run([*command, source], source)
    (built,) = target.glob({"wheel": "*.whl", "sdist": "*.tar.gz"}[kind])
    return built


def wheel_files(wheel: pathlib.Path) -> dict[str, bytes]:
    """The content of each file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def unpack_sdist(sdist: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Unpacks an sdist and returns the folder in it that holds everything."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    (top,) = folder.iterdir()
    return top


def install(wheel: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Installs a wheel alone into a new environment, which sees what is installed here.

    Returns:
        The folder of the environment's programs.
    """
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    paths = {"base": str(folder), "platbase": str(folder)}
    site = pathlib.Path(sysconfig.get_path("purelib", "venv", paths))
    # A path of a .pth file is searched after the environment's own, and its .pth files, such as
    # that of an editable install of this project, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    pip += ["--python", programs / "python", "install", "--no-index", "--no-deps"]
    run([*pip, "--force-reinstall", wheel], folder)
    return programs
