"""Collecting accuracies of archs: by one process, by several at once, and after a kill."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from search_helpers import SMALL, TINY, made_up_accuracy

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.search import collect_accuracies
from ofa_tf.spaces import BlockCosts, get_space

ROOT = pathlib.Path(__file__).resolve().parents[2]


def evaluator(space, calls=None, fail_at=None):
    """Evaluates archs by a made-up accuracy; raises at the given call."""

    def evaluate(arch):
        if calls is not None:
            calls.append(arch)
            if len(calls) == fail_at:
                raise KeyboardInterrupt
        return float(made_up_accuracy(space)(space.encode([arch]))[0])

    return evaluate


def test_an_arch_depends_on_seed_and_index_only(tmp_path):
    few, _ = collect_accuracies(TINY, evaluator(TINY), tmp_path / "few.jsonl", 5, seed=3)
    many, _ = collect_accuracies(TINY, evaluator(TINY), tmp_path / "many.jsonl", 20, seed=3)
    other, _ = collect_accuracies(TINY, evaluator(TINY), tmp_path / "other.jsonl", 20, seed=4)
    assert many[:5] == few
    assert many[:2] == other[:2] == [TINY.max(), TINY.min()]
    assert not set(many[2:]) & set(other[2:])


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", "ofa_resnet50"])
def test_half_of_the_archs_are_spread_over_macs(tmp_path, name):
    space = get_space(name)
    archs, _ = collect_accuracies(space, lambda arch: 0.5, tmp_path / "rows.jsonl", 202)
    macs = BlockCosts(space, lambda block, resolution: block.macs)
    values = macs(space.encode(archs[2:]))
    low, high = macs(space.encode([space.min(), space.max()]))
    share = (values - low) / (high - low)
    counts = [np.histogram(part, 5, range=(0, 1))[0] for part in (share[::2], share[1::2])]
    assert counts[0].min() == 0  # uniform draws reach no end
    assert counts[1].min() >= 10


def test_an_interrupted_collection_goes_on_where_it_was(tmp_path):
    path, calls = tmp_path / "rows.jsonl", []
    with pytest.raises(KeyboardInterrupt):
        collect_accuracies(TINY, evaluator(TINY, calls, fail_at=5), path, 8)
    path.write_bytes(path.read_bytes() + b'{"space": "ofa_mb')  # killed while it wrote
    again, steps = [], []
    archs, accuracies = collect_accuracies(
        TINY, evaluator(TINY, again), path, 8, progress=lambda *step: steps.append(step)
    )
    assert steps == [(4, 8), (5, 8), (6, 8), (7, 8), (8, 8)]
    assert calls[:4] + again == archs
    np.testing.assert_allclose(accuracies, made_up_accuracy(TINY)(TINY.encode(archs)))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(8))
    collect_accuracies(TINY, evaluator(TINY, again), path, 8)
    assert len(again) == 4


@pytest.mark.parametrize("change", [{"fingerprint": "b"}, {"seed": 1}, {"space": SMALL}])
def test_rows_of_something_else_are_refused(tmp_path, change):
    asked = {"space": get_space("ofa_mbv3_cifar"), "fingerprint": "a", "seed": 0}
    path = tmp_path / "rows.jsonl"
    collect_accuracies(evaluate=lambda arch: 0.5, path=path, count=2, **asked)
    with pytest.raises(UsageError, match="line 1: this row belongs to"):
        collect_accuracies(evaluate=lambda arch: 0.5, path=path, count=2, **(asked | change))


def test_a_damaged_row_inside_the_file_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    collect_accuracies(TINY, lambda arch: 0.5, path, 2)
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(UsageError, match=r"rows\.jsonl, line 1: this is no row of ours"):
        collect_accuracies(TINY, lambda arch: 0.5, path, 2)


@pytest.mark.parametrize("accuracy", [float("nan"), -0.1, 75.0])
def test_an_accuracy_that_is_no_fraction_is_refused(tmp_path, accuracy):
    with pytest.raises(FailureError, match="not between 0 and 1"):
        collect_accuracies(TINY, lambda arch: accuracy, tmp_path / "rows.jsonl", 2)
    assert (tmp_path / "rows.jsonl").read_text() == ""


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "plain").write_text("a file, not a folder")
    with pytest.raises(FailureError, match=r"rows\.jsonl could not be"):
        collect_accuracies(TINY, lambda arch: 0.5, tmp_path / "plain" / "rows.jsonl", 2)


WITHOUT_LOCKS = """
import sys
sys.modules["fcntl"] = None  # as on Windows
from search_helpers import SMALL
from ofa_tf.errors import FailureError
from ofa_tf.search import collect_accuracies

