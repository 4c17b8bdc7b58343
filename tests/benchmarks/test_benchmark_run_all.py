"""make bench: parts are kept, skipped, and fail or are interrupted one by one; its tables."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys

import machine
import pytest
import run_all
from records import Record, from_json
from run_all import Part
from tables import rewritten

from ofa_tf.files import read_json, write_json

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"

# Measures what --value says and notes in a file beside it that it ran.
SCRIPT = """
import pathlib, sys, time
sys.path.append({benchmarks!r})
import records
parser = records.parser("Measures.")
parser.add_argument("--value", type=float, default=2.0)
parser.add_argument("--published")
parser.add_argument("--reference", action="store_true")
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


@pytest.fixture
def bench(script, monkeypatch, tmp_path):
    """Runs run_all.py with parts of the script in this process; gives its exit code."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(run_all, "_HERE", tmp_path)  # where the parts' scripts are
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(parts: dict[str, Part], *flags: str) -> int:
        monkeypatch.setattr(run_all, "PARTS", parts)
        monkeypatch.setattr(sys, "argv", ["run_all.py", f"--results={tmp_path / 'R'}", *flags])
        return run_all.main()

    return run


def part(arguments: str = "", **fields) -> Part:
    return Part("script.py", arguments, "--value=5", **fields)


def runs(script: pathlib.Path) -> list[str]:
    path = script.with_suffix(".runs")
    return path.read_text().split() if path.exists() else []


def test_parts_are_run_and_kept(bench, script, tmp_path, capfd):
    assert bench({"a": part(), "b": part("--value=4")}) == 0
    results = [read_json(tmp_path / "R" / f"{name}.json") for name in ("a", "b")]
    assert [result["records"][0]["ours"] for result in results] == [[2.0, 4.0], [4.0, 8.0]]
    assert results[1]["arguments"] == "script.py --value=4"
    assert results[1]["quick"] is False
    assert int(results[1]["cores"]) >= 1
    assert runs(script) == ["2.0", "4.0"]
    told = capfd.readouterr().out
    assert "[2/2] b\npython benchmarks/script.py --value=4\n" in told
    # At the end, all of it again in one table.
    assert told.count("c, u") == 4
    assert told.endswith(f"Results: {tmp_path / 'R'}\n")


def test_quick_results_are_marked(bench, script, tmp_path, capsys):
    assert bench({"a": part(), "b": part()}, "--quick", "--only=a") == 0
    assert runs(script) == ["5.0"]
    assert "min, quick settings: not a measurement" in capsys.readouterr().out
    assert not (tmp_path / "R" / "b.json").exists()


def test_failing_part_leaves_the_others_alone(bench, tmp_path, capfd):
    assert bench({"a": part("--value=0"), "b": part()}) == 1
    told = capfd.readouterr()
    assert "\na: failed with exit code 1; see above\n" in told.out
    assert "RuntimeError: it broke" in told.err
    assert [path.name for path in (tmp_path / "R").iterdir()] == ["b.json"]


def test_skipped_parts_say_why(bench, script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    assert bench({"a": part(published=True)}) == 0
    assert "a: skipped, it needs the published files: --published=DIR" in capsys.readouterr().out
    for name in ("acc_predictor.pth", "note10"):
        (tmp_path / name).touch()
    assert bench({"a": part(published=True)}, f"--published={tmp_path}") == 0
    assert runs(script) == ["2.0"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert bench({"b": part("--reference")}) == 0
    told = capsys.readouterr().out
    assert "b: skipped, torch is not installed: pip install -e '.[reference]'" in told
    assert runs(script) == ["2.0"]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_interruption_ends_the_part_and_keeps_the_others(script, tmp_path, number):
    program = (
        f"import sys, pathlib; sys.path.append({str(BENCHMARKS)!r}); import run_all\n"
        f"run_all._HERE = pathlib.Path({str(tmp_path)!r})\n"
        "parts = {'a': '', 'b': '--value=-1', 'c': ''}.items()\n"
        "run_all.PARTS = {n: run_all.Part('script.py', flags, '') for n, flags in parts}\n"
        f"sys.argv[1:] = ['--results', {str(tmp_path / 'results')!r}]\n"
        "sys.exit(run_all.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    for line in process.stdout:
        if line.startswith("waits"):
            break
    process.send_signal(number)
    rest = process.stdout.read()  # to its end: so the part, which writes to it too, has ended
    assert process.wait(timeout=30) == 128 + number
    assert ("to go on: --only=b,c\n" in rest) == (number == signal.SIGINT)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--only=nothing,search", "no part nothing; there are train_step, "),
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


def kept(folder: pathlib.Path, name: str, *ratios: float) -> None:
    """A result as if it had been measured."""
    record = Record("s", "c", "u", ratios, (1.0,) * len(ratios), goal=">= 2")
    result = {"date": "2026-01-02T03:04:05+00:00", "seconds": 90, "quick": False, "commit": "1a"}
    result |= machine.machine() | machine.versions() | {"arguments": "script.py --value=4"}
    write_json(folder / f"{name}.json", result | {"records": [dataclasses.asdict(record)]})


def test_tables_are_rewritten_between_their_marks(tmp_path):
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
    command = "`python benchmarks/script.py --value=4`: 2026-01-02T03:04:05+00:00, 1.5 min; "
    assert any(line.startswith(command) and line.endswith("; commit 1a.") for line in lines)
    assert rewritten(both, tmp_path) == both
    # A part without a result leaves what stands there.
    assert rewritten(text.format("c"), tmp_path) == text.format("c")


def test_tables_of_the_documents_are_those_of_the_results():
    for path in (BENCHMARKS / "README.md", ROOT / "README.md"):
        assert rewritten(path.read_text(), BENCHMARKS / "results") == path.read_text()


def test_parts_have_scripts():
    assert all((BENCHMARKS / part.script).exists() for part in run_all.PARTS.values())


@pytest.mark.slow
def test_quick_part_runs(tmp_path):
    """Against the reference where it is there; else the part without it."""
    has_reference = run_all._lack(part("--reference"), None) == ""
    name = "train_step" if has_reference else "elastic_forms"
    flags = ("--quick", f"--only={name},search", f"--results={tmp_path}")
    ended = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run_all.py"), *flags],
        capture_output=True,
        text=True,
        timeout=800,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "search: skipped, " in ended.stdout
    result = read_json(tmp_path / f"{name}.json")
    assert result["quick"] is True
    measured = [from_json(row) for row in result["records"]]
    assert all(record.ratios for record in measured[:3])
