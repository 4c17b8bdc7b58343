"""make bench: parts are kept, resumed, skipped, and fail or are interrupted one by one."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys

import pytest
import run_all
from records import Record
from results import Result, read_result
from run_all import Part
from tables import rewritten

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"

# Measures what --value says and notes in a file beside it that it ran.
SCRIPT = """
import argparse, pathlib, sys, time
sys.path.append({benchmarks!r})
import records
parser = argparse.ArgumentParser()
parser.add_argument("--value", type=float, default=2.0)
parser.add_argument("--published")
records.add_flag(parser)
args = parser.parse_args()
with open(pathlib.Path(__file__).with_suffix(".runs"), "a") as file:
    file.write(f"{{args.value}}\\n")
if args.value == 0:
    print("first line", file=sys.stderr)
    raise RuntimeError("it broke")
if args.value < 0:
    print("waits", flush=True)
    time.sleep(60)
values = (args.value, 2 * args.value)
records.report([records.Record("s", "c", "u", values, (1.0, 1.0), goal=">= 2")], args.records)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(benchmarks=str(BENCHMARKS)))
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(run_all, "_HERE", tmp_path)  # where the parts' scripts are
    monkeypatch.setattr(run_all, "_SHARED_SCRIPTS", ())
    monkeypatch.setattr(run_all.machine, "ROOT", tmp_path)  # of the code that the hash is of


def part(name: str, arguments: str = "", **fields) -> Part:
    return Part(name, "script.py", arguments, "--value=5", 1, **fields)


def runs(script: pathlib.Path) -> list[str]:
    path = script.with_suffix(".runs")
    return path.read_text().split() if path.exists() else []


def test_parts_are_kept_and_resumed(script, tmp_path, capfd):
    parts, folder = [part("a"), part("b", "--value=4")], tmp_path / "results"
    outcomes = run_all.run(parts, folder)
    assert [outcomes[name].records[0].ours for name in ("a", "b")] == [(2.0, 4.0), (4.0, 8.0)]
    assert outcomes["b"].context["arguments"] == "script.py --value=4"
    assert outcomes["a"].context["quick"] == "no"
    assert runs(script) == ["2.0", "4.0"]
    assert "[2/2] b, about 1 of at most 1 minutes" in capfd.readouterr().out

    # Nothing is new; then settings, code and --again are.
    assert run_all.run(parts, folder) == outcomes
    assert runs(script) == ["2.0", "4.0"]
    quick = run_all.run(parts[:1], folder, quick=True)["a"]
    assert quick.records[0].ours == (5.0, 10.0)
    assert "quick settings" in quick.caption()
    script.write_text(script.read_text() + "\n")
    run_all.run(parts[1:], folder)
    run_all.run(parts[1:], folder, again=True)
    assert runs(script)[2:] == ["5.0", "4.0", "4.0"]


def kept(folder: pathlib.Path, name: str, *ratios: float) -> Result:
    """A result as if it had been measured."""
    happened = run_all.machine.Watch().stop()
    record = Record("s", "c", "u", ratios, (1.0,) * len(ratios), goal=">= 2")
    context = happened | run_all._expected(part(name), quick=False)
    result = Result(name, (record,), context)
    result.write(folder)
    return result


@pytest.mark.parametrize("changed", [{"tensorflow": "9"}, {"cpu": "another"}, {"commit": "1"}])
def test_another_machine_or_version_is_measured_anew(script, tmp_path, changed):
    kept(tmp_path, "a", 1.0)
    expected = run_all._expected(part("a"), quick=False)
    result = read_result(tmp_path, "a")
    assert result.is_of(expected)
    assert result.is_of(expected | changed) == ("commit" in changed)  # the code's hash decides


def test_failing_part_leaves_the_others_alone(script, tmp_path, capfd):
    parts = [part("a", "--value=0"), part("b")]
    outcomes = run_all.run(parts, tmp_path)
    assert outcomes["a"] == "a: failed with exit code 1: RuntimeError: it broke"
    assert isinstance(outcomes["a"], run_all.Failed)
    assert isinstance(outcomes["b"], Result)
    assert "first line" in capfd.readouterr().err  # what it says is passed on
    assert not (tmp_path / "a.csv").exists()


