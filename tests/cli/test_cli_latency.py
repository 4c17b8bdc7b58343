"""ofa-latency: with and without a job, what it prints, and what it refuses."""

import json
import pathlib
import re
import signal
import time
from unittest import mock

import pytest
from cli_helpers import assert_one_message, finish, run, start
from search_helpers import FakeDevice

from ofa_tf.errors import UsageError
from ofa_tf.search import LatencyTable
from ofa_tf.spaces import get_space

TINY = get_space("ofa_mbv3_tiny")
LOW = TINY.resolutions[0]
SPACE = ("--space=ofa_mbv3_tiny", "--num_classes=10", f"--latency_resolutions={LOW}")
FEW = ("--fit_subnets=4", "--check_subnets=3", "--latency_rounds=2")


class Recorded(FakeDevice):
    """Keeps what it was asked to convert and to measure with."""

    def __init__(self):
        super().__init__()
        self.files, self.settings, self.calibration = set(), [], {}

    def convert_to(self, model, plan, interface, precision, images, *, form) -> bytes:
        self.files.add((precision, form))
        self.calibration[model.input_shape[1:]] = images
        takes_images = interface.input == "pixels"
        assert takes_images == (plan.blocks[0].name == "stem")
        return self.convert(plan, takes_images)

    def measure_with(self, paths, on_result, **settings):
        self.settings.append(settings)
        self.measure(paths, on_result)


@pytest.fixture
def device():
    made_up = Recorded()
    with (
        mock.patch("ofa_tf.export.convert_subnet", made_up.convert_to),
        mock.patch("mobile_bench.measure", made_up.measure_with),
    ):
        yield made_up


def test_a_space_without_a_job_is_measured_once(device, tmp_path):
    ended = run("latency", f"--workdir={tmp_path}", *SPACE, *FEW, "--threads=2")
    assert ended.code == 0, ended.err
    path = tmp_path / "latency_host_float32_2t.json"
    table = LatencyTable.load(path)
    assert table.space == TINY.restrict(resolutions=(LOW,))
    assert (table.num_classes, table.precision) == (10, "float32")
    assert table.report["fitted"]["n"] == 4
    assert device.files == {("float32", "cpu")}
    assert {(s["target"], s["threads"], s["rounds"]) for s in device.settings} == {("host", 2, 1)}
    first, *_ = lines = ended.out.splitlines()
    assert first.startswith("ofa_mbv3_tiny on host (cpu), ")
    assert first.endswith(f"float32: {len(table.block_ms)} blocks at {LOW} pixels")
    assert any(line.startswith("4 subnets it was fitted on") for line in lines)
    assert any(line.startswith("3 subnets it never saw") for line in lines)
    assert "no interpolation" in lines[-1]
    measured = len(device.measured)
    again = run("latency", f"--workdir={tmp_path}", *SPACE, *FEW, "--threads=2")
    assert (again.code, len(device.measured)) == (0, measured)
    assert f"{path} is there already" in again.err


def test_int8_models_are_calibrated_on_their_own_inputs(device, tmp_path):
    args = (*SPACE, *FEW, "--tflite_precision=int8", "--form=plain")
    ended = run("latency", f"--workdir={tmp_path}", *args)
    assert ended.code == 0, ended.err
    path = tmp_path / "latency_host_int8_plain_1t.json"
    table = LatencyTable.load(path, precision="int8", form="plain")
    assert (table.precision, table.form) == ("int8", "plain")
    with pytest.raises(UsageError, match="models in the plain form, not the cpu one"):
        LatencyTable.load(path, form="cpu")
    assert device.files == {("int8", "plain")}
    images = device.calibration[LOW, LOW, 3]
    assert 0 <= images.min() < 10 < 245 < images.max() <= 255
    others = [inputs for shape, inputs in device.calibration.items() if shape[-1] != 3]
    assert others
    assert all(inputs.min() < 0 < inputs.max() < 10 for inputs in others)


def test_interrupted_it_goes_on_where_it_was(device, tmp_path):
    def interrupted(path):
        if len(device.measured) > 64:
            raise KeyboardInterrupt
        return Recorded._time(device, path)

    with mock.patch.object(device, "_time", interrupted):
        ended = run("latency", f"--workdir={tmp_path}", *SPACE, *FEW)
    assert_one_message(ended, 130, "interrupted. Run the same command again to go on.")
    assert not (tmp_path / "latency_host_float32_1t.json").exists()
    before, converted = len(device.measured), device.converted
    assert before == 65
    assert run("latency", f"--workdir={tmp_path}", *SPACE, *FEW).code == 0
    table = LatencyTable.load(tmp_path / "latency_host_float32_1t.json")
    assert device.converted == converted
    assert len(device.measured) - 1 == len(table.rows) == 2 * converted  # no row was lost


