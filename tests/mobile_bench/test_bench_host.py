"""Real measurements of tiny models on this host, and what happens when the runtime fails."""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pytest
from bench_helpers import (
    QUICK,
    check_that_closing_ends_a_run_of_another_thread,
    children,
    is_running,
)

import mobile_bench
from mobile_bench.errors import MeasureError, UsageError
from mobile_bench.host import info as host_info
from mobile_bench.host import target as host
from mobile_bench.host import worker as host_worker
from mobile_bench.models import ModelFile
from mobile_bench.results import Affinity, Settings
from mobile_bench.target import TargetOptions


def measure(*paths, **changes):
    return mobile_bench.measure(paths, **(QUICK | changes))


def test_a_measurement_is_complete_and_consistent(models):
    rows = measure(models["float32"], threads=2, warmup_runs=3, rounds=2, cpus="0")
    assert [row.round for row in rows] == [0, 1]
    assert len({row.session for row in rows}) == 1
    for row in rows:
        timings = row.timings
        assert row.model == str(models["float32"])
        assert row.size_bytes == models["float32"].stat().st_size
        assert row.inputs == ("float32[1,16,16,3]",)
        assert (row.settings.threads, row.settings.cpus) == (2, "0")
        assert (row.affinity.asked, row.affinity.granted) == ((0,), (0,))
        assert (row.command, row.memory, row.profile) == ("", None, None)
        assert (timings.count, timings.warmup_count) == (20, 3)
        assert 0 < timings.min_us <= timings.p5_us <= timings.median_us <= timings.p90_us
        assert timings.p90_us <= timings.p95_us <= timings.max_us
        assert timings.min_us <= timings.mean_us <= timings.max_us
        assert row.before.date <= row.after.date == row.date
        assert row.verdict.valid, row.verdict.reasons
    first, second = (row.timings for row in rows)
    assert min(first.init_us, first.first_us) > 0
    assert (second.init_us, second.first_us) == (None, None)  # the interpreter was kept


def test_without_cpus_the_cores_are_read_back(models):
    (row,) = measure(models["float32"], rounds=1)
    assert row.affinity == Affinity(None, tuple(sorted(os.sched_getaffinity(0))))


