"""Tasks side by side, in processes of their own."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from ofa_tf.errors import NO_MEMORY, FailureError, UsageError, is_lack_of_memory

# Takes what a task tells while it runs.
Report = Callable[[Any], None]
Work = Callable[[Any, Report], None]

_GRACE = 2.0  # seconds in which an interrupted process may clear up
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def run_tasks(
    work: Work,
    tasks: Iterable[tuple[str, Any]],
    processes: int,
    report: Report,
    prepare: Callable[[], None],
) -> dict[str, str]:
    """Runs all tasks, as many at a time as there are processes.

    A task that fails, or whose process dies, does not keep the others from being done. When this
    is interrupted, the processes end.

    Args:
        work: runs a task; a function of a module, for it is sent to the processes, as tasks are.
        tasks: name and task; asked for one by one, as processes become free.
        processes: 1 runs the tasks in this process.
        report: called with what the tasks report.
        prepare: called once in each new process; a function of a module too.

    Returns: why tasks failed, by name.

    Raises:
        UsageError: that a task raised; the other tasks are ended.
    """
    if processes == 1:
        return _run_here(work, tasks, report)
    failures: dict[str, str] = {}
    waiting, pool = iter(tasks), _Pool(work, prepare)
    try:
        following = next(waiting, None)
        while following is not None or pool.busy:
            while following is not None and len(pool.busy) < processes:
                pool.start(*following)
                following = next(waiting, None)  # made while the processes are at work
            for kind, name, content in pool.events():
                if kind == "usage error":
                    raise UsageError(content)
                if kind == "failure":
                    failures[name] = content
                elif kind == "report":
                    report(content)
    finally:
        pool.close()
    return failures


def _run_here(work: Work, tasks: Iterable[tuple[str, Any]], report: Report) -> dict[str, str]:
    failures = {}
    for name, task in tasks:
        try:
            work(task, report)
        except FailureError as error:
            failures[name] = str(error)
    return failures


class _Pool:
    """The processes, each with a pipe.

    Attributes:
        busy: the name of the task that is at work at the other end of a pipe.
    """

    def __init__(self, work: Work, prepare: Callable[[], None]):
        self.busy: dict[Connection, str] = {}
        self._work, self._prepare = work, prepare
        self._processes: dict[Connection, multiprocessing.Process] = {}

    def start(self, name: str, task: Any) -> None:
        """Gives a task to an idle process, or to a new one."""
        idle = [
            pipe
            for pipe, process in self._processes.items()
            if pipe not in self.busy and process.is_alive()
        ]
        pipe = idle[0] if idle else self._new_process()
        pipe.send(task)
        self.busy[pipe] = name

    def events(self) -> Iterator[tuple[str, str, Any]]:
        """Waits for something to happen: kind, name of the task, why or what it is."""
        for pipe in wait(list(self.busy)):
            name = self.busy[pipe]
            try:
                kind, content = pipe.recv()
            except (EOFError, OSError):
                kind, content = "failure", f"its process {self._end(pipe)}."
            if kind != "report":
                self.busy.pop(pipe)
            yield kind, name, content

    def close(self) -> None:
        """Ends all processes, whatever they are doing."""
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + _GRACE
        for process in self._processes.values():
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.join()

    def _new_process(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # a fork of TensorFlow's threads hangs
        pipe, other_end = context.Pipe()
        arguments = self._work, self._prepare, other_end
        process = context.Process(target=_serve, args=arguments, daemon=True)
        with _interrupts_held_back():
            process.start()
        other_end.close()
        self._processes[pipe] = process
        return pipe

    def _end(self, pipe: Connection) -> str:
        """How the process at a pipe that broke has ended."""
        process = self._processes.pop(pipe)
        process.join()
        code = process.exitcode
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}; there may be too little memory"
        return f"ended with exit code {code}"


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """A process that starts here does not see Ctrl-C, which is for its parent, from the outset."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(work: Work, prepare: Callable[[], None], pipe: Connection) -> None:
    """Runs the tasks that come through the pipe, until it is closed."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that half files are removed
    prepare()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task = pipe.recv()
            pipe.send(_outcome(work, task, lambda told: pipe.send(("report", told))))


def _end_with_parent() -> None:
    """This process ends when its parent does, also where that is killed, at whatever it is."""
    parent = multiprocessing.parent_process()
    with contextlib.suppress(OSError, AttributeError):  # Linux; it also ends native code
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_outlive_not, args=[parent], daemon=True).start()


def _outlive_not(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _outcome(work: Work, task: Any, report: Report) -> tuple[str, str]:
    try:
        work(task, report)
    except UsageError as error:
        return "usage error", str(error)
    except FailureError as error:
        return "failure", str(error)
    except Exception as error:
        if not is_lack_of_memory(error):
            raise
        return "failure", NO_MEMORY
    return "done", ""
