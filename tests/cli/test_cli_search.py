"""ofa-search: with predictors that are given and TensorFlow far away, and on a trained job."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from cli_helpers import ROOT, assert_one_message, run
from job_helpers import make_config

from ofa_tf.files import write_json
from ofa_tf.search import AccuracyPredictor, LatencyTable
from ofa_tf.search.latency import distinct_blocks
from ofa_tf.spaces import Arch, get_space

TINY = get_space("ofa_mbv3_tiny")


@pytest.fixture
def files(tmp_path) -> dict[str, pathlib.Path]:
    """An accuracy predictor and a latency table, made up, by the flag that takes them."""
    rng = np.random.default_rng(0)
    features = TINY.one_hot(TINY.encode([TINY.max()])).shape[1]
    layers = (
        (np.float32(0.1 * rng.normal(size=(features, 8))), np.zeros(8, np.float32)),
        (np.float32(0.01 * rng.normal(size=(8, 1))), np.float32([0.7])),
    )
    predictor, table = tmp_path / "predictor.npz", tmp_path / "table.json"
    AccuracyPredictor(TINY, (layers,), {"rmse": 0.001}).save(predictor)
    blocks = distinct_blocks(TINY, 10, TINY.resolutions)
    latencies = {key: 0.01 + 1e-8 * block.macs for key, block in blocks.items()}
    LatencyTable(TINY, 10, TINY.resolutions, latencies, overhead_ms=0.0).save(table)
    return {"accuracy_predictor": predictor, "latency_table": table}


def given(files, **changes) -> list[str]:
    flags = {"space": "ofa_mbv3_tiny", **files} | changes
    return [f"--{name}={value}" for name, value in flags.items() if value is not None]


def write_job(workdir, space="ofa_mbv3_tiny", classes=10) -> pathlib.Path:
    """The settings of a job, without anything that it trained."""
    names = [f"class {i}" for i in range(classes)]
    write_json(workdir / "config.json", make_config(space, data={"seed": 0}, class_names=names))
    return workdir


def test_a_workdir_without_a_job_is_searched(files, tmp_path):
    workdir = tmp_path / "new"
    ended = run("search", f"--workdir={workdir}", "--budget_ms=0.15,0.2", *given(files))
    assert ended.code == 0, ended.err
    assert [path.name for path in workdir.iterdir()] == ["search.json"]
    found = json.loads((workdir / "search.json").read_text())
    table = LatencyTable.load(files["latency_table"])
    predictor = AccuracyPredictor.load(files["accuracy_predictor"])
    assert [subnet["budget_ms"] for subnet in found["subnets"]] == [0.15, 0.2]
    for subnet in found["subnets"]:
        codes = TINY.encode([Arch.from_dict(subnet["arch"])])
        assert subnet["predicted_latency_ms"] == pytest.approx(table(codes)[0])
        assert subnet["predicted_latency_ms"] <= subnet["budget_ms"]
        assert subnet["predicted_accuracy"] == pytest.approx(predictor(codes)[0])
        assert subnet["macs"] == TINY.blueprint(subnet["arch"], 10).macs
        assert subnet["limits"] == {"latency_ms": subnet["budget_ms"]}
        assert subnet["measures"] == {"latency_ms": subnet["predicted_latency_ms"]}
        assert "candidates" not in subnet
    assert found["settings"]["tables"] == {"latency_ms": hashed(files["latency_table"])}
    assert found["settings"]["accuracy_predictor"] == hashed(files["accuracy_predictor"])


def hashed(path: pathlib.Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}


def test_it_is_searched_again_only_when_a_file_changed(files, tmp_path):
    args = ["search", f"--workdir={tmp_path}", "--budget_ms=0.2", *given(files)]
    assert "The search is done already" not in run(*args).err
    assert "The search is done already" in run(*args).err
    predictor = AccuracyPredictor.load(files["accuracy_predictor"])
    dataclasses.replace(predictor, report={}).save(files["accuracy_predictor"])
    assert "The search is done already" not in run(*args).err


def test_it_is_searched_again_for_another_number_of_classes(files, tmp_path):
    args = ["search", f"--workdir={tmp_path}", "--max_params_m=0.05"]
    for classes in (10, 20):
        ended = run(*args, f"--num_classes={classes}", *given(files, latency_table=None))
        assert ended.code == 0, ended.err
        (subnet,) = subnets_in(tmp_path)
        assert subnet["params"] == TINY.blueprint(subnet["arch"], classes).params <= 50_000


@pytest.mark.parametrize("content", ["[]", '{"settings": []}', "3"])
def test_a_result_that_is_none_of_a_search_is_replaced(files, tmp_path, content):
    (tmp_path / "search.json").write_text(content)
    ended = run("search", f"--workdir={tmp_path}", "--budget_ms=0.2", *given(files))
    assert ended.code == 0, ended.err
    assert len(subnets_in(tmp_path)) == 1


def test_a_missing_latency_table_is_told_with_the_whole_command(tmp_path):
    workdir = write_job(tmp_path / "my job")
    ended = run("search", f"--workdir={workdir}", "--budget_ms=5", "--target=R58M", "--cpus=big")
    assert_one_message(
        ended,
        2,
        f"{workdir}/latency_R58M_float32_cpus-big_1t.json is missing. Run this first: ofa-latency "
        f"'--workdir={workdir}' --target=R58M --cpus=big --benchmark_binary=FOLDER_OF_",
    )
    assert "--target=host (or give" in run("search", f"--workdir={workdir}", "--budget_ms=5").err


def test_budgets_are_spread_where_none_is_given(files, tmp_path):
    ended = run("search", f"--workdir={tmp_path}", "--num_budgets=3", *given(files))
    assert ended.code == 0, ended.err
    budgets = [
        s["budget_ms"] for s in json.loads((tmp_path / "search.json").read_text())["subnets"]
    ]
    assert 1 <= len(budgets) <= 3
    assert budgets == sorted(set(budgets))


def test_tensorflow_is_not_imported(files, tmp_path):
    code = (
        "import sys; from ofa_tf.cli import search\n"
        "try: search.main()\n"
        "finally: print(sorted({'tensorflow', 'keras', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"--workdir={tmp_path}", "--budget_ms=0.2", *given(files)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_job_is_searched_with_what_is_given(files, tmp_path):
    """Neither its checkpoint nor its images are read, for they are not there."""
    workdir = write_job(tmp_path / "job")
    ended = run("search", f"--workdir={workdir}", "--budget_ms=0.2", *given(files, space=None))
    assert ended.code == 0, ended.err
    assert "classes" not in ended.err
    workdir = write_job(tmp_path / "other", classes=3)
    ended = run("search", f"--workdir={workdir}", "--budget_ms=0.2", *given(files))
    assert ended.code == 0, ended.err
    assert "table.json is of networks with 10 classes, the job has 3" in ended.err
    subnet = json.loads((workdir / "search.json").read_text())["subnets"][0]
    assert subnet["params"] == TINY.blueprint(subnet["arch"], 3).params


@pytest.fixture
def known_at(monkeypatch):
    """Sets the resolutions that each of the two loads for."""

    def set_resolutions(predictor, table):
        for kind, resolutions in ((AccuracyPredictor, predictor), (LatencyTable, table)):
            space, load = TINY.restrict(resolutions=resolutions), kind.load
            monkeypatch.setattr(
                kind,
                "load",
                lambda path, *_, space=space, load=load: dataclasses.replace(
                    load(path), space=space
                ),
            )

    return set_resolutions


def test_only_resolutions_that_both_know_are_searched(files, tmp_path, known_at):
    known_at(predictor=(24, 28), table=(28, 32))
    ended = run("search", f"--workdir={tmp_path}", "--budget_ms=0.15,0.3", *given(files))
    assert ended.code == 0, ended.err
    subnets = json.loads((tmp_path / "search.json").read_text())["subnets"]
    assert {subnet["arch"]["r"] for subnet in subnets} == {28}


def test_no_resolution_that_both_know(files, tmp_path, known_at):
    known_at(predictor=(24, 28), table=(32,))
    ended = run("search", f"--workdir={tmp_path}", *given(files))
    assert_one_message(
        ended,
        2,
        "No resolution (pixels) is known to all: ",
        "the latency table of latency_ms answers for [32]; the accuracy predictor answers",
    )


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (
            "space",
            "new holds no job. Run ofa-train or ofa-import with this --workdir first, or give",
        ),
        ("accuracy_predictor", "new holds no job. Run ofa-train or ofa-import with this --workdir"),
        (
            "latency_table",
            "Limits on latency need --latency_table; --max_macs_m and others do not.",
        ),
    ],
)
def test_without_a_job_all_must_be_given(files, tmp_path, missing, said):
    ended = run("search", f"--workdir={tmp_path / 'new'}", *given(files, **{missing: None}))
    assert_one_message(ended, 2, said)
    assert not (tmp_path / "new").exists()


def subnets_in(workdir: pathlib.Path) -> list[dict]:
    return json.loads((workdir / "search.json").read_text())["subnets"]


def test_limits_without_latency(files, tmp_path):
    """No table is needed; all limits hold at once."""
    args = ["--max_macs_m=1.2", "--max_params_m=0.045", "--max_file_kb=200", "--max_memory_kb=30"]
    ended = run(
        "search",
        f"--workdir={tmp_path}",
        "--num_classes=10",
        *args,
        *given(files, latency_table=None),
    )
    assert ended.code == 0, ended.err
    (subnet,) = subnets_in(tmp_path)
    assert subnet["name"] == "macs_1.2m-params_0.045m-file_200kb-memory_30kb"
    assert set(subnet["measures"]) == {"macs_m", "params_m", "file_kb", "memory_kb"}
    assert all(subnet["measures"][name] <= limit for name, limit in subnet["limits"].items())
    plan = TINY.blueprint(subnet["arch"], 10)
    assert plan.macs == subnet["macs"] == pytest.approx(1e6 * subnet["measures"]["macs_m"])
    assert plan.params <= 45_000
    assert "predicted_latency_ms" not in subnet


def test_int8_files_are_smaller(files, tmp_path):
    """So that a larger network keeps the same limit."""
    args = [f"--workdir={tmp_path}", "--max_file_kb=120", "--num_classes=10"]
    params = []
    for precision in ("float32", "int8"):
        flag = f"--tflite_precision={precision}"
        ended = run("search", *args, flag, *given(files, latency_table=None))
        if precision == "float32":
            assert_one_message(ended, 2, "has file_kb <= 120: the least that one can have is 16")
        else:
            assert ended.code == 0, ended.err
            params.append(subnets_in(tmp_path)[0]["params"])
    assert params[0] > 40_000


SCENARIOS = """\
devices:
  phone: {phone}
