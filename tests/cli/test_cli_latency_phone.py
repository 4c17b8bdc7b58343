"""ofa-latency on a phone: the stand-in of tests/mobile_bench, through the real adb."""

from __future__ import annotations

from unittest import mock

import pytest
from cli_helpers import assert_one_message, run
from search_helpers import FakeDevice
from stand_in import Fault
from stand_in.fixtures import adb, make_phone, phone, tool_path  # noqa: F401

from ofa_tf.search import LatencyTable
from ofa_tf.spaces import get_space

LOW = get_space("ofa_mbv3_tiny").resolutions[0]
SPACE = ("--space=ofa_mbv3_tiny", "--num_classes=10", f"--latency_resolutions={LOW}")
FEW = ("--fit_subnets=4", "--check_subnets=3", "--latency_rounds=1")
OVERHEAD_US, US_PER_WORK, SLOPE = 50.0, 100.0, 1.5


@pytest.fixture
def additive(phone, adb, monkeypatch):  # noqa: F811
    """A phone on which a whole subnet takes SLOPE times the sum of its blocks."""
    for name, value in adb.environment.items():
        monkeypatch.setenv(name, value)

    def mean_us(arguments: list[str]) -> float:
        graphs = [a.partition("=")[2] for a in arguments if a.startswith("--graph=")]
        if not graphs:
            return 1.0  # --help
        work, slope = map(float, phone.files.content(graphs[0]).split())
        return OVERHEAD_US + US_PER_WORK * work * slope

    def convert(model, plan, interface, precision, images, *, form) -> bytes:
        work = FakeDevice().convert(plan, False).split()[0].decode()
        whole = plan.blocks[0].name == "stem" and len(plan.blocks) > 1
        return f"{work} {SLOPE if whole else 1.0}".encode()

    phone.tool.mean_us, phone.tool.std_us = mean_us, 1.0
    with mock.patch("ofa_tf.export.convert_subnet", convert):
        yield phone


def latency(phone, tool, workdir, *args: str):  # noqa: F811
    flags = (f"--workdir={workdir}", f"--target={phone.serial}", f"--benchmark_binary={tool}")
    return run("latency", *flags, *SPACE, *FEW, "--cpus=big", *args)


@pytest.mark.slow
def test_a_table_of_a_phone_that_is_lost_meanwhile(
    additive,
    adb,  # noqa: F811
    tool_path,  # noqa: F811
    tmp_path,
):
    additive.faults.add(Fault("unplug", skip=20, refuse=None))
    with mock.patch("mobile_bench.phone.target._BACK_SECS", 0.5):
        ended = latency(additive, tool_path, tmp_path)
    assert (ended.code, "Traceback" in ended.err) == (1, False)
    assert f"{additive.serial}: " in ended.err
    assert "run `adb reconnect offline`; it did not come back within 0.5 s" in ended.err
    (file,) = tmp_path.glob("*.rows.jsonl")
    kept = len(file.read_text().splitlines())
    assert kept == 18  # of the 20 runs two were asked for --help
    assert f"({68 - kept} of 68 models are left; resume to go on with them)" in ended.err

    adb.disconnect(additive)
    additive.plug_in()
    adb.connect(additive)
    before = len(additive.runs)
    additive.log.clear()
    ended = latency(additive, tool_path, tmp_path)
    assert ended.code == 0, ended.err
    assert "SM8350" in ended.out.splitlines()[0]
    name = additive.serial.replace(":", "-")
    table = LatencyTable.load(tmp_path / f"latency_{name}_float32_cpus-big_1t.json")
    assert len(additive.runs) - before == len(table.rows) - kept + 2
    assert {run.cpus for run in additive.runs if run.cpus} == {"4-7"}
    assert additive.round_trips() < 1.5 * len(table.rows)  # nearly all to push what is new
    assert table.report["doubtful"] == {}
    assert table.report["mape"] < 0.02  # the tool prints whole microseconds
    assert table.slope == pytest.approx(SLOPE, rel=0.02)
    assert table.setup["device"]["model"] == "LE2113"
    assert table.setup["settings"]["cpus"] == "big"


def test_a_phone_without_its_tool_is_refused_before_anything_is_converted(additive, tmp_path):
    ended = latency(additive, tmp_path / "none", tmp_path)
    assert_one_message(ended, 2, "benchmark_binary", "none")
    assert list(tmp_path.iterdir()) == []
