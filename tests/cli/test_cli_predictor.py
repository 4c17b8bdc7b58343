"""ofa-predictor: workers that share the archs, one predictor from their rows, and bad rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cli_helpers import assert_one_message, finish, run, start
from test_cli_bad_input import write_latency_table

from ofa_tf.job import load_job
from ofa_tf.search import AccuracyPredictor, collect_accuracies
from ofa_tf.spaces import Arch

IMAGES = 8
RESULTS = ("accuracy_predictor.npz", "accuracy_report.json", "pictures/accuracy_predictor.png")


def evaluated(workdir, count: int) -> list:
    """A job's rows with made-up accuracies, as if its archs had been evaluated; the archs."""
    job = load_job(workdir)
    archs, _ = collect_accuracies(
        job.space,
        lambda arch: job.space.blueprint(arch, 3).macs / 1e8,
        job.workdir.accuracy_rows,
        count,
        fingerprint=f"{job.fingerprint}-{IMAGES}",
    )
    return archs


def predict(workdir, *args):
    return run("predictor", f"--workdir={workdir}", f"--arch_images={IMAGES}", *args)


@pytest.mark.slow
def test_two_workers_and_one_that_fits(job):
    for worker, missing in ((1, 5), (0, 0), (1, 0)):
        ended = predict(job, "--num_archs=10", "--num_workers=2", f"--worker={worker}")
        assert ended.code == 0, ended.err
        assert f"Worker {worker} has evaluated its share; {missing} of 10 archs are" in ended.err
        assert "fit with the same command without --worker" in ended.err
    rows = {path.name: path.read_bytes() for path in job.glob("accuracy_rows*")}
    assert {name: text.count(b"\n") for name, text in rows.items()} == {
        "accuracy_rows.jsonl": 5,
        "accuracy_rows.1.jsonl": 5,
    }
    assert not any((job / name).exists() for name in RESULTS)
    ended = predict(job, "--num_archs=10")
    assert ended.code == 0, ended.err
    assert all((job / name).exists() for name in RESULTS)
    assert {path.name: path.read_bytes() for path in job.glob("accuracy_rows*")} == rows
    assert "The accuracy predictor is weak: only 10 archs were evaluated" in ended.err


@pytest.mark.slow
def test_on_all_cores_accuracies_are_those_of_one(job):
    command = start("predictor", f"--workdir={job}", "--num_archs=12", "--num_workers=2")
    ended = finish(command)
    assert ended.code == 0, ended.err
    lines = (job / "accuracy_rows.jsonl").read_text().splitlines()
    rows = list(map(json.loads, lines))
    evaluator = load_job(job).evaluator("validation")
    expected = [evaluator.accuracy(Arch.from_dict(row["arch"])) for row in rows]
    assert [row["accuracy"] for row in rows] == pytest.approx(expected)
    assert len(set(expected)) > 1


@pytest.mark.slow
def test_it_is_fitted_again_only_when_something_changed(job):
    archs = evaluated(job, 60)
    ended = predict(job, "--num_archs=50")
    assert ended.code == 0, ended.err
    assert "Accuracy predictor on 10 archs it never saw: RMSE " in ended.err
    report = json.loads((job / "accuracy_report.json").read_text())
    assert report["kendall"] > 0.8
    before = (job / "accuracy_predictor.npz").read_bytes()
    again = predict(job, "--num_archs=50")
    assert "The accuracy predictor is there already" in again.err
    assert "Accuracy predictor on 10 archs it never saw: RMSE " in again.err
    assert (job / "accuracy_predictor.npz").read_bytes() == before
    ended = predict(job, "--num_archs=60", "--ensemble=2", "--predictor_seed=0")
    assert "there already" not in ended.err
    assert "Its 2 networks differ by " in ended.err
    found = AccuracyPredictor.load(job / "accuracy_predictor.npz")
    assert len(found.members) == 2
    codes = found.space.encode(archs)
    truth = [found.space.blueprint(arch, 3).macs / 1e8 for arch in archs]
    assert np.corrcoef(found(codes), truth)[0, 1] > 0.9


def test_a_job_remembers_what_its_evaluations_were_made_with(job):
    """So the next command needs no flags of the one before it, and nothing is evaluated anew."""
    evaluated(job, 12)
    made_from = {"num_archs": 12, "ensemble": 2, "arch_images": 5, "tune_trials": -1, "rows": None}
    (job / "accuracy_report.json").write_text(json.dumps({"made_from": made_from}))
    rows = (job / "accuracy_rows.jsonl").read_bytes()
    ended = run("predictor", f"--workdir={job}")
    assert ended.code == 0, ended.err
    assert (job / "accuracy_rows.jsonl").read_bytes() == rows
    report = json.loads((job / "accuracy_report.json").read_text())
    used = {name: report["made_from"][name] for name in ("num_archs", "ensemble", "arch_images")}
    assert used == {"num_archs": 12, "ensemble": 2, "arch_images": IMAGES}