scenarios:
  - phone_ms: [0.15, 0.2]
  - name: both
    phone_ms: 0.3
    latency_ms: 0.16
    macs_m: 2
"""


@pytest.fixture
def scenarios(files, tmp_path) -> pathlib.Path:
    """Scenarios for the table and for a device that is half as fast."""
    table = LatencyTable.load(files["latency_table"])
    slow = tmp_path / "slow.json"
    latencies = {key: 2 * ms for key, ms in table.block_ms.items()}
    dataclasses.replace(table, block_ms=latencies).save(slow)
    path = tmp_path / "scenarios.yaml"
    path.write_text(SCENARIOS.format(phone="slow.json"))
    return path


def test_scenarios_of_several_devices(files, scenarios, tmp_path):
    workdir = tmp_path / "job"
    args = ["search", f"--workdir={workdir}", f"--scenarios={scenarios}"]
    ended = run(*args, *given(files))
    assert_one_message(ended, 2, "No subnet of ofa_mbv3_tiny has phone_ms <= 0.15: the least")
    scenarios.write_text(scenarios.read_text().replace("[0.15, 0.2]", "[0.3, 0.4]"))
    ended = run(*args, *given(files))
    assert ended.code == 0, ended.err
    found = subnets_in(workdir)
    assert [subnet["name"] for subnet in found] == ["phone_0.3ms", "phone_0.4ms", "both"]
    for subnet in found:
        measures = subnet["measures"]
        assert all(measures[name] <= limit for name, limit in subnet["limits"].items())
        assert measures["phone_ms"] == pytest.approx(2 * measures["latency_ms"])
        assert subnet["predicted_latency_ms"] == measures["latency_ms"]
    assert "budget_ms" not in found[0]
    assert found[2]["budget_ms"] == 0.16
    assert found[0]["predicted_accuracy"] <= found[1]["predicted_accuracy"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("phone_ms: 0.3", "phone_sm: 0.3"), "line 6: there is no key 'phone_sm' here; did you me"),
        (("0.16", "0"), "scenarios.yaml, line 7: latency_ms is a positive number, not '0'."),
        (("slow.json", "fast.json"), "fast.json cannot be used: "),
    ],
)
def test_wrong_scenarios(files, scenarios, tmp_path, change, said):
    scenarios.write_text(scenarios.read_text().replace(*change))
    ended = run("search", f"--workdir={tmp_path}", f"--scenarios={scenarios}", *given(files))
    assert_one_message(ended, 2, said)
    assert not (tmp_path / "search.json").exists()


@pytest.mark.parametrize("measure", ["latency_ms", "macs_m"])
def test_the_front(files, tmp_path, measure):
    args = [f"--workdir={tmp_path}", f"--pareto={measure}", "--max_params_m=0.05", *given(files)]
    ended = run("search", *args, "--effort=low")
    assert ended.code == 0, ended.err
    rows = json.loads((tmp_path / f"front_{measure}.json").read_text())["subnets"]
    costs = [row[measure] for row in rows]
    accuracies = [row["predicted_accuracy"] for row in rows]
    assert len(rows) > 5
    assert (np.diff(costs) > 0).all()
    assert (np.diff(accuracies) > 0).all()
    assert all(TINY.blueprint(row["arch"], 10).params <= 50_000 for row in rows)
    assert (tmp_path / "pictures" / f"front_{measure}.png").exists()
    assert len(ended.out.splitlines()) == 2 + min(20, len(rows))
    assert not (tmp_path / "search.json").exists()
    assert "The search is done already" in run("search", *args, "--effort=low").err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": "ofa_mbv4"}, "There is no search space 'ofa_mbv4'; known: "),
        ({"space": "ofa_mbv3_cifar"}, "table.json cannot be used: it is of ofa_mbv3_tiny, not of"),
        ({"accuracy_predictor": "none.npz"}, "none.npz is no accuracy predictor: "),
        ({"latency_table": "none.json"}, "The latency table none.json cannot be used: "),
        ({"latency_table": "none.yaml"}, "The latency table none.yaml cannot be read: "),
        ({"latency_table": ROOT / "tests"}, "tests has no file that is called *_lookup_table.yaml"),
        ({"accuracy_predictor": ROOT / "README.md"}, "README.md is no accuracy predictor: "),
        ({"budget_ms": "0.2,0.001"}, "has latency_ms <= 0.001: the least that one can have is 0."),
        (
            {"pareto": "macs_m", "budget_ms": "1,2"},
            "--pareto takes one set of limits, which all of",
        ),
        ({"scenarios": "none.yaml"}, "The scenarios file none.yaml cannot be read: "),
        ({"scenarios": "a.yaml", "budget_ms": "1"}, "--scenarios holds all limits: leave out --b"),
        ({"top": "3"}, "--top=3 evaluates candidates from a trained supernet, and "),
        ({"max_macs_m": "0"}, "--max_macs_m=0.0: give a positive number"),
        ({"max_macs_m": "0.1"}, "has macs_m <= 0.1: the least that one can have is 0.3714"),
        (
            {"max_macs_m": "0.6", "budget_ms": "0.15", "max_memory_kb": "8"},
            "has memory_kb <= 8: the least that one can have is ",
        ),
        ({"budget_ms": "soon"}, "--budget_ms is a list of numbers, not 'soon'."),
    ],
)
def test_misuse_is_told_at_once(files, tmp_path, changes, said):
    ended = run("search", f"--workdir={tmp_path / 'new'}", *given(files, **changes))
    assert_one_message(ended, 2, said)
    assert not (tmp_path / "new").exists()


def test_a_front_is_not_evaluated(files, tmp_path):
    args = [f"--workdir={write_job(tmp_path / 'job')}", "--pareto=macs_m", "--top=3"]
    ended = run("search", *args, *given(files, space=None))
    assert_one_message(ended, 2, "of which nothing is evaluated: leave out --pareto=macs_m or --to")


def test_a_job_of_another_space(files, tmp_path):
    workdir = write_job(tmp_path / "job", space="ofa_mbv3_cifar")
    ended = run("search", f"--workdir={workdir}", *given(files))
    assert_one_message(ended, 2, "holds a job of ofa_mbv3_cifar, not of --space=ofa_mbv3_tiny.")
    ended = run("search", f"--workdir={workdir}", *given(files, space=None))
    assert_one_message(ended, 2, "it is of ofa_mbv3_tiny, not of ofa_mbv3_cifar")


def test_the_best_of_several_by_evaluation(job, files):
    """Candidates are evaluated once, for good, and the best by that is the subnet."""
    args = [f"--workdir={job}", "--budget_ms=0.17,0.25", "--top=3", *given(files, space=None)]
    ended = run("search", *args, f"--latency_table={files['latency_table']}")
    assert ended.code == 0, ended.err
    evaluated = {}
    for line in (job / "evaluated_rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["arch"] not in evaluated
        assert row["num_images"] == 15
        evaluated[row["arch"]] = row["accuracy"]
    for subnet in subnets_in(job):
        candidates = subnet["candidates"]
        assert len(candidates) == 3
        archs = [Arch.from_dict(candidate["arch"]).to_json() for candidate in candidates]
        assert len(set(archs)) == 3
        accuracies = [candidate["evaluated_accuracy"] for candidate in candidates]
        assert accuracies == sorted(accuracies, reverse=True) == [evaluated[a] for a in archs]
        assert all(c["measures"]["latency_ms"] <= subnet["budget_ms"] for c in candidates)
        assert subnet["arch"] == candidates[0]["arch"]
        assert subnet["evaluated_accuracy"] == accuracies[0]
    rows = (job / "evaluated_rows.jsonl").read_bytes()
    ended = run(
        "search", *args, "--search_seed=0", "--rank_images=16"
    )  # other settings, same archs
    assert ended.code == 0, ended.err
    assert "The search is done already" not in ended.err
    assert (job / "evaluated_rows.jsonl").read_bytes() == rows


@pytest.mark.reference
def test_the_published_files(tmp_path):
    pytest.importorskip("torch")
    if "OFA_SHARED" not in os.environ:
        pytest.skip("OFA_SHARED is not set: the published networks are not at hand")
    folder = pathlib.Path(os.environ["OFA_SHARED"], "data", "published")
    published = {
        "accuracy_predictor": folder / "acc_predictor.pth",
        "latency_table": folder / "note10",
    }
    args = given(published, space="ofa_mbv3_d234_e346_k357_w1.2")
    ended = run("search", f"--workdir={tmp_path}", "--budget_ms=20,30", *args)
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "search.json").read_text())
    assert len(found["settings"]["tables"]["latency_ms"]) == 5
    assert all(s["predicted_latency_ms"] <= s["budget_ms"] for s in found["subnets"])
    accuracies = [subnet["predicted_accuracy"] for subnet in found["subnets"]]
    assert 0.79 < accuracies[0] < accuracies[1] < 0.85
    ended = run("search", f"--workdir={tmp_path}", "--budget_ms=5", *args)
    assert_one_message(ended, 2, "has latency_ms <= 5: the least that one can have is 9.89")
