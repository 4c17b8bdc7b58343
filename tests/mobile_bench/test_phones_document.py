"""docs/PHONES.md: its commands run, and its tables name all columns, reasons and defaults."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from bench_helpers import STATE, make_measurement

from mobile_bench import cli
from mobile_bench.results import DeviceState, Memory, OpTime, Settings, Verdict
from mobile_bench.rows import RowWriter
from mobile_bench.summary import summarize
from mobile_bench.table import format_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "PHONES.md"
TEXT = DOCUMENT.read_text()
BLOCKS = "\n".join(re.findall(r"^ {4}(.*)$", TEXT, re.MULTILINE)).replace("\\\n", " ")
INLINE = re.findall(r"`([^`\n]+)`", TEXT)
COMMANDS = [
    line.partition("#")[0].strip()
    for line in [*BLOCKS.splitlines(), *INLINE]
    if re.match(r"mobile-bench (devices|\S+ )", line)
]
FLAGS = [word for text in INLINE if text.startswith("--") for word in text.split()]
ROW = make_measurement(
    memory=Memory(1.0, 2.0, 3.0),
    profile=(OpTime("conv", "CONV_2D", 10.0, 1, 100.0),),
)


class Asked:
    """In the place of a session: what it was asked for."""

    device = ROW.device

    def open_targets(self, names, settings, options, stop):
        self.settings = settings
        return [self]

    def measure_on(self, targets, paths, settings, *, rounds, cooldown_secs, **others):
        self.rounds, self.cooldown_secs = rounds, cooldown_secs

    def close(self) -> None:
        pass


@pytest.fixture
def asked(monkeypatch, tmp_path) -> Asked:
    """No phones, and the current folder has the files that the document names."""
    made = Asked()
    monkeypatch.setattr("mobile_bench.session.open_targets", made.open_targets)
    monkeypatch.setattr("mobile_bench.session.measure_on", made.measure_on)
    monkeypatch.setattr("mobile_bench.phone.target.open_adb", lambda options: None)
    monkeypatch.setattr("mobile_bench.phone.target.clean", lambda names, options: {})
    monkeypatch.setattr("mobile_bench.phone.listing.list_devices", lambda adb: [])
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "runs/quickstart/subnets/NAME/model_int8.tflite"
    model.parent.mkdir(parents=True)
    model.touch()
    for name in ("runs.jsonl", "before.jsonl", "after.jsonl"):
        with RowWriter(name) as writer:
            writer.write(ROW)
    return made


def table(head: str) -> dict[str, str]:
    """The first two cells of each line of the table that begins so, without code marks."""
    lines = TEXT.partition(f"| {head} |")[2].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines]
    return {first.strip("`"): second for first, second in cells}


def test_the_document_is_read():
    assert {"mobile-bench devices", "mobile-bench clean --target=SERIAL"} < set(COMMANDS)
    assert any(line.startswith("mobile-bench a.tflite b.tflite --target=all") for line in COMMANDS)
    assert any("subnets/*/*.tflite' --target=R58M12ABCDE  " in line for line in COMMANDS)
    assert {"--cpus=0xf0", "--resume"} < set(FLAGS)


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_commands_run(asked, command, capsys):
    assert cli.main(shlex.split(command)) == 0, capsys.readouterr().err


@pytest.mark.parametrize("flag", dict.fromkeys(FLAGS))
def test_flags_exist_and_may_have_these_values(asked, flag, capsys):
    assert cli.main(["mobile-bench", "--help"]) == 0
    name = flag.partition("=")[0]
    helps = capsys.readouterr().out
    assert f"  {name}: " in helps or flag == "--profile"  # of `table`
    if "=" in flag:
        assert cli.main(["mobile-bench", "a.tflite", flag]) == 0, capsys.readouterr().err


def test_what_is_called_a_default_is_one(asked):
    lines = [line for line in table("wish").values() if "(the defaults)" in line]
    flags = [flag for line in lines for flag in re.findall(r"`(--\w+=[^`]+)`", line)]
    assert len(flags) == 8
    assert cli.main(["mobile-bench", "a.tflite", *flags]) == 0
    assert (asked.settings, asked.rounds, asked.cooldown_secs) == (Settings(), 3, 300.0)


def test_all_columns_and_reasons_are_told():
    warm = make_measurement(
        memory=Memory(1.0, 2.0, 3.0), before=DeviceState(STATE.date, battery_celsius=30.0)
    )
    head = format_table(summarize([warm])).splitlines()[0]
    columns = [cell.strip() for cell in head.strip("|").split("|")]
    assert ["model", *table("column")] == columns
    kinds = re.findall(r'"([a-z ]+):"', Verdict.__doc__)
    assert sorted(table("reason")) == sorted(kinds)