def test_the_host_is_described_from_its_files(tmp_path, monkeypatch):
    files = {
        "cpu/cpu0/cpufreq/cpuinfo_max_freq": "3500000\n",
        "cpu/cpu0/cpufreq/scaling_cur_freq": "2100000\n",
        "cpu/cpu0/cpufreq/scaling_max_freq": "3000000\n",
        "cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "cpu/cpu1/cpufreq/scaling_cur_freq": "<unknown>\n",
        "dmi/sys_vendor": "ACME\n",
        "dmi/product_name": "Anvil 7\n",
        "power/AC/type": "Mains\n",
        "power/BAT0/type": "Battery\n",
        "power/BAT0/capacity": "81\n",
        "power/BAT0/status": "Discharging\n",
        "power/mouse/type": "Battery\n",
        "power/mouse/scope": "Device\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(host_info, "_CPUS", tmp_path / "cpu")
    monkeypatch.setattr(host_info, "_NAMES", tmp_path / "dmi")
    monkeypatch.setattr(host_info, "_SUPPLIES", tmp_path / "power")
    monkeypatch.setattr(os, "sysconf", lambda name: 2)
    device, state = host_info.describe_host.__wrapped__(), host_info.host_state()
    assert (device.target, device.maker, device.model) == ("host", "ACME", "Anvil 7")
    assert device.core_max_khz == (3_500_000, None)
    assert (state.battery_percent, state.charging, state.battery_celsius) == (81, False, None)
    assert (state.core_khz, state.core_limit_khz) == ((2_100_000, None), (3_000_000, None))
    assert state.governors == ("performance", None)
    for status, charging in [("Charging", True), ("Full", False), ("Not charging", False)]:
        (tmp_path / "power/BAT0/status").write_text(f"{status}\n")
        assert host_info.host_state().charging is charging


def test_memory_is_that_of_one_model_in_a_process_of_its_own(models):
    rows = measure(models["float32"], models["slow"], rounds=2, memory=True)
    small, large = rows[0].memory, rows[1].memory
    size_mb = models["slow"].stat().st_size / 2**20
    for memory in (small, large):
        assert 0 < memory.init_mb <= memory.overall_mb <= memory.peak_mb
    assert large.overall_mb - small.overall_mb > size_mb
    assert rows[2].memory.init_mb > small.init_mb / 2
    assert rows[2].timings.init_us is not None


@pytest.mark.parametrize(
    ("model", "partitions", "ops", "outside"),
    [("float32", 1, 4, {}), ("int8", 3, 6, {"HARD_SWISH": 2})],
)
def test_partitions_are_those_of_the_runtime(models, model, partitions, ops, outside):
    (row,) = measure(models[model], rounds=1)
    found = row.delegation
    assert (found.delegate, found.partitions, found.ops) == ("xnnpack", partitions, ops)
    assert found.ops_outside == outside
    assert (found.delegated_ops, found.complete) == (ops - sum(outside.values()), not outside)
    (row,) = measure(models[model], rounds=1, delegate="cpu")
    assert (row.delegation.delegate, row.delegation.partitions) == ("cpu", 0)
    assert (row.delegation.delegated_ops, row.delegation.complete) == (0, False)
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
    assert found == {
        "delegate": "xnnpack",
        "partitions": 2,
        "ops": 4,
        "delegated_ops": 3,
        "ops_outside": {"CUSTOM": 1},
        "complete": False,
    }


def test_a_model_that_no_delegate_takes_is_a_fallback(models):
    (row,) = measure(models["integers"], rounds=1)
    assert row.inputs in [("int64[3]", "bool[2]"), ("bool[2]", "int64[3]")]
    assert row.delegation.delegate == "cpu"
    assert row.verdict.reasons == ("fallback: xnnpack was asked for, cpu applied",)


def test_a_model_that_is_not_delegated_whole_is_valid_unless_that_was_asked(models):
    (row,) = measure(models["int8"], rounds=1)
    assert row.verdict.valid
    (row,) = measure(models["int8"], rounds=1, require_full_delegation=True)
    assert row.verdict.reasons == (
        "fallback: xnnpack did not take all of the model: HARD_SWISH x2 left outside",
    )


def test_a_dynamic_batch_is_one_and_other_dynamic_sizes_are_refused(models):
    with pytest.raises(MeasureError) as caught:
        measure(models["dynamic_batch"], models["dynamic_size"], rounds=1)
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
    assert list(enumerate(rows, start=1)) == results
    assert [(row.round, row.model) for row in rows] == [(i // 2, paths[i % 2]) for i in range(6)]


def test_interpreters_are_kept_up_to_a_bound(models, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "KEEP_MODELS", 2)
    paths = [str(shutil.copy(models["float32"], tmp_path / f"{i}.tflite")) for i in range(3)]
    rows = measure(*paths, rounds=2)
    loaded = [row.timings.init_us is not None for row in rows]
    assert loaded == [True, True, True, False, False, True]


def test_interpreters_are_kept_up_to_a_size(models, monkeypatch):
    monkeypatch.setattr(host, "KEEP_BYTES", models["float32"].stat().st_size)
    rows = measure(*(models[name] for name in ("slow", "float32", "int8")), rounds=2)
    assert [row.timings.init_us is not None for row in rows[3:]] == [True, False, True]


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
    with pytest.raises(MeasureError, match="failures: 5, runs measured: 4") as caught:
        measure(good[0], *bad, good[1], rounds=2)
    assert [row.model for row in caught.value.measurements] == 2 * [str(path) for path in good]
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
    assert [row.model for row in caught.value.measurements] == 2 * [paths[0], paths[2]]
    assert children(os.getpid()) == before


def test_what_a_callback_raises_ends_the_worker(models):
    workers, before = [], children(os.getpid())

    def interrupt(done, *_):
        if done:
            workers.extend(set(children(os.getpid())) - set(before))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(models["float32"], progress=interrupt)
    assert len(workers) == 1
    assert not is_running(workers[0])


def test_closing_ends_a_run_of_another_thread(models):
    target = host.HostTarget(Settings(num_runs=100_000, max_secs=60.0), TargetOptions())
    check_that_closing_ends_a_run_of_another_thread(target, ModelFile.read(str(models["slow"])))


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
        ({"target": ""}, "target: expected host, all, serials or addresses, each once, got ''"),
        ({"target": "host,host"}, "target: expected host, .* each once, got 'host,host'"),
        ({"cpus": [999]}, "cpus: host may be bound to .*, not to 999"),
        ({"cpus": []}, "cpus: expected core numbers, got none"),
        ({"delegate": "gpu"}, "delegate: the host's runtime has xnnpack, cpu, not gpu"),
        ({"op_profile": True}, "op_profile: the runtime's Python package cannot time single ops"),
        ({"rounds": 0}, "rounds: expected 1 to 1000, got 0"),
        ({"cooldown_secs": -1.0}, "cooldown_secs: expected 0 or more, got -1.0"),
        ({"batch": 0}, "batch: expected 1 to 1000, got 0"),
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
