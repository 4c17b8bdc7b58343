"""The study: its plan, what trainings took, tables from made-up results, and all of it, quick."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import study
import study_results
from job_helpers import make_config
from PIL import Image
from records import read_csv, write_csv
from study_parts import accuracies, pictures, tables, trainings
from study_parts.plan import FULL, NUM_CLASSES, QUICK
from study_parts.results import Results
from study_parts.trainings import costs

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import write_json
from ofa_tf.workdir import Workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "study.py"


@pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])
def test_the_four_archs_lie_between_the_smallest_and_the_largest(plan):
    ends = [plan.space.min(), plan.space.max()]
    macs = [
        plan.space.blueprint(arch, NUM_CLASSES).macs for arch in (ends[0], *plan.archs, ends[1])
    ]
    steps = [after / before for before, after in itertools.pairwise(macs)]
    assert min(steps) > 1.1
    assert max(steps) / min(steps) < 1.5


def test_trainings_begin_with_phases_that_others_have():
    phases = {each.name: " ".join(each.flags) for each in FULL.schedules}
    for training in FULL.left_out:
        name, phase = training.start.split("/")
        assert re.search(rf"--phases=\S*\b{phase}\b", phases[name])


def test_seeds_and_scale(tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(trainings, "train_all", lambda plan, given, *_: runs.extend(given))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    flags = ["--data_dir=images", f"--workdir={tmp_path}", f"--results={tmp_path}", "--only=train"]
    monkeypatch.setattr(sys, "argv", ["study.py", *flags, "--seeds=2", "--scale=2"])
    assert study.main() == 0
    seeds = {seed: {run.training.name for run in runs if run.seed == seed} for seed in (0, 1)}
    assert seeds[0] == {training.name for training in FULL.trainings}
    assert seeds[1] == {"progressive", "open", "sandwich"}
    epochs = {training.name: training.epochs for training in FULL.trainings}
    assert all(
        run.training.epochs == pytest.approx(6 * epochs[run.training.name], rel=0.01)
        for run in runs
    )


@pytest.mark.parametrize("flag", ["--scale=0", "--seeds=0", "--jobs=-1"])
def test_numbers_are_more_than_nothing(flag, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "--data_dir=images", flag])
    with pytest.raises(SystemExit, match="2"):
        study.main()
    assert f"{flag}: expected more than 0" in capsys.readouterr().err


def test_another_plan_is_refused(tmp_path):
    FULL.keep(tmp_path / "plan.json")
    FULL.keep(tmp_path / "plan.json")
    with pytest.raises(UsageError, match="holds a study of another plan"):
        QUICK.keep(tmp_path / "plan.json")


def test_an_interrupted_epoch_counts_at_the_rate_of_its_later_part(tmp_path):
    row = {"phase": "largest", "images_per_second": 10.0, "seconds": 20.0, "cpu_seconds": 30.0}
    rows = [
        {**row, "step": 20, "epoch": 1.0},
        # Of 200 images, 100 came before the interruption.
        {**row, "step": 40, "epoch": 2.0, "seconds": 10.0, "cpu_seconds": 18.0},
        {"step": 40, "phase": "largest", "when": "after", "accuracy": {}},
        {**row, "step": 50, "phase": "kernel", "epoch": 0.5, "seconds": 10.0, "cpu_seconds": 5.0},
    ]
    workdir = Workdir(tmp_path)
    text = "".join(json.dumps(each) + "\n" for each in rows)
    workdir.metrics.write_text(text + '{"phase": "ker')  # a row that is being written
    write_json(workdir.config_file, make_config(recipe={"batch_size": 10}))
    assert costs(workdir) == [
        ("largest", 2.0, 400, pytest.approx((30 + 18) * 400 / 300)),
        ("kernel", 0.5, 100, 5.0),
    ]


def test_a_training_whose_beginning_is_gone_is_told(tmp_path):
    run = trainings.run_in(tmp_path, FULL.left_out[0], 0)
    with pytest.raises(FailureError, match="no-teacher-0 cannot begin: progressive/largest left"):
        trainings.train_all(FULL, [run], "images", jobs=2)


def test_what_was_evaluated_of_other_weights_does_not_count(tmp_path, monkeypatch):
    evaluated = []

    class Evaluator:
        num_images = 100

        def __init__(self, job):
            pass

        def __call__(self, task):
            evaluated.append(task.subnet)
            return 0.5 + 0.1 * len(evaluated)

    monkeypatch.setattr(accuracies, "Job", lambda workdir: None)
    monkeypatch.setattr(accuracies, "_Evaluator", Evaluator)
    monkeypatch.setattr(accuracies, "is_finished", lambda workdir: True)

    def evaluate(content: bytes) -> list[str]:
        trainings.weights_of.cache_clear()  # of another process
        run = trainings.run_in(tmp_path, QUICK.alone[0], 0)
        phase = {"name": "single", "subnets_per_step": 1, "base_lr": 0.1}
        recipe = {"batch_size": 10, "kd_ratio": 0.0, "phases": [phase]}
        write_json(run.workdir.config_file, make_config(recipe=recipe))
        row = {"phase": "single", "step": 20, "epoch": 1.0, "images_per_second": 10.0}
        run.workdir.metrics.write_text(
            json.dumps(row | {"seconds": 20.0, "cpu_seconds": 30.0}) + "\n"
        )
        run.workdir.checkpoints.mkdir(exist_ok=True)
        run.workdir.phase("single").write_bytes(content)
        accuracies.evaluate_all(QUICK, [run], tmp_path, tmp_path / "results")
        return [row["accuracy"] for row in read_csv(tmp_path / "results" / "accuracies.csv")]

    assert evaluate(b"first") == evaluate(b"first") == ["0.6"]
    assert evaluate(b"second") == ["0.7"]
    assert evaluated == ["alone1", "alone1"]


# -- tables from made-up results ------------------------------------------------------------------

CORNERS = ("r32_d1_e2_k3", "r32_d3_e4_k7")
ARCH = json.dumps({"ks": [3, 0], "e": [2, 0], "d": [1], "r": 24})


@pytest.fixture
def folder(tmp_path):
    """Results of two corners, one arch and two budgets."""
    training = {"seed": 0, "start": "", "subnets_per_step": 1, "base_lr": 0.06, "images": 1000}
    trainings = [
        {**training, "training": name, "phase": phase, "epochs": epochs, "cpu_seconds": seconds}
        for name, phase, epochs, seconds in (
            ("progressive", "largest", 2, 600),
            ("progressive", "kernel", 1, 300),
            ("progressive", "expand2", 1, 900),
            ("open", "expand2", 9, 1800),
            ("sandwich", "sandwich", 3, 1800),
            ("alone1", "single", 4, 600),
            ("unsorted", "expand2", 1, 900),
            ("no-teacher", "kernel", 2, 120),
        )
    ]
    trainings[6]["start"], trainings[7]["start"] = "progressive/kernel", "progressive/largest"
    accuracies = [
        _accuracy(name, corner, value + 0.1 * index)
        for index, corner in enumerate(CORNERS)
        for name, value in (
            *(("progressive", 0.7), ("open", 0.68), ("sandwich", 0.71)),
            *(("no-teacher", 0.69), ("unsorted", 0.66)),
        )
    ]
    accuracies += [_accuracy("progressive", corner, 0.25, recalibrated=False) for corner in CORNERS]
    accuracies += [
        _accuracy("progressive", "largest", 0.79, phase="largest"),
        *(_accuracy(name, "alone1", 0.72) for name in ("progressive", "open", "sandwich")),
        _accuracy("alone1", "alone1", 0.74),
    ]
    search = [
        _found("searched", "1ms", 1, 1.01, 0.75),
        *(_found("random", f"1ms-{i}", 1, 1, value) for i, value in ((1, 0.7), (2, 0.72))),
        _found("searched", "2ms", 2, 2, 0.8),
        _found("random", "2ms-1", 2, 2, 0.79),
        _found("uniform", "k3-e2-r32", "", 1.5, 0.76),
        _found("uniform", "k3-e4-r32", "", 2.5, 0.9),
    ]
    predictions = [
        {"predictor": name, "measured": value, "predicted": value}
        for name in ("accuracy", "latency_ms")
        for value in (0.5, 0.6)
    ]
    steps = [
        {"step": step, "seconds": 1, "cpu_seconds": seconds}
        for step, seconds in (("latency", 60), ("predictor", 120), ("search", 36))
    ]
    rows = {
        "trainings": trainings,
        "accuracies": accuracies,
        "search": search,
        "predictors": predictions,
        "steps": steps,
    }
    for name, its_rows in rows.items():
        write_csv(tmp_path / f"{name}.csv", its_rows)
    accuracy = {"n_fitted": 80, "n_held_out": 20, "rmse": 0.0123, "mae": 0.01, "kendall": 0.8}
    latency = {"n": 20, "mape": 0.031, "worst": 0.09, "kendall": 0.95}
    write_json(tmp_path / "predictors.json", {"accuracy": accuracy, "latency": latency})
    machine = {"cpu": "X", "cores": "2", "cpu_flags": "avx2", "python": "3.11.7"}
    write_json(tmp_path / "machine.json", machine)
    return tmp_path


def _accuracy(training, subnet, value, phase="expand2", recalibrated=True):
    keys = {"training": training, "seed": 0, "phase": phase, "subnet": subnet}
    arch = {"resolution": 24, "macs": 2_500_000, "arch": ARCH}
    return keys | {"recalibrated": recalibrated, "accuracy": value} | arch


def _found(group, name, budget, measured, accuracy):
    return {
        "group": group,
        "name": name,
        "budget_ms": budget,
        "measured_ms": measured,
        "valid": measured != 1.5,
        "predicted_accuracy": 0.77,
        "accuracy": accuracy,
    }


def cells(table: str) -> list[list[str]]:
    """The rows of a Markdown table, its heads first."""
    lines = [line[1:-1].split("|") for line in table.splitlines() if line]
    return [[cell.strip() for cell in line] for line in lines if line[0] != " --- "]


def test_schedules_are_compared_corner_by_corner(folder):
    found = cells(tables.schedules(Results(folder)))
    assert found[1:] == [
        ["D1 E2 K3", "2.5", "70.0", "68.0 (-2.0)", "71.0 (+1.0)"],
        ["D3 E4 K7", "2.5", "80.0", "78.0 (-2.0)", "81.0 (+1.0)"],
        ["mean", "", "75.0", "73.0 (-2.0)", "76.0 (+1.0)"],
        ["CPU minutes", "", "30.0", "30.0", "30.0"],
        ["epochs", "", "4", "9", "3"],
        ["images seen", "", "3,000", "1,000", "1,000"],
    ]


def test_a_training_that_began_with_another_took_that_too(folder):
    found = cells(tables.left_out(Results(folder)))
    assert found[-3] == ["CPU minutes", "", "30.0", "12.0", "30.0"]
    assert found[-2] == ["epochs", "", "4", "4", "4"]


def test_every_seed_has_a_column(folder):
    for name in ("trainings", "accuracies"):
        rows = read_csv(folder / f"{name}.csv")
        again = [row | {"seed": "1"} for row in rows if row["training"] == "open"]
        write_csv(folder / f"{name}.csv", [*rows, *again])
    found = cells(tables.schedules(Results(folder)))
    title = tables.TITLES["open"]
    assert found[0][3:5] == [f"{title}, seed 0", f"{title}, seed 1"]
    assert found[1][3:] == ["68.0 (-2.0)", "68.0 (-2.0)", "71.0 (+1.0)"]
    assert [row[4] for row in found[-3:]] == ["30.0", "9", "1,000"]


def test_recalibration_is_compared_with_none(folder):
    found = cells(tables.recalibration(Results(folder)))
    assert found[1:] == [
        ["D1 E2 K3", "70.0", "25.0 (-45.0)"],
        ["D3 E4 K7", "80.0", "25.0 (-55.0)"],
        ["mean", "75.0", "25.0 (-50.0)"],
    ]


def test_archs_alone_are_compared_with_the_supernet_s(folder):
    rest = ["4", "1,000", "10.0"]
    cut_out = ["80.0 (+1.0)", "78.0 (-1.0)", "81.0 (+2.0)"]
    largest = ["`k30 e20 d1` (the largest)", "24", "2.5", "79.0", *cut_out]
    assert cells(tables.alone(Results(folder)))[1:] == [
        ["`k30 e20 d1`", "24", "2.5", "74.0", *["72.0 (-2.0)"] * 3, *rest],
        [*largest, "2", "1,000", "10.0"],
    ]


def test_costs_are_added_up(folder):
    results = Results(folder)
    # 1800 s of supernet, 120 s of predictor, 60 s of table, 18 s a search; 600 s an arch alone.
    assert results.costs() == (1800, 120, 60, 18, 600)
    assert [results.costs().ours(count) for count in (1, 40)] == [1998, 2700]
    assert cells(tables.cost(results))[1] == ["1", "0.56", "0.17", "0.3"]
    assert cells(tables.cost(results))[-1] == ["40", "0.75", "6.67", "8.9"]


def test_searched_subnets_are_compared_with_what_is_as_fast(folder):
    first, second = cells(tables.searched(Results(folder)))[1:]
    assert first == ["1", "1.010", "75.0", "77.0", "71.0 (-4.0)", "70.0 to 72.0", "none", ""]
    assert second[:6] == ["2", "2.000", "80.0", "77.0", "79.0 (-1.0)", "79.0 to 79.0"]
    assert second[6:] == ["k3-e2-r32, 1.500 ms (not valid)", "76.0 (-4.0)"]


def test_a_budget_without_random_subnets(folder):
    rows = read_csv(folder / "search.csv")
    write_csv(folder / "search.csv", [row for row in rows if not row["name"].startswith("2ms-")])
    assert cells(tables.searched(Results(folder)))[2][4:6] == ["none", ""]


def test_a_page_has_every_table_once(folder):
    results = Results(folder)
    page = "".join(
        f"<!-- study: {name} -->\nold\n<!-- end of study -->\n" for name in tables.SECTIONS
    )
    made = study_results.rewritten(f"Mine.\n{page}", results)
    assert made.startswith("Mine.\n")
    assert "old" not in made
    assert tables.schedules(results) in made
    assert study_results.rewritten(made, results) == made
    with pytest.raises(UsageError, match="expected each of trainings, schedules"):
        study_results.rewritten(page.replace("study: cost ", "study: price "), results)


def test_what_is_not_measured_yet_is_said(folder):
    for name in ("search", "steps", "predictors"):
        (folder / f"{name}.csv").unlink()
    results = Results(folder)
    texts = {name: section.text(results) for name, section in tables.SECTIONS.items()}
    missing = {name for name, text in texts.items() if text == "_Not measured yet._\n"}
    assert missing == {"schedules longer", "cost", "cost parts", "searched", "predictors"}


def test_a_study_at_another_scale_has_a_table(folder):
    rows = read_csv(folder / "accuracies.csv")
    shutil.copytree(folder, folder / "longer")
    better = [row | {"accuracy": "0.987"} for row in rows]
    write_csv(folder / "longer" / "accuracies.csv", better)
    text = tables.SECTIONS["schedules longer"].text(Results(folder))
    assert [row[2] for row in cells(text)[1:4]] == ["98.7"] * 3


@pytest.mark.parametrize(
    ("kept", "names"),
    [
        ("progressive", {"schedules", "pareto", "predictors"}),
        ("", {"schedules", "pareto", "predictors", "cost"}),
    ],
)
def test_pictures_are_of_what_there_is(folder, tmp_path, monkeypatch, kept, names):
    rows = read_csv(folder / "accuracies.csv")
    write_csv(folder / "accuracies.csv", [row for row in rows if kept in row["training"]])
    drawn = set()
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: drawn.add(path.stem))
    pictures.draw_all(Results(folder), tmp_path)
    assert drawn == {f"study_{name}" for name in names}


def test_no_results_at_all_are_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"no accuracies\.csv: run benchmarks/study\.py first"):
        Results(tmp_path)


def test_before_progressive_shrinking_is_done_there_are_no_tables(folder):
    rows = read_csv(folder / "accuracies.csv")
    write_csv(folder / "accuracies.csv", [row for row in rows if row["training"] == "open"])
    with pytest.raises(UsageError, match="no accuracies of progressive shrinking yet"):
        Results(folder)


def test_the_page_is_what_its_results_make():
    page = (study_results.DOCS / "RESULTS.md").read_text()
    assert study_results.rewritten(page, Results(study_results.DOCS / "results")) == page


# -- all of it ------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path):
    for split, count in (("train", 20), ("test", 4)):
        for kind in range(3):
            folder = tmp_path / "images" / split / f"kind{kind}"
            folder.mkdir(parents=True)
            for number in range(count):
                color = [(80 * kind + number) % 256, 9 * number, 200]
                Image.new("RGB", (32, 32), tuple(color)).save(folder / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_study_resumes_and_makes_its_page(images, tmp_path):
    folder, results = tmp_path / "study", tmp_path / "results"
    command = [sys.executable, str(SCRIPT), "--quick", f"--data_dir={images}"]
    command += [f"--workdir={folder}", f"--results={results}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        while not list(folder.glob("arms/*/metrics.jsonl")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert told.endswith("interrupted. Run the same command again to go on.\n")
    assert not results.exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    page = tmp_path / "RESULTS.md"
    page.write_text((study_results.DOCS / "RESULTS.md").read_text())
    arguments = [f"--results={results}", f"--page={page}", f"--pictures={tmp_path}"]
    script = [sys.executable, str(SCRIPT.with_name("study_results.py")), *arguments]
    made = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=200)
    assert made.returncode == 0, made.stderr[-3000:]
    for name in ("pareto", "schedules", "predictors", "cost"):
        with Image.open(tmp_path / f"study_{name}.png") as picture:
            assert picture.size == (900, 480)
    found = cells(tables.trainings(Results(results)))
    assert {row[0] for row in found[1:]} == {
        *("progressive", "open", "sandwich", "no-teacher", "unsorted"),
        *("alone1", "alone2", "alone3", "alone4", "open-short"),
    }
