"""Real measurements of tiny models on this host, and what happens when the runtime fails."""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pytest
from bench_helpers import QUICK, children, is_running

import mobile_bench
from mobile_bench import host, host_worker
from mobile_bench.errors import MeasureError, UsageError


def measure(*paths, **changes):
    return mobile_bench.measure(paths, **(QUICK | changes))


def test_a_measurement_is_complete_and_consistent(models):
    (row,) = measure(models["float32"], threads=2, warmup_runs=3, rounds=2, cpus=[0])
    timings = row.timings
    assert row.model == str(models["float32"])
    assert row.size_bytes == models["float32"].stat().st_size
    assert row.inputs == ("float32[1,16,16,3]",)
    assert (row.settings.threads, row.settings.cpus, row.cpus) == (2, (0,), (0,))
    assert row.device.target == "host"
    assert row.device.cpu
    assert row.device.cores == os.cpu_count()
    assert (timings.count, timings.warmup_count) == (40, 6)
    assert len(timings.round_medians_us) == 2
    assert 0 < timings.min_us <= timings.p5_us <= timings.median_us <= timings.p90_us
    assert timings.p90_us <= timings.p95_us <= timings.max_us
    assert timings.min_us <= timings.mean_us <= timings.max_us
    assert timings.init_us > 0
    assert row.verdict.valid, row.verdict.reasons


@pytest.mark.parametrize(
    ("model", "partitions", "ops", "outside"),
    [("float32", 1, 4, {}), ("int8", 3, 6, {"HARD_SWISH": 2})],
)
def test_partitions_are_those_of_the_runtime(models, model, partitions, ops, outside):
    (row,) = measure(models[model], rounds=1)
    found = row.delegation
    assert (found.delegate, found.partitions, found.ops) == ("xnnpack", partitions, ops)
    assert found.ops_outside == outside
    (row,) = measure(models[model], rounds=1, use_xnnpack=False)
    assert (row.delegation.delegate, row.delegation.partitions) == ("none", 0)
    assert sum(row.delegation.ops_outside.values()) == ops
    assert row.verdict.valid


def test_a_partition_of_several_branches_is_walked_back():
    nodes = [
        ("CONV_2D", [0, 1], [2]),
        ("CUSTOM", [2], [3]),
        ("ADD", [2, 3], [4]),
        ("MUL", [3, 4], [5]),
        ("DELEGATE", [0, 1], [2]),
        ("DELEGATE", [2, 3], [5]),
    ]
    found = host_worker.describe_delegation(nodes)
    assert found == {"delegate": "xnnpack", "partitions": 2, "ops": 4, "ops_outside": {"CUSTOM": 1}}


def test_a_model_that_no_delegate_takes_is_a_fallback(models):
    (row,) = measure(models["integers"], rounds=1)
    assert row.inputs in [("int64[3]", "bool[2]"), ("bool[2]", "int64[3]")]
    assert row.delegation.delegate == "none"
    assert row.verdict.reasons == ("fallback: xnnpack was asked for, none applied",)


def test_a_dynamic_batch_is_one_and_other_dynamic_sizes_are_refused(models):
    with pytest.raises(MeasureError) as caught:
        measure(models["dynamic_batch"], models["dynamic_size"])
    (row,) = caught.value.measurements
    assert row.inputs == ("float32[1,16,16,3]",)
    (message,) = caught.value.failures.values()
    assert f"{models['dynamic_size']}: input" in message
    assert "[1, -1, 3]" in message


def test_models_are_interleaved_over_rounds(models):
    steps, results = [], []
    paths = [str(models["float32"]), str(models["int8"])]
    rows = measure(
        *paths,
        paths[0],  # measured once
        rounds=3,
        progress=lambda done, total, model: steps.append((done, total, model)),
        on_result=lambda row: results.append((len(steps), row)),
    )
    assert steps == [(i, 6, paths[i % 2]) for i in range(6)]
    assert [(5, rows[0]), (6, rows[1])] == results


def test_interpreters_are_kept_up_to_a_bound(models, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "KEEP_MODELS", 2)
    paths = [str(shutil.copy(models["float32"], tmp_path / f"{i}.tflite")) for i in range(3)]
    jobs, failures = host.make_jobs(paths)
    assert not failures
    with host.HostSession(mobile_bench.Settings(**QUICK), timeout_secs=30) as session:
        for last in (False, False, True):
            for job in jobs:
                session.run_round(job, last)
    loaded = [[one.init_ns is not None for one in job.rounds] for job in jobs]
    assert loaded == [[True, False, False], [True, False, False], [True, True, True]]


def test_interpreters_are_kept_up_to_a_size(models, monkeypatch):
    paths = [str(models[name]) for name in ("slow", "float32", "int8")]
    monkeypatch.setattr(host, "KEEP_BYTES", models["float32"].stat().st_size)
    assert [job.keep for job in host.make_jobs(paths)[0]] == [False, True, False]


def test_the_worker_frees_what_is_not_kept(models):
    server = host_worker.Server(threads=1, delegate="xnnpack")
    request = {
        "model": str(models["float32"]),
        **{"num_runs": 1, "min_secs": 0, "max_secs": 1, "warmup_runs": 0, "warmup_min_secs": 0},
    }
    for keep, reused, kept in ((True, False, 1), (True, True, 1), (False, True, 0)):
        reply = server.answer(request | {"keep": keep})
        assert (reply["init_ns"] is None) == reused
        assert len(server._kept) == kept