print(len(collect_accuracies(SMALL, None, sys.argv[1], 3)[0]))
try:
    collect_accuracies(SMALL, None, sys.argv[1], 4)
except FailureError as error:
    print(error)
"""


def test_without_file_locks_known_archs_can_be_used(tmp_path):
    path = tmp_path / "rows.jsonl"
    collect_accuracies(SMALL, lambda arch: 0.5, path, 3)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LOCKS, path],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{pathlib.Path(__file__).parent}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    known, said = done.stdout.splitlines()
    assert known == "3"
    assert said.startswith("Evaluating archs takes file locks (fcntl), which this system does not")


# -- several workers -----------------------------------------------------------------------------


def indices(path) -> list[int]:
    return [json.loads(line)["index"] for line in path.read_text().splitlines()]


def test_each_worker_evaluates_its_share_into_its_own_file(tmp_path):
    path, steps = tmp_path / "rows.jsonl", []
    known, _ = collect_accuracies(TINY, evaluator(TINY), path, 7, worker=1, num_workers=3)
    assert len(known) == 2
    assert indices(tmp_path / "rows.1.jsonl") == [1, 4]
    for worker in (0, 2):
        known, _ = collect_accuracies(
            TINY,
            evaluator(TINY),
            path,
            7,
            worker=worker,
            num_workers=3,
            progress=lambda *step: steps.append(step),
        )
    assert indices(path) == [0, 3, 6]
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3), (0, 2), (1, 2), (2, 2)]
    alone = collect_accuracies(TINY, evaluator(TINY), tmp_path / "alone.jsonl", 7)
    assert known == alone[0]
    again = []
    archs, accuracies = collect_accuracies(TINY, evaluator(TINY, again), path, 7)
    assert (archs, again) == (alone[0], [])
    np.testing.assert_array_equal(accuracies, alone[1])


def test_another_number_of_workers_takes_over_what_is_missing(tmp_path):
    path, calls = tmp_path / "rows.jsonl", []
    for worker in (0, 3):
        collect_accuracies(TINY, evaluator(TINY), path, 12, worker=worker, num_workers=4)
    collect_accuracies(TINY, evaluator(TINY, calls), path, 12, worker=1, num_workers=2)
    assert indices(tmp_path / "rows.1.jsonl") == [1, 5, 9]
    archs, _ = collect_accuracies(TINY, evaluator(TINY, calls), path, 16)
    assert len(calls) == 3 + 7
    assert len(archs) == 16


WORKER = """
import pathlib, sys, time
from search_helpers import TINY, made_up_accuracy
from ofa_tf.search import collect_accuracies

def evaluate(arch):
    pathlib.Path(sys.argv[1] + ".began").touch()
    time.sleep(float(sys.argv[3]))
    return float(made_up_accuracy(TINY)(TINY.encode([arch]))[0])

