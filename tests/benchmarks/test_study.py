"""The study: its plan, what trainings took, tables from made-up results, and all of it, quick."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest
import study
import study_results
from PIL import Image
from records import read_csv, write_csv
from study_parts import accuracies, pictures, searching, tables, trainings
from study_parts.plan import FULL, NUM_CLASSES, QUICK
from study_parts.results import ARCHS, HOUR, SHORT, Costs, Results
from study_parts.trainings import costs, runs_in

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import write_json
from ofa_tf.workdir import Workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "study.py"


QUARTER = ("growing", "open", "progressive")
PARTS = ("no-low-resolution", "no-small-subnets", "no-coupling", "no-zero-gamma")
PARTS += ("small-crops", "low-rate")


def named(name, plan=FULL):
    (training,) = plan.chosen([name])
    return training


@pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])
def test_the_five_archs_lie_between_the_smallest_and_the_largest(plan):
    archs = [plan.space.min(), *plan.archs.values()]
    macs = [plan.space.blueprint(arch, NUM_CLASSES).macs for arch in archs]
    steps = [after / before for before, after in itertools.pairwise(macs)]
    assert min(steps) > 1.1
    assert max(steps) / min(steps) < 1.5
    assert archs[-1] == plan.space.max()


def test_what_is_compared_costs_the_same():
    """By floating-point operations, of which steps take more that are more and cheaper."""
    flops = {
        training.name: sum(
            FULL.flops(training, phase.name, round(40_448 * phase.epochs))
            for phase in training.recipe.phases
        )
        for training in FULL.trainings
    }
    base = flops["growing"]
    assert 1e13 < base < 3e13
    for name in QUARTER:
        assert 0.95 < flops[name] / base < 1.25, name
    for name in (SHORT, *PARTS):
        assert 0.95 < 3 * flops[name] / base < 1.25, name
    assert flops[HOUR] / base == pytest.approx(105 / 30, rel=0.001)
    for share, arch in itertools.product((4, 10, 40), ARCHS):
        assert 0.9 < share * flops[f"alone{share}-{arch}"] / flops[HOUR] < 1.25
    for arch in ARCHS:
        assert 0.9 < 63 * flops[f"finetuned-{arch}"] / flops[HOUR] < 1.3


def test_parts_differ_from_growing_in_one_thing():
    growing = named(SHORT).recipe
    for name in PARTS:
        recipe = named(name).recipe
        changes = {
            field.name
            for field in dataclasses.fields(recipe)
            if getattr(recipe, field.name) != getattr(growing, field.name)
        }
        if "phases" in changes and name != "low-rate":  # the epochs alone
            assert recipe.phases[0].base_lr == 0.18
            changes.remove("phases")
        assert len(changes) == 1, name


def test_progressive_shrinking_has_the_paper_s_phases():
    phases = named("progressive").recipe.phases
    shares = [phase.epochs / phases[0].epochs for phase in phases]
    assert shares == pytest.approx([1, 1 / 6, 1 / 12, 1 / 6, 1 / 12, 2.5 / 12], rel=0.01)
    assert [phase.base_lr for phase in phases] == [0.18, 0.06, 0.03, 0.06, 0.03, 0.06]
    assert [phase.subnets_per_step for phase in phases] == [1, 1, 2, 2, 4, 4]


def test_the_order_and_the_seeds_of_the_trainings(tmp_path):
    runs = [(run.training.name, run.seed) for run in runs_in(tmp_path, FULL)]
    assert runs[:4] == [*((name, 0) for name in QUARTER), (HOUR, 0)]
    alone = [name for name, _ in runs[4:19]]
    assert alone == [f"alone{share}-{arch}" for share in (4, 10, 40) for arch in ARCHS]
    assert [name for name, _ in runs[19:24]] == [f"finetuned-{arch}" for arch in ARCHS]
    assert runs[24:31] == [(name, 0) for name in (SHORT, *PARTS)]
    assert sorted(runs[31:]) == sorted(
        [(name, 1) for name in (*QUARTER, HOUR, SHORT, *PARTS)] + [(name, 2) for name in QUARTER]
    )


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--seeds=1", "--trainings=growing,open"], ["growing-0", "open-0"]),
        (["--trainings=growing-h*"], ["growing-hour-0", "growing-hour-1"]),
        (
            ["--seeds=9", "--trainings=open,finetuned-arch1"],
            ["finetuned-arch1-0", "open-0", "open-1", "open-2"],
        ),
    ],
)
def test_a_sitting_may_be_of_some_trainings(flags, names, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(trainings, "train_all", lambda plan, runs, *_: found.extend(runs))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    own = ["--data_dir=images", f"--workdir={tmp_path}", f"--results={tmp_path}", *flags]
    monkeypatch.setattr(sys, "argv", ["study.py", *own])
    assert study.main() == 0
    assert sorted(run.job.path.name for run in found) == names


def test_an_unknown_training_is_told(monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["study.py", "--data_dir=images", "--trainings=sandwich"])
    assert study.main() == 2
    assert "There is no training 'sandwich'; known: growing, open," in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--seeds=0", "--jobs=-1"])
def test_numbers_are_more_than_nothing(flag, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "--data_dir=images", flag])
    with pytest.raises(SystemExit, match="2"):
        study.main()
    assert f"{flag}: expected more than 0" in capsys.readouterr().err


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
    assert costs(workdir, batch_size=10) == [
        ("largest", 2.0, 400, pytest.approx((30 + 18) * 400 / 300)),
        ("kernel", 0.5, 100, 5.0),
    ]


def test_a_training_whose_beginning_is_missing_is_told(tmp_path):
    runs = [run for run in runs_in(tmp_path, FULL) if run.training.start]
    with pytest.raises(FailureError, match="arch1-0 cannot begin: growing-hour is not trained"):
        trainings.train_all(FULL, runs, "images", 2, lambda: None)


def test_what_was_evaluated_of_other_weights_does_not_count(tmp_path, monkeypatch):
    evaluated = []

    def accuracy(evaluator, task):
        evaluated.append(task.subnet)
        return 0.5 + 0.1 * len(evaluated)

    evaluator = types.SimpleNamespace(num_images=100)
    monkeypatch.setattr(accuracies, "_evaluator", lambda job: evaluator)
    monkeypatch.setattr(accuracies, "_accuracy", accuracy)
    monkeypatch.setattr(trainings.finetuning, "is_finished", lambda workdir, recipe: True)
    (run,) = (run for run in runs_in(tmp_path, QUICK) if run.training.name == "alone10-arch2")

    def evaluate(content: bytes) -> list[str]:
        trainings._hash.cache_clear()  # of another process
        row = {"phase": "single", "step": 20, "epoch": 1.0, "images_per_second": 10.0}
        run.job.path.mkdir(parents=True, exist_ok=True)
        run.job.metrics.write_text(json.dumps(row | {"seconds": 20.0, "cpu_seconds": 30.0}) + "\n")
        run.job.checkpoints.mkdir(exist_ok=True)
        run.job.phase("single").write_bytes(content)
        accuracies.evaluate_all(QUICK, [run], tmp_path, tmp_path / "results")
        return [row["accuracy"] for row in read_csv(tmp_path / "results" / "accuracies.csv")]

    assert evaluate(b"first") == evaluate(b"first") == ["0.6"]
    assert evaluate(b"second") == ["0.7"]
    assert evaluated == ["arch2", "arch2"]
    (trained,) = read_csv(tmp_path / "results" / "trainings.csv")
    assert (trained["training"], trained["kind"], trained["images"]) == (
        "alone10-arch2",
        "alone",
        "320",
    )
    macs = QUICK.space.blueprint(QUICK.archs["arch2"], NUM_CLASSES).macs
    assert 0.3 < float(trained["pflops"]) * 1e15 / (6 * 320 * macs) < 1  # low resolution first


def test_what_was_begun_by_another_recipe_is_not_finished(tmp_path, monkeypatch):
    first, second = (run for run in runs_in(tmp_path, FULL) if run.training.name == HOUR)
    known = dataclasses.replace(first.training.recipe, seed=0)
    monkeypatch.setattr(
        trainings.finetuning, "is_finished", lambda workdir, recipe: recipe == known
    )
    assert first.is_finished
    assert not second.is_finished


# -- latencies ------------------------------------------------------------------------------------


def _summary(name, rounds):
    verdict = types.SimpleNamespace(valid="bad" not in rounds)
    return types.SimpleNamespace(model=name, rounds=rounds, date=len(rounds), verdict=verdict)


def test_files_are_measured_until_their_rounds_agree(tmp_path, monkeypatch):
    """Of three files, one is good at once, one the second time, and one never."""
    rounds = {"a": ["ok", "ok"], "b": ["bad", "ok"], "c": ["bad", "bad", "bad"]}
    calls = []

    def measure(paths, count, resumed, rows_file):
        names = [path.name for path in paths]
        calls.append(names)
        return [_summary(name, [rounds[name].pop(0)] * count) for name in names]

    monkeypatch.setattr(searching, "_measure", measure)
    monkeypatch.setattr(searching.mobile_bench, "summarize", lambda rows: rows)
    plan = dataclasses.replace(QUICK, attempts=3, rounds=2)
    paths = [tmp_path / name for name in "abc"]
    found = searching._sure_latencies(plan, paths, tmp_path / "rows.jsonl")
    assert calls == [["a", "b", "c"], ["b", "c"], ["c"]]
    assert {name: summary.verdict.valid for name, summary in found.items()} == {
        "a": True,
        "b": True,
        "c": False,
    }


def test_a_measurement_waits_for_quiet(monkeypatch):
    busy, waited = ["yes", "yes", "no", "no"], []
    watch = type("Watch", (), {"stop": lambda self: {"busy": busy.pop(0)}})
    monkeypatch.setattr(searching.machine, "Watch", watch)
    monkeypatch.setattr(searching.time, "sleep", waited.append)
    searching._wait_for_quiet(1)
    assert len(waited) == 3
    searching._wait_for_quiet(0)
    assert len(waited) == 3


# -- tables from made-up results ------------------------------------------------------------------

CORNERS = ("r32_d1_e2_k3", "r32_d3_e4_k7")
ARCH = json.dumps({"ks": [3, 0], "e": [2, 0], "d": [1], "r": 24})


@pytest.fixture
def folder(tmp_path):
    """Results of two corners, five archs and two budgets."""
    trainings = [
        _trained("growing", "schedule", 0, 600),
        _trained("growing", "schedule", 1, 660),
        _trained("open", "schedule", 0, 600),
        _trained("progressive", "schedule", 0, 400, "largest"),
        _trained("progressive", "schedule", 0, 200, "kernel"),
        _trained(HOUR, "hour", 0, 6000),
        *(
            _trained(f"alone{share}-{arch}", "alone", 0, 6000 / share)
            for share in (4, 10, 40)
            for arch in ARCHS
        ),
        *(_trained(f"finetuned-{arch}", "finetuned", 0, 60, start=HOUR) for arch in ARCHS),
        _trained(SHORT, "part", 0, 600),
        _trained(SHORT, "part", 1, 660),
        _trained("no-coupling", "part", 0, 630),
        _trained("small-crops", "part", 0, 630),
        _trained("small-crops", "part", 1, 630),
    ]
    corners = (("growing", 0, 0.7), ("growing", 1, 0.71), ("open", 0, 0.68))
    corners += ((SHORT, 0, 0.7), (SHORT, 1, 0.71))
    corners += (("progressive", 0, 0.65), (HOUR, 0, 0.8), ("no-coupling", 0, 0.69))
    corners += (("small-crops", 0, 0.66), ("small-crops", 1, 0.68))
    accuracies = [
        _accuracy(name, seed, corner, value + 0.1 * index)
        for name, seed, value in corners
        for index, corner in enumerate(CORNERS)
    ]
    accuracies += [_accuracy("growing", 0, corner, 0.25, recalibrated=False) for corner in CORNERS]
    of_archs = (("growing", 0.7), ("open", 0.68), ("progressive", 0.66), (HOUR, 0.8))
    accuracies += [
        _accuracy(name, 0, arch, value + 0.01 * index)
        for name, value in of_archs
        for index, arch in enumerate(ARCHS)
    ]
    of_groups = (("alone4", 0.84), ("alone10", 0.8), ("alone40", 0.7), ("finetuned", 0.82))
    accuracies += [
        _accuracy(f"{name}-{arch}", 0, arch, value + 0.01 * index)
        for name, value in of_groups
        for index, arch in enumerate(ARCHS)
    ]
    search = [
        _found("searched", "1ms", 1, 1.01, 0.75),
        *(_found("random", f"1ms-{i}", 1, 1, value) for i, value in ((1, 0.7), (2, 0.72))),
        _found("searched", "2ms", 2, 2, 0.8),
        _found("random", "2ms-1", 2, 2, 0.79),
        _found("uniform", "k3-e2-r32", "", 1.5, 0.76),
        _found("uniform", "k3-e4-r32", "", 2.5, 0.9),
    ]
    steps = [
        {"step": step, "seconds": 1, "cpu_seconds": seconds}
        for step, seconds in (("latency", 60), ("predictor", 90), ("predictor", 30), ("search", 36))
    ]
    rows = {
        "trainings": trainings,
        "accuracies": accuracies,
        "search": search,
        "steps": steps,
    }
    for name, its_rows in rows.items():
        write_csv(tmp_path / f"{name}.csv", its_rows)
    accuracy = {"n_fitted": 80, "n_held_out": 20, "rmse": 0.0123, "mae": 0.01, "kendall": 0.8}
    accuracy |= {"accuracies": [0.5, 0.6], "predictions": [0.52, 0.6]}
    latency = {"n": 20, "mape": 0.031, "worst": 0.09, "kendall": 0.95}
    latency["subnets"] = [{"measured_ms": value, "predicted_ms": value} for value in (0.5, 0.6)]
    write_json(tmp_path / "predictors.json", {"accuracy": accuracy, "latency": latency})
    machine = {"cpu": "X", "cores": "2", "cpu_flags": "avx2", "python": "3.11.7"}
    write_json(tmp_path / "machine.json", machine)
    return tmp_path


def _trained(name, kind, seed, seconds, phase="growing", start=""):
    spent = {"epochs": 2, "images": 1000, "pflops": seconds / 1e5, "cpu_seconds": seconds}
    what = {"phase": phase, "subnets_per_step": 1, "base_lr": 0.18}
    return {"training": name, "kind": kind, "seed": seed, "start": start} | what | spent


def _accuracy(training, seed, subnet, value, recalibrated=True):
    arch = {"resolution": 24, "macs": 2_500_000, "arch": ARCH}
    keys = {"training": training, "seed": seed, "subnet": subnet, "recalibrated": recalibrated}
    return keys | {"accuracy": value} | arch


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
    assert found[0][2:] == [tables.TITLES[name] for name in tables.SUPERNETS]
    assert found[1:] == [
        ["D1 E2 K3", "2.5", "70.5 ± 0.5", "68.0 (-2.5)", "65.0 (-5.5)", "80.0 (+9.5)"],
        ["D3 E4 K7", "2.5", "80.5 ± 0.5", "78.0 (-2.5)", "75.0 (-5.5)", "90.0 (+9.5)"],
        ["mean", "", "75.5 ± 0.5", "73.0 (-2.5)", "70.0 (-5.5)", "85.0 (+9.5)"],
        ["seeds", "", "2", "1", "1", "1"],
        ["CPU minutes", "", "10.5", "10.0", "10.0", "100.0"],
        ["PFLOPs", "", "0.0063", "0.006", "0.006", "0.06"],
        ["epochs", "", "2", "2", "4", "2"],
        ["images seen", "", "1,000", "1,000", "2,000", "1,000"],
    ]


def test_parts_are_compared_with_the_same_seeds(folder):
    found = cells(tables.left_out(Results(folder)))
    assert [row[:4] for row in found[1:]] == [
        ["nothing", "75.0, 76.0", "", "10.5"],
        ["coupled choices", "74.0", "-1.0", "10.5"],
        [tables.TITLES["small-crops"], "71.0, 73.0", "-3.5", "10.5"],
    ]


def test_recalibration_is_compared_with_none(folder):
    found = cells(tables.recalibration(Results(folder)))
    assert found[1:] == [
        ["D1 E2 K3", "70.0", "25.0 (-45.0)"],
        ["D3 E4 K7", "80.0", "25.0 (-55.0)"],
        ["mean", "75.0", "25.0 (-50.0)"],
    ]


def test_archs_alone_are_compared_with_the_supernet_s(folder):
    heads, *rows = cells(tables.alone(Results(folder)))
    assert heads[3:5] == ["cut out: growing, for an hour", "cut out: growing"]
    assert heads[7:] == [
        "fine-tuned, growing, for an hour",
        *(f"alone, 1/{share} of that" for share in (4, 10, 40)),
    ]
    assert rows[0] == [
        *("`k30 e20 d1`", "24", "2.5", "80.0", "70.0 (-10.0)", "68.0 (-12.0)", "66.0 (-14.0)"),
        *("82.0 (+2.0)", "84.0 (+4.0)", "80.0 (+0.0)", "70.0 (-10.0)"),
    ]
    assert rows[4][0] == "`k30 e20 d1` (the largest)"
    assert rows[5][:4] == ["mean", "", "", "82.0"]
    assert rows[6][3:] == ["100.0", "10.5", "10.0", "10.0", "1.0", "25.0", "10.0", "2.5"]
    assert rows[7][3:5] == ["0.06", "0.0063"]


def test_what_is_not_trained_yet_has_no_column(folder):
    rows = read_csv(folder / "accuracies.csv")
    gone = ("open", "finetuned-arch3", "alone4-arch5")
    write_csv(folder / "accuracies.csv", [row for row in rows if row["training"] not in gone])
    heads, *_ = cells(tables.alone(Results(folder)))
    assert heads[3:] == [
        *("cut out: growing, for an hour", "cut out: growing", "cut out: progressive shrinking"),
        *("alone, 1/10 of that", "alone, 1/40 of that"),
    ]
    assert tables.SECTIONS["cost"].text(Results(folder)) == "_Not measured yet._\n"


def test_costs_are_added_up(folder):
    costs = Results(folder).costs()
    # 6000 s of supernet, 120 s of predictor, 60 s of table, 18 s a search, 60 s a fine-tuning.
    assert costs[:5] == (6000, 120, 60, 18, 60)
    assert costs.accuracies == pytest.approx([0.82, 0.83, 0.84, 0.85, 0.86])
    assert costs.alone_seconds == [150, 600, 1500]
    assert [costs.ours(count) for count in (1, 40)] == [6258, 9300]


def test_trainings_alone_are_interpolated_in_the_logarithm_of_time():
    costs = Costs(0, 0, 0, 0, 0, [0.8], [100, 400, 1600], [[0.6, 0.7], [0.7, 0.8], [0.75, 0.85]])
    assert costs.alone(200) == (pytest.approx([0.65, 0.75]), "")
    assert costs.alone(800) == (pytest.approx([0.725, 0.825]), "")
    assert costs.alone(50) == ([0.6, 0.7], "under ")
    assert costs.alone(1601) == ([0.75, 0.85], "over ")
    assert costs.seconds_alone(0.7) == (pytest.approx(200), "")
    assert costs.seconds_alone(0.775) == (pytest.approx(800), "")
    assert costs.seconds_alone(0.81) == (pytest.approx(1600), "over ")
    assert costs.seconds_alone(0.6) == (pytest.approx(100), "under ")


def test_the_cost_of_budgets_is_compared(folder):
    rows = cells(tables.cost(Results(folder)))[1:]
    ours = "84.0 (82.0, 86.0)"
    # 6258 s for one budget: beyond the 1500 s for which archs were trained alone.
    assert rows[0][:7] == [
        "1",
        "104.3",
        "0.0606",
        ours,
        "104.3",
        "over 86.0 (84.0, 88.0)",
        "under -2.0",
    ]
    # 9300 / 40 s: between 150 s with 0.72 on the mean, and 600 s with 0.82.
    assert rows[3][:7] == ["40", "155.0", "0.084", ours, "3.9", "75.2 (73.2, 77.2)", "+8.8"]
    # 0.84 alone: halfway between 0.82 in 600 s and 0.86 in 1500 s, in the logarithm: 948.7 s.
    assert rows[3][7:] == ["632.5", "4.1"]
    assert cells(tables.cost_parts(Results(folder)))[1:] == [
        ["the supernet", "100.0", "0.06", "once"],
        ["accuracy predictor: archs evaluated, fit", "2.0", "", "once"],
        ["latency table", "1.0", "", "once for a device"],
        ["search", "0.3", "", "for each budget"],
        ["fine-tuning", "1.0", "0.0006", "for each budget"],
    ]


def test_every_phase_of_a_training_has_a_row(folder):
    found = cells(tables.trainings(Results(folder)))[1:]
    assert found[0][:6] == ["growing", "2", "new weights", "growing", "1", "0.18"]
    assert found[0][6:] == ["10.5", "0.0063", "2", "1,000"]
    assert [row[3] for row in found if row[0] == "progressive"] == ["largest", "kernel"]
    assert [row[2] for row in found if row[0].startswith("finetuned")] == [HOUR] * 5


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
    with pytest.raises(UsageError, match="expected each of schedules, left out"):
        study_results.rewritten(page.replace("study: cost ", "study: price "), results)


def _missing(folder) -> set[str]:
    results = Results(folder)
    texts = {name: section.text(results) for name, section in tables.SECTIONS.items()}
    return {name for name, text in texts.items() if text == "_Not measured yet._\n"}


def test_what_is_not_measured_yet_is_said(folder):
    assert not _missing(folder)
    for name in ("search", "steps"):
        (folder / f"{name}.csv").unlink()
    assert _missing(folder) == {"cost", "cost parts", "searched", "predictors"}
    keep = [row for row in read_csv(folder / "accuracies.csv") if row["training"] == "open"]
    write_csv(folder / "accuracies.csv", keep)
    left = set(tables.SECTIONS) - {"trainings", "origin"}
    assert _missing(folder) == left
    for path in folder.glob("*.*"):
        path.unlink()
    assert _missing(folder) == set(tables.SECTIONS)


@pytest.mark.parametrize(
    ("kept", "names"),
    [
        ("open", {"searched", "predictors"}),
        ("growing", {"schedules", "searched", "predictors"}),
        ("", {"schedules", "searched", "predictors", "cost"}),
    ],
)
def test_pictures_are_of_what_there_is(folder, tmp_path, monkeypatch, kept, names):
    rows = read_csv(folder / "accuracies.csv")
    write_csv(folder / "accuracies.csv", [row for row in rows if kept in row["training"]])
    drawn = set()
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: drawn.add(path.stem))
    pictures.draw_all(Results(folder), tmp_path)
    assert drawn == {f"study_{name}" for name in names}


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
def test_the_whole_study_resumes_in_sittings_and_makes_its_page(images, tmp_path):
    folder, results = tmp_path / "study", tmp_path / "results"
    study_command = [sys.executable, str(SCRIPT), "--quick", f"--data_dir={images}"]
    study_command += [f"--workdir={folder}", f"--results={results}"]
    names = ["growing", HOUR, "alone10-arch1", "finetuned-arch1"]  # a quarter of a minute each
    command = [*study_command, "--seeds=1", f"--trainings={','.join(names)}"]
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
    for again in (command, [*study_command, "--only=search"]):
        done = subprocess.run(again, env=environment, capture_output=True, text=True, timeout=1500)
        assert done.returncode == 0, done.stderr[-3000:]
    page = tmp_path / "RESULTS.md"
    page.write_text((study_results.DOCS / "RESULTS.md").read_text())
    arguments = [f"--results={results}", f"--page={page}", f"--pictures={tmp_path}"]
    script = [sys.executable, str(SCRIPT.with_name("study_results.py")), *arguments]
    made = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=200)
    assert made.returncode == 0, made.stderr[-3000:]
    for name in ("searched", "schedules", "predictors"):
        with Image.open(tmp_path / f"study_{name}.png") as picture:
            assert picture.size == (900, 480)
    found = cells(tables.trainings(Results(results)))
    assert {row[0] for row in found[1:]} == {training.name for training in QUICK.chosen(names)}
    # Costs are of all archs, and a part that is left out is compared.
    sections = page.read_text().split("<!-- study: ")[1:]
    missing = {each.partition(" -->")[0] for each in sections if "Not measured yet" in each}
    assert missing == {"left out", "cost", "cost parts"}