def test_bad_files_do_not_stop_the_good_ones(models, corrupt, tmp_path):
    empty = tmp_path / "empty.tflite"
    empty.touch()
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(models["float32"].read_bytes()[:3000])
    missing = tmp_path / "missing.tflite"
    bad = {
        corrupt: "the runtime refuses the file: ",
        empty: "the file is empty",
        cut: "the runtime refuses the file: ",
        missing: "no such file",
        tmp_path: "expected a .tflite file, not a folder or device",
    }
    good = [models["float32"], models["int8"]]
    with pytest.raises(MeasureError, match="5 of 7 models not measured") as caught:
        measure(good[0], *bad, good[1], rounds=2)
    assert [row.model for row in caught.value.measurements] == [str(path) for path in good]
    for path, message in bad.items():
        assert caught.value.failures[str(path)].startswith(f"{path}: {message}")


def disturb_second_model(sent: signal.Signals, before: list[int]):
    """Returns a progress callback that signals the worker before the second model's first round.

    Args:
        sent: what to send.
        before: children that this process had already, from other tests.
    """

    def progress(done: int, total: int, model: str) -> None:
        if done == 1:
            (worker,) = set(children(os.getpid())) - set(before)
            os.kill(worker, sent)

    return progress


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (signal.SIGKILL, "the runtime's process was killed by SIGKILL"),
        (signal.SIGSTOP, "no answer within 1.2 s; the runtime hangs"),
    ],
)
def test_a_crash_or_hang_costs_one_model(models, sent, message):
    before = children(os.getpid())
    paths = [str(models[name]) for name in ("float32", "int8", "dynamic_batch")]
    with pytest.raises(MeasureError) as caught:
        measure(
            *paths,
            rounds=2,
            max_secs=0.1,
            timeout_secs=1.0,
            progress=disturb_second_model(sent, before),
        )
    assert caught.value.failures == {paths[1]: f"{paths[1]}: {message}"}
    assert [row.model for row in caught.value.measurements] == [paths[0], paths[2]]
    assert [len(row.timings.round_medians_us) for row in caught.value.measurements] == [2, 2]
    assert children(os.getpid()) == before


def test_what_a_callback_raises_ends_the_worker(models):
    workers, before = [], children(os.getpid())

    def interrupt(*_):
        workers.extend(set(children(os.getpid())) - set(before))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(models["float32"], progress=interrupt)
    assert len(workers) == 1
    assert not is_running(workers[0])


def test_too_few_runs_are_told(models):
    (row,) = measure(models["slow"], num_runs=10_000, max_secs=0.1, rounds=1)
    assert row.timings.count < 10_000
    assert row.verdict.reasons[0].startswith(f"too few runs: {row.timings.count} of 10000")


def test_timed_runs_meet_both_minimums(monkeypatch):
    now = [0]  # a clock that only `invoke` moves, by a millisecond
    monkeypatch.setattr(host_worker.time, "perf_counter_ns", lambda: now[0])

    def invoke():
        now[0] += 10**6

    def count(runs, min_secs, max_secs):
        times = host_worker.timed_runs(invoke, runs, min_secs, max_secs)
        assert set(times) <= {10**6}
        return len(times)

    assert count(5, 0, 1) == 5
    assert count(5, 0.02, 1) == 20
    assert count(50, 0.02, 1) == 50
    assert count(50, 0.02, 0.03) == 30
    assert count(0, 0, 1) == 0
    assert count(0, 0.002, 1) == 2
    monkeypatch.setattr(host_worker, "MAX_RUNS_PER_ROUND", 7)
    assert count(5, 0.02, 1) == 7


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int8", -128, 127), ("uint8", 0, 255), ("int16", -32768, 32767), ("int32", 0, 1)],
)
def test_integer_inputs_fill_their_range(dtype, low, high):
    filled = host_worker.random_input(np.random.default_rng(0), [1000, 1000], np.dtype(dtype))
    assert filled.dtype == dtype
    assert (filled.min(), filled.max()) == (low, high)


def test_float_inputs_are_normal_and_seeded():
    first, second = (
        host_worker.random_input(np.random.default_rng(0), [10_000], np.dtype("float32"))
        for _ in range(2)
    )
    assert first.dtype == np.float32
    assert abs(first.mean()) < 0.05
    assert abs(first.std() - 1) < 0.05
    np.testing.assert_array_equal(first, second)


def test_text_inputs_are_refused():
    with pytest.raises(host_worker.ModelError, match="cannot be filled"):
        host_worker.random_input(np.random.default_rng(0), [1], np.dtype("S"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "pixel"}, "unknown target 'pixel'; known: host"),
        ({"cpus": [999]}, r"cpus: expected some of \[0.*, got \[999\]"),
        ({"cpus": []}, "cpus: expected some of"),
        ({"timeout_secs": 0.0}, "timeout_secs: expected more than 0"),
        ({"threads": 0}, "threads: expected 1 to 64, got 0"),
    ],
)
def test_wrong_arguments_are_named(models, changes, message):
    with pytest.raises(UsageError, match=message):
        measure(models["float32"], **changes)


def test_one_path_instead_of_a_list_is_named():
    with pytest.raises(UsageError, match=r"expected a list of paths, got one: \['a.tflite'\]"):
        mobile_bench.measure("a.tflite")