def test_the_job_decides_the_space(device, job):
    ended = run("latency", f"--workdir={job}", f"--latency_resolutions={LOW}", *FEW)
    assert ended.code == 0, ended.err
    table = LatencyTable.load(job / "latency_host_float32_1t.json")
    assert table.num_classes == 3
    assert table.space == TINY.restrict(resolutions=(LOW,))
    for other in ("--space=ofa_mbv3_cifar", "--num_classes=10"):
        ended = run("latency", f"--workdir={job}", other)
        assert_one_message(ended, 2, "holds a job of ofa_mbv3_tiny with 3 classes. Leave out")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), "holds no job. Run ofa-train or ofa-import"),
        (("--num_classes=10",), "holds no job. Run ofa-train or ofa-import"),
        (("--space=ofa_mbv3_tiny",), "Give --num_classes: the last layer's latency depends"),
        (("--space=ofa_mbv3_huge", "--num_classes=10"), "ofa_mbv3_huge"),
        ((*SPACE[:2], "--latency_resolutions=24,33"), "resolutions of ofa_mbv3_tiny can be"),
        ((*SPACE[:2], "--latency_resolutions=low"), "--latency_resolutions is a list of whole"),
        ((*SPACE, "--fit_subnets=1"), "--fit_subnets=1"),
        ((*SPACE, "--tflite_precision=int4"), "tflite_precision"),
        ((*SPACE, "--delegate=npu"), "delegate"),
        ((*SPACE, "--target=all"), "A latency table is of one device: give its serial"),
        ((*SPACE, "--target=host,R58M12ABCDE"), "A latency table is of one device"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(device, tmp_path, args, expected):
    assert_one_message(run("latency", f"--workdir={tmp_path}", *args), 2, expected)
    assert (device.converted, device.measured) == (0, [])
    assert list(tmp_path.iterdir()) == []


def test_damaged_rows_of_an_interrupted_run_are_refused(device, tmp_path):
    (tmp_path / "latency_host_float32_1t.json.rows.jsonl").write_text('{"round": 0}\n')
    ended = run("latency", f"--workdir={tmp_path}", *SPACE, *FEW)
    assert_one_message(ended, 2, "latency_host_float32_1t.json.rows.jsonl, line 1: ")


def test_a_table_of_another_precision_is_refused(device, tmp_path, job):
    assert run("latency", f"--workdir={tmp_path}", *SPACE, *FEW).code == 0
    made = tmp_path / "latency_host_float32_1t.json"
    made.rename(job / "latency_host_int8_1t.json")
    (job / "search.json").write_text(json.dumps({"settings": {}, "subnets": []}))
    (job / "measurements.jsonl").write_text("")
    ended = run("report", f"--workdir={job}", "--tflite_precision=int8")
    assert ended.code == 0
    told = "There is no table of results: The latency table "
    assert re.search(rf"^{told}.*int8_1t.json cannot be used: it is of float32", ended.err, re.M)
    assert not (job / "results.json").exists()


@pytest.mark.slow
def test_sigint_leaves_what_was_measured(tmp_path):
    args = [f"--workdir={tmp_path}", *SPACE, "--fit_subnets=2", "--check_subnets=1"]
    args += ["--latency_rounds=1", "--latency_min_secs=0"]
    process = start("latency", *args)
    models = tmp_path / "latency_host_float32_1t.json.models"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and len(_files(models)) < 5:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert_one_message(ended, 130, "interrupted. Run the same command again to go on.")
    left = _files(models)
    assert len(left) >= 5
    times = {path: path.stat().st_mtime_ns for path in left}
    again = start("latency", *args)
    while time.monotonic() < deadline and len(_files(models)) <= len(left):
        time.sleep(0.05)
    assert {path: path.stat().st_mtime_ns for path in left} == times
    ended = finish(again)
    assert ended.code == 0, ended.err
    assert LatencyTable.load(tmp_path / "latency_host_float32_1t.json").report["n"] == 1
    assert not models.exists()


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("*.tflite"))
