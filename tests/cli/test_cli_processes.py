"""Tasks in processes of their own: all are done but those that fail, whatever they do."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from mobile_bench.processes import is_running
from ofa_tf.cli.processes import run_tasks
from ofa_tf.errors import NO_MEMORY, FailureError, UsageError


def work(task, report):
    """Does what its task says."""
    what, folder = task
    report(f"{what} begins")
    if what == "fails":
        raise FailureError("the disk is full.")
    if what == "swells":
        raise MemoryError
    if what == "misused":
        raise UsageError("no such thing.")
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exits":
        os._exit(7)
    if what == "hangs in native code":
        pathlib.Path(folder, "half").write_text(str(os.getpid()))
        ctypes.PyDLL(None).sleep(600)  # no other thread of the process gets to run
    if what == "hangs":
        half = pathlib.Path(folder, "half")
        try:
            half.write_text(str(os.getpid()))
            time.sleep(600)
        finally:
            half.unlink()
    pathlib.Path(folder, f"{what}-{os.getpid()}").touch()


def prepare():
    pass


def run(tasks, folder, processes=2):
    reported = []
    named = ((what, (what, str(folder))) for what in tasks)
    failures = run_tasks(work, named, processes, reported.append, prepare)
    return failures, reported, [path.name for path in folder.iterdir()]


def test_all_tasks_are_done_in_few_processes(tmp_path):
    tasks = ["a", "b", "c", "d", "e"]
    failures, reported, done = run(tasks, tmp_path)
    assert failures == {}
    assert sorted(reported) == [f"{what} begins" for what in tasks]
    assert sorted(name.split("-")[0] for name in done) == tasks
    pids = {name.split("-")[1] for name in done}
    assert str(os.getpid()) not in pids
    assert len(pids) == 2


def test_one_process_is_this_one(tmp_path):
    failures, reported, done = run(["a", "fails", "b"], tmp_path, processes=1)
    assert failures == {"fails": "the disk is full."}
    assert reported == ["a begins", "fails begins", "b begins"]
    assert sorted(done) == [f"a-{os.getpid()}", f"b-{os.getpid()}"]


def test_what_fails_or_dies_keeps_nothing_from_being_done(tmp_path):
    failures, _, done = run(["fails", "a", "dies", "b", "exits", "c", "swells"], tmp_path)
    assert failures == {
        "swells": NO_MEMORY,
        "fails": "the disk is full.",
        "dies": "its process was killed by SIGKILL; there may be too little memory.",
        "exits": "its process ended with exit code 7.",
    }
    assert sorted(name.split("-")[0] for name in done) == ["a", "b", "c"]


@pytest.mark.parametrize("processes", [1, 2])
def test_misuse_ends_all(tmp_path, processes):
    with pytest.raises(UsageError, match="no such thing"):
        run(["misused", *["a"] * 20], tmp_path, processes)
    assert len(list(tmp_path.iterdir())) < 20


@contextlib.contextmanager
def hanging(tmp_path, what):
    """A process whose only task hangs in a process of its own; both, by Popen and number."""
    script = f"""
import pathlib, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
from mobile_bench.signals import interrupted_by_signals
from ofa_tf.cli.processes import run_tasks
from test_cli_processes import prepare, work
if __name__ == "__main__":
    task = {what!r}, {str(tmp_path)!r}
    try:
        with interrupted_by_signals():
            run_tasks(work, [("a", task)], 2, print, prepare)
    except KeyboardInterrupt:
        print("interrupted")
"""
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=pathlib.Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )
    try:
        half, worker = tmp_path / "half", ""
        while process.poll() is None and not worker:
            time.sleep(0.02)
            worker = half.read_text() if half.exists() else ""
        yield process, int(worker)
    finally:
        process.kill()


def interrupt_all(process):
    """As Ctrl-C does: to parent and children."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize("interrupt", [interrupt_all, subprocess.Popen.terminate])
def test_an_interrupt_ends_the_processes_and_leaves_nothing(tmp_path, interrupt):
    with hanging(tmp_path, "hangs") as (process, worker):
        interrupt(process)
        out, _ = process.communicate(timeout=60)
    assert out.split("\n") == ["hangs begins", "interrupted", ""]
    assert not (tmp_path / "half").exists()
    assert not is_running(worker)


@pytest.mark.parametrize("what", ["hangs", "hangs in native code"])
def test_processes_end_with_a_parent_that_is_killed(tmp_path, what):
    with hanging(tmp_path, what) as (process, worker):
        process.kill()
        process.communicate(timeout=60)  # which waits for the worker's end of the pipe, too
    deadline = time.monotonic() + 30
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(worker)