collect_accuracies(TINY, evaluate, sys.argv[1], 30, worker=int(sys.argv[2]), num_workers=2)
"""


def start_worker(path, worker: int, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, path, str(worker), str(seconds)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{pathlib.Path(__file__).parent}"},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, rows: int = 0) -> None:
    """Returns when the file is there and has so many rows."""
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < rows:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_at_once_and_a_kill_lose_and_double_nothing(tmp_path):
    path, other = tmp_path / "rows.jsonl", tmp_path / "rows.1.jsonl"
    first, victim = start_worker(path, 0, 0.02), start_worker(path, 1, 0.2)
    try:
        wait_for(other, 3)
        victim.kill()
        victim.wait()
        done = other.read_bytes()
        other.write_bytes(done[:-7])  # it was writing the last line
        _, err = first.communicate(timeout=120)
        assert first.returncode == 0, err
        known, _ = collect_accuracies(TINY, evaluator(TINY), path, 30, worker=0, num_workers=2)
        assert len(known) == 15 + done.count(b"\n") - 1
        again = start_worker(path, 1, 0.0)
        _, err = again.communicate(timeout=120)
        assert again.returncode == 0, err
        assert "an unfinished last row is dropped" in err
    finally:
        for process in (first, victim):
            process.kill()
    assert sorted(indices(path) + indices(other)) == list(range(30))
    alone = collect_accuracies(TINY, evaluator(TINY), tmp_path / "alone.jsonl", 30)
    calls = []
    together = collect_accuracies(TINY, evaluator(TINY, calls), path, 30)
    assert (together[0], calls) == (alone[0], [])
    np.testing.assert_array_equal(together[1], alone[1])


@pytest.mark.parametrize("mine", [{"worker": 1, "num_workers": 2}, {}])
def test_a_worker_is_not_started_twice(tmp_path, mine):
    """Nor does one that works alone begin while a worker is at it."""
    path = tmp_path / "rows.jsonl"
    running = start_worker(path, 1, 30.0)
    try:
        wait_for(tmp_path / "rows.jsonl.began")
        with pytest.raises(UsageError, match=r"rows\.1\.jsonl is being filled by another process"):
            collect_accuracies(TINY, evaluator(TINY), path, 30, **mine)
        running.kill()
        running.wait()
        collect_accuracies(TINY, evaluator(TINY), path, 30, **mine)  # a kill leaves no lock
    finally:
        running.kill()


@pytest.mark.parametrize(("worker", "num_workers"), [(-1, 1), (1, 1), (4, 4)])
def test_a_worker_that_there_is_not(tmp_path, worker, num_workers):
    with pytest.raises(UsageError, match=f"one of 0 to {num_workers - 1}, not {worker}"):
        collect_accuracies(
            TINY, evaluator(TINY), tmp_path / "r", 9, worker=worker, num_workers=num_workers
        )


# -- rows that cannot be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accuracy": 81.9}, "between 0 and 1, not 81.9; remove the line"),
        ({"accuracy": -0.1}, "between 0 and 1, not -0.1"),
        ({"accuracy": float("nan")}, "between 0 and 1, not nan"),
        ({"accuracy": "high"}, "between 0 and 1, not 'high'"),
        ({"accuracy": None}, "between 0 and 1, not None"),
        ({"accuracy": True}, "between 0 and 1, not True"),
        ({"index": -1}, "this is no index with an arch; remove the line"),
        ({"index": "3"}, "this is no index with an arch"),
        ({"arch": None}, "this is no index with an arch"),
        ({"arch": {"d": [2]}}, "An arch has the keys ks, e, d and r"),
        ({"r": 31}, r"resolution of ofa_mbv3_tiny at the input is one of .*, not 31\. Remove"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, said):
    path = tmp_path / "rows.jsonl"
    collect_accuracies(TINY, evaluator(TINY), path, 3)
    lines = path.read_text().splitlines()
    row = json.loads(lines[1])
    if "r" in change:
        row["arch"] |= change
    else:
        row |= change
    lines[1] = json.dumps(row)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match=rf"rows\.jsonl, line 2: .*{said}"):
        collect_accuracies(TINY, evaluator(TINY), path, 3)


def test_an_index_with_two_values_is_named_and_with_one_is_not(tmp_path):
    path = tmp_path / "rows.jsonl"
    collect_accuracies(TINY, evaluator(TINY), path, 4)
    row = json.loads(path.read_text().splitlines()[2])
    other = tmp_path / "rows.1.jsonl"
    other.write_text(json.dumps(row) + "\n")
    archs, _ = collect_accuracies(TINY, evaluator(TINY), path, 4)
    assert len(archs) == 4
    other.write_text(json.dumps(row | {"accuracy": 0.25}) + "\n")
    with pytest.raises(UsageError) as caught:
        collect_accuracies(TINY, evaluator(TINY), path, 4)
    for part in ("the arch with index 2 is also in ", "rows.jsonl, line 3", "rows.1.jsonl, line 1"):
        assert part in str(caught.value)
