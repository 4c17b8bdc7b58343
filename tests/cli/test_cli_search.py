"""ofa-search with predictors that are given: no images, no checkpoint, no TensorFlow."""

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
    AccuracyPredictor(TINY, layers, {"rmse": 0.001}).save(predictor)
    blocks = distinct_blocks(TINY, 10, TINY.resolutions)
    latencies = {key: 0.01 + 1e-8 * block.macs for key, block in blocks.items()}
    LatencyTable(TINY, 10, TINY.resolutions, latencies, overhead_ms=0.0).save(table)
    return {"accuracy_predictor": predictor, "latency_table": table}


def given(files, **changes) -> list[str]:
    flags = {"space": "ofa_mbv3_tiny", **files} | changes
    return [f"--{name}={value}" for name, value in flags.items() if value is not None]


def write_job(workdir, space="ofa_mbv3_tiny", classes=10) -> pathlib.Path:
    """The settings of a job, without anything that it trained."""
    config = {
        "space": space,
        "data": {},
        "class_names": [f"class {i}" for i in range(classes)],
        "eval_crop": 1.0,
        "calibration_images": 8,
        "recipe": {},
    }
    write_json(workdir / "config.json", config)
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
    for name, flag in (("table", "latency_table"), ("accuracy_predictor",) * 2):
        content = files[flag].read_bytes()
        expected = {files[flag].name: hashlib.sha256(content).hexdigest()}
        assert found["settings"][name] == expected


def test_it_is_searched_again_only_when_a_file_changed(files, tmp_path):
    args = ["search", f"--workdir={tmp_path}", "--budget_ms=0.2", *given(files)]
    assert "The search is done already" not in run(*args).err
    assert "The search is done already" in run(*args).err
    predictor = AccuracyPredictor.load(files["accuracy_predictor"])
    dataclasses.replace(predictor, report={}).save(files["accuracy_predictor"])
    assert "The search is done already" not in run(*args).err


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
    assert "table is of networks with 10 classes, the job has 3" in ended.err
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
                lambda path, _=None, space=space, load=load: dataclasses.replace(
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
    assert_one_message(ended, 2, "answers for [32] pixels", "for [24, 28]; none is in both.")


@pytest.mark.parametrize("missing", ["space", "accuracy_predictor", "latency_table"])
def test_without_a_job_all_must_be_given(files, tmp_path, missing):
    ended = run("search", f"--workdir={tmp_path / 'new'}", *given(files, **{missing: None}))
    assert_one_message(
        ended, 2, "new holds no job. ", "give all of --space, --accuracy_predictor and --latency_t"
    )
    assert not (tmp_path / "new").exists()


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
        ({"budget_ms": "soon"}, "--budget_ms is a list of numbers, not 'soon'."),
    ],
)
def test_misuse_is_told_at_once(files, tmp_path, changes, said):
    ended = run("search", f"--workdir={tmp_path / 'new'}", *given(files, **changes))
    assert_one_message(ended, 2, said)
    assert not (tmp_path / "new").exists()


def test_a_job_of_another_space(files, tmp_path):
    workdir = write_job(tmp_path / "job", space="ofa_mbv3_cifar")
    ended = run("search", f"--workdir={workdir}", *given(files))
    assert_one_message(ended, 2, "holds a job of ofa_mbv3_cifar, not of --space=ofa_mbv3_tiny.")
    ended = run("search", f"--workdir={workdir}", *given(files, space=None))
    assert_one_message(ended, 2, "it is of ofa_mbv3_tiny, not of ofa_mbv3_cifar")


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
    assert len(found["settings"]["table"]) == 5
    assert all(s["predicted_latency_ms"] <= s["budget_ms"] for s in found["subnets"])
    accuracies = [subnet["predicted_accuracy"] for subnet in found["subnets"]]
    assert 0.79 < accuracies[0] < accuracies[1] < 0.85
    ended = run("search", f"--workdir={tmp_path}", "--budget_ms=5", *args)
    assert_one_message(ended, 2, "has latency_ms <= 5: the least that one can have is 9.89")
