"""What commands print: readers that leave, full disks, text that would steer a terminal."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from cli_helpers import ROOT, assert_one_message, finish, start

from mobile_bench.streams import outlets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, schön, 图像\n", "plain, schön, 图像\n"),
        ("50%|#  |\r\x1b[A\n\tok", "50%|#  |\r\x1b[A\n\tok"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("cat\u202egpj\u2028\x85\x0b", "cat\\u202egpj\\u2028\\x85\\x0b"),
        ("\udcff\x00", "\\udcff\\x00"),
    ],
)
def test_nothing_steers_the_terminal_but_progress_bars(text, shown, monkeypatch):
    out, error = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    with outlets():
        assert sys.stdout.write(text) == len(text)
        print(text, end="", file=sys.stderr)
    assert (out.getvalue(), error.getvalue()) == (shown, shown)
    assert (sys.stdout, sys.stderr) == (out, error)


def test_a_reader_may_leave_early():
    process = subprocess.Popen(
        [sys.executable, "-m", "ofa_tf.cli.train", "--help"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()  # before anything is written
    assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 0)


def test_a_full_disk_under_the_output_is_told():
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "ofa_tf.cli.train", "--help"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    lost = "train.py: the output could not be written: No space left on device.\n"
    assert (process.returncode, process.stderr) == (1, lost)


def test_a_full_disk_under_the_messages_changes_no_exit_code():
    with open("/dev/full", "w") as full:
        code = subprocess.call(
            [sys.executable, "-m", "ofa_tf.cli.train", "--nonsense"], cwd=ROOT, stderr=full
        )
    assert code == 2


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_streams_that_the_caller_closed_change_no_exit_code(closed):
    """As under some schedulers: what native code prints may not end up in a file of ours either."""
    code = (
        "import os\nfrom mobile_bench.streams import outlets\nwith outlets() as out:\n"
        " print('x')\n out.flush()\n os.write(1, b'y')\n os.write(2, b'z')\n"
        " assert open(os.devnull).fileno() > 2 and out.error is None\n"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command], cwd=ROOT)
    assert ended.returncode == 0


def test_too_little_memory_is_one_message():
    """As under `ulimit -v`, where TensorFlow's libraries would end the process."""
    import resource

    limit = 3_000_000_000

    def little():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    ended = finish(start("train", "--workdir=x", "--space=ofa_mbv3_tiny", preexec_fn=little))
    assert_one_message(ended, 1, "needs 5 GB of address space, but this process may have 3.0 GB")
