"""Tests of the batch script, run by this host's shell, and of the reading of what it prints."""

import base64
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_bench.phone import batch, binary

TOKEN = "5ecre7"
TOOL = """\
#!/bin/sh
echo "INFO: measured $1"
echo "ERROR: some trouble" >&2
printf 'half a line'
if [ "$1" = --files ]; then
  printf 'result\\n' >jobs/result.pb
  printf 'kind, name\\n' >jobs/profile.csv
fi
if [ "$1" = --crash ]; then kill -SEGV $$; fi
cat
"""
# One writes files, one crashes, one does nothing.
COMMANDS = [["./tool", "--files"], ["./tool", "--crash"], ["./tool", "it's; $(x)"]]


def run_script(folder, commands, launcher=None, merged=False):
    """Runs a batch in a folder; returns the lines of stdout and of stderr."""
    script = batch.make_script(
        commands,
        token=TOKEN,
        folder=str(folder),
        launcher=launcher or binary.launcher(None),
        state="echo fine\necho unheard >&2",
    )
    done = subprocess.run(
        ["sh"],
        input=script.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        timeout=20,
        check=True,
    )
    return [(text or b"").decode().splitlines() for text in (done.stdout, done.stderr)]


def read(lines, count):
    """Feeds (stream, line) pairs to a reader; returns the runs that it gave back."""
    reader = batch.BatchReader(count, TOKEN, now=lambda: "now")
    return [run for stream, line in lines if (run := reader.feed(stream, line)) is not None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a batch works, with a tool in it."""
    folder = tmp_path_factory.mktemp("batch of runs")
    (folder / "jobs").mkdir()
    (folder / "tool").write_text(TOOL)
    (folder / "tool").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def recorded(folder):
    """The streams of the three runs."""
    out, err = run_script(folder, COMMANDS)
    return [("out", line) for line in out], [("err", line) for line in err]


def test_each_run_is_read_back(recorded):
    out, err = recorded
    first, second, third = read(out + err, 3)
    assert [run.index for run in (first, second, third)] == [0, 1, 2]
    assert [run.exit_code for run in (first, second, third)] == [0, 139, 0]
    assert first.text("out").splitlines()[-2:] == ["INFO: measured --files", "half a line"]
    assert first.text("err").splitlines() == ["ERROR: some trouble"]
    assert first.text("before").strip() == first.text("after").strip() == "fine"
    assert first.started == "now"
    assert (first.result, first.text("profile").strip()) == (b"result\n", "kind, name")
    assert second.text("out").rstrip().endswith("half a line")
    assert "measured it's; $(x)" in third.text("out")
    assert (third.result, third.text("profile")) == (None, "")  # not those of the first run
    assert {run.cpus for run in (first, second, third)} == {first.cpus}
    with open("/proc/self/status") as status:
        allowed = next(line for line in status if line.startswith("Cpus_allowed_list"))
    assert first.cpus == allowed.split()[1]


def test_merged_streams_give_the_same_runs(folder):
    """Without shell v2, a terminal's one stream has both, with CRLF."""
    out, err = run_script(folder, COMMANDS, merged=True)
    assert err == []
    runs = read([("out", line + "\r") for line in out], 3)
    assert [run.exit_code for run in runs] == [0, 139, 0]
    lines = runs[0].text("out").splitlines()
    assert {"INFO: measured --files", "ERROR: some trouble", "half a line"} <= set(lines)
    assert runs[0].result == b"result\n"
    assert all(run.text("after").strip().startswith("fine") for run in runs)
    assert runs[0].cpus == runs[2].cpus is not None


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_streams_may_interleave_in_any_way(recorded, data):
    out, err = recorded
    picks = data.draw(st.lists(st.booleans(), min_size=len(out) + len(err)))
    left, right = list(out), list(err)
    lines = []
    for pick in picks:
        source = (left or right) if pick else (right or left)
        if source:
            lines.append(source.pop(0))
    lines += left + right
    texts = [(run.text("out"), run.text("err"), run.exit_code) for run in read(lines, 3)]
    assert texts == [(r.text("out"), r.text("err"), r.exit_code) for r in read(out + err, 3)]


@given(cut=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_a_cut_stream_ends_no_run_that_it_lacks(recorded, cut):
    """What was complete before the cut is the same as without the cut."""
    out, err = recorded
    lines = err + out
    whole = read(lines, 3)
    runs = read(lines[:-cut] if cut else lines, 3)
    assert [run.lines for run in runs] == [run.lines for run in whole[: len(runs)]]
    assert (len(runs) == 3) == (cut == 0)


_MARKER = st.builds(
    "{} {} {}".format,
    st.just(TOKEN),
    st.sampled_from(["0", "1", "2", "99", "-1", "1234567", "٣", "cpus"]),
    st.sampled_from(
        ["before", "run", "log", "exit 0", "exit 9999", "exit", "result", "profile", "end", "x"]
    ),
)


@given(
    st.lists(
        st.tuples(st.sampled_from(["out", "err"]), st.one_of(_MARKER, st.text(max_size=40))),
        max_size=60,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_lines_are_taken(lines):
    runs = read(lines, 3)
    assert [run.index for run in runs] == list(range(len(runs)))
    for run in runs:
        assert run.exit_code is not None
        assert run.result is None or isinstance(run.result, bytes)


def test_a_flood_is_cut_and_noticed():
    reader = batch.BatchReader(2, TOKEN)
    assert reader.feed("out", f"{TOKEN} 0 run") is None
    line = "x" * 1000
    for _ in range(batch.MAX_CHARS // 1000 + 10):
        assert reader.feed("out", line) is None
    assert reader.flooded
    for stream in ("out", "err"):
        reader.feed(stream, f"{TOKEN} 0 exit 0")
    assert reader.feed("out", f"{TOKEN} 0 end") is None
    run = reader.feed("err", f"{TOKEN} 0 end")
    assert len(run.text("out")) <= batch.MAX_CHARS
    assert run.cut == {"out"}
    assert not reader.flooded  # the next run has printed nothing yet


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
@settings(max_examples=10, deadline=None)
def test_words_reach_the_tool_as_they_are(tmp_path_factory, words):
    folder = tmp_path_factory.mktemp("words")
    (folder / "jobs").mkdir()
    launcher = 'for word in "$@"; do printf %s "$word" | base64 -w 0; echo; done'
    out, err = run_script(folder, [["./tool", *words]], launcher)
    (run,) = read([("out", line) for line in out] + [("err", line) for line in err], 1)
    seen = [base64.b64decode(line).decode() for line in run.lines["out"][:-1]]
    assert seen == ["./tool", *words]


def test_what_runs_is_ended_and_nothing_else(tmp_path):
    """The process numbers in the folder are ended only where they are still a batch's."""
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    ours = subprocess.Popen(["sh", "-c", "sleep 60; true", str(tmp_path)])
    other = subprocess.Popen(["sleep", "60"])
    try:
        (jobs / "shell").write_text(f"{ours.pid}\n")
        (jobs / "tool").write_text(f"{other.pid}\n")
        subprocess.run(["sh", "-c", batch.end_script(str(tmp_path))], timeout=10, check=True)
        assert ours.wait(timeout=10) == -9
        assert other.poll() is None
        assert list(jobs.iterdir()) == []
        for text in ("-1\n", "1; touch bad\n", "$(touch bad)\n", "", f"{other.pid} {other.pid}\n"):
            (jobs / "tool").write_text(text)
            subprocess.run(["sh", "-c", batch.end_script(str(tmp_path))], timeout=10, cwd=tmp_path)
        assert other.poll() is None
        assert list(tmp_path.rglob("bad")) == []
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()