@pytest.mark.parametrize("command", ["predictor", "search"])
def test_other_evaluations_are_told_as_flags_with_both_values(job, command):
    evaluated(job, 12)
    write_latency_table(job)
    rows = job / "accuracy_rows.jsonl"
    for flags, expected in [
        (["--arch_images=9"], "--arch_images was 8, is 9. Go back to what it was to use"),
        (
            ["--arch_images=9", "--predictor_seed=1"],
            "--arch_images was 8, is 9; --predictor_seed was 0, is 1. ",
        ),
    ]:
        ended = run(command, f"--workdir={job}", *flags)
        assert_one_message(ended, 2, f"{rows} holds evaluations that were made otherwise", expected)
    rows.write_text(rows.read_text().replace('"fingerprint": "', '"fingerprint": "0123'))
    ended = run(command, f"--workdir={job}")
    assert_one_message(ended, 2, "the supernet has other weights since. ", "remove the file to")


def test_what_keras_tuner_found_is_used(job, monkeypatch):
    from ofa_tf.search import accuracy_tuning

    evaluated(job, 50)
    asked = []

    def tune_fit(space, archs, accuracies, folder, trials, *, seed, progress):
        asked.append((len(archs), folder.parent.name, trials, seed))
        return {"hidden": (8, 8)}, {"best": 0.01, "default": 0.02}

    monkeypatch.setattr(accuracy_tuning, "tune_fit", tune_fit)
    ended = predict(job, "--num_archs=50", "--tune_trials=7")
    assert ended.code == 0, ended.err
    assert asked == [(50, "accuracy_tuning", 7, 0)]
    assert "The best of 7 trials has RMSE 1.000 points, the default settings 2.000" in ended.err
    (layers,) = AccuracyPredictor.load(job / "accuracy_predictor.npz").members
    assert [kernel.shape[1] for kernel, _ in layers] == [9, 9, 1]
    assert json.loads((job / "accuracy_report.json").read_text())["tuned"] == {"hidden": [8, 8]}


@pytest.mark.slow
def test_tuning_with_keras_tuner(job):
    evaluated(job, 50)
    ended = predict(job, "--num_archs=50", "--tune_trials=2")
    assert ended.code == 0, ended.err
    assert "The best of 2 trials has RMSE " in ended.err
    assert "keras" not in ended.out.lower()
    assert ended.out == ""


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--worker=2", "--num_workers=2"], "--worker=2 is none of --num_workers=2, which are "),
        (["--worker=1"], "--worker=1 is none of --num_workers=1, which are numbered from 0 to 0."),
        (["--worker=-1"], "--worker=-1"),
        (["--num_workers=0"], "--num_workers=0"),
        (["--num_archs=9"], "--num_archs=9"),
        (["--ensemble=0"], "--ensemble=0"),
        (["--predictor_seed=-1"], "--predictor_seed=-1"),
        (["--tune_trials=-1"], "--tune_trials=-1"),
        (["--tune_trials=3", "--num_archs=49"], "--tune_trials takes --num_archs=50 or more, not"),
    ],
)
def test_misuse_is_told_at_once(trained, args, said):
    assert_one_message(predict(trained, *args), 2, said)
    assert not (trained / "accuracy_rows.jsonl").exists()


def test_without_a_job(tmp_path):
    assert_one_message(predict(tmp_path / "none"), 2, "none holds no job. Run ofa-train or")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("fingerprint", "another supernet", "line 3: this row belongs to {'space': "),
        ("space", "ofa_mbv3_cifar", "line 3: this row belongs to {'space': 'ofa_mbv3_cifar'"),
        ("accuracy", 75, "line 3: an accuracy is a number between 0 and 1, not 75; remove the"),
        ("arch", {"d": [9], "e": [1], "ks": [3], "r": 24}, "line 3: An arch of ofa_mbv3_tiny has"),
        ("index", 0, "with index 0 is also in "),
    ],
)
def test_rows_that_cannot_be_are_told(job, key, value, said):
    evaluated(job, 10)
    path = job / "accuracy_rows.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | {key: value})
    path.write_text("\n".join(lines) + "\n")
    ended = predict(job, "--num_archs=10")
    assert_one_message(ended, 2, "accuracy_rows.jsonl, line 3: ", said)
    assert not (job / "accuracy_predictor.npz").exists()