def test_skipped_parts_say_why(script, tmp_path, monkeypatch):
    needs = part("a", needs=("published",))
    assert "--published=DIR" in run_all.run([needs], tmp_path)["a"]
    assert isinstance(run_all.run([needs], tmp_path, published=tmp_path)["a"], Result)
    monkeypatch.setattr(run_all.importlib.util, "find_spec", lambda name: None)
    outcome = run_all.run([part("b", needs=("reference",))], tmp_path)["b"]
    assert outcome == "b: skipped, torch is not installed: pip install -e '.[reference]'"
    assert runs(script) == ["2.0"]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_interruption_ends_the_part_and_keeps_the_others(script, tmp_path, number):
    program = (
        f"import sys, pathlib; sys.path.append({str(BENCHMARKS)!r}); import run_all\n"
        f"run_all._HERE, run_all._SHARED_SCRIPTS = pathlib.Path({str(tmp_path)!r}), ()\n"
        "parts = {'a': '', 'b': '--value=-1'}.items()\n"
        "run_all.PARTS = [run_all.Part(n, 'script.py', flags, '', 1) for n, flags in parts]\n"
        f"sys.argv[1:] = ['--results', {str(tmp_path / 'results')!r}]\n"
        "run_all.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("waits"):
            break
    process.send_signal(number)
    rest = process.stdout.read()  # to its end: so the part, which writes to it too, has ended
    assert process.wait(timeout=30) == 128 + number
    assert ("run it again to go on" in rest) == (number == signal.SIGINT)
    assert read_result(tmp_path / "results", "a")
    assert read_result(tmp_path / "results", "b") is None


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--only=nothing,search", "no part nothing; train_step, "),
        ("--published=.", "has no acc_predictor.pth, note10"),
    ],
)
def test_bad_flags(monkeypatch, tmp_path, capsys, flag, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run_all.py", flag])
    with pytest.raises(SystemExit) as ended:
        run_all.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_tables_are_rewritten_between_their_marks(script, tmp_path):
    kept(tmp_path, "a", 1.0)
    kept(tmp_path, "b", 3.0, 2.0, 4.0)
    text = "Before.\n<!-- results: {} -->\nby hand\n<!-- end of results -->\nAfter.\n"
    both = rewritten(text.format("a b"), tmp_path)
    lines = both.splitlines()
    assert lines[0] == "Before."
    assert lines[-1] == "After."
    assert "by hand" not in both
    assert "| s | ours | other | ratio (min to max) | of | against | goal |" in lines
    assert "| c, u | 3 | 1 | 3.00 (2.00 to 4.00) | 3 repeats |  | >= 2: met |" in lines
    assert any(line.startswith("`python benchmarks/script.py`: ") for line in lines)
    assert rewritten(both, tmp_path) == both
    # A part without a result leaves what stands there.
    assert rewritten(text.format("c"), tmp_path) == text.format("c")


def test_tables_of_the_documents_are_those_of_the_results():
    for path in (BENCHMARKS / "README.md", ROOT / "README.md"):
        assert rewritten(path.read_text(), BENCHMARKS / "results") == path.read_text()


def test_parts_are_told_apart():
    names = [part.name for part in run_all.PARTS]
    assert len(set(names)) == len(names)
    assert all((BENCHMARKS / part.script).exists() for part in run_all.PARTS)


@pytest.mark.slow
def test_quick_part_runs(tmp_path):
    """Against the reference where it is there; else the part without it."""
    has_reference = run_all._lack(part("a", needs=("reference",)), None) == ""
    name = "train_step" if has_reference else "elastic_forms"
    flags = ("--quick", f"--only={name},search", f"--results={tmp_path}")
    ended = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run_all.py"), *flags],
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "search: skipped, " in ended.stdout
    result = read_result(tmp_path, name)
    assert all(record.ratios for record in result.records[:3])
    assert result.context["quick"] == "yes"
