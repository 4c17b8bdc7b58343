"""The process that runs models on this host: requests and replies are JSON lines over pipes.

Run by host.target as `python -m mobile_bench.host.worker THREADS DELEGATE CPUS`. A crash of the
runtime ends this process and nothing else.

A run is timed by `time.perf_counter_ns` just around `Interpreter.invoke`. The two clock readings
and the call from Python are part of every time: about 0.4 microseconds on the machine this was
written on, where a single addition is timed at 0.44.
"""

from __future__ import annotations

import json
import os
import queue
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobile_bench.results import MAX_RUNS_PER_ROUND

_SEED = 0


class ModelError(Exception):
    """This model cannot be run; the worker goes on with the next."""


class LoadedModel:
    """An interpreter with its inputs filled, ready to run.

    Args:
        path: The .tflite file.
        threads: Threads of the runtime.
        delegate: "xnnpack" or "cpu".

    Attributes:
        init_ns: Time to read the file, apply the delegate and allocate the tensors.
        inputs: Type and shape of each input, such as "float32[1,224,224,3]".

    Raises:
        ModelError: The runtime refuses the file, or an input cannot be filled.
    """

    def __init__(self, path: str, threads: int, delegate: str) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = {
            "xnnpack": OpResolverType.BUILTIN,
            "cpu": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        }[delegate]
        start = time.perf_counter_ns()
        try:
            self._interpreter = Interpreter(
                model_path=path, num_threads=threads, experimental_op_resolver_type=resolver
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"the runtime refuses the file: {error}") from error
        self.init_ns = time.perf_counter_ns() - start
        self.inputs = self._fill_inputs()

    def delegation(self) -> dict[str, Any]:
        """Returns what the delegate took, as the fields of `results.Delegation`."""
        nodes = self._interpreter._get_ops_details()  # the only place that tells it
        return describe_delegation(
            [(node["op_name"], list(node["inputs"]), list(node["outputs"])) for node in nodes]
        )

    def run(self, runs: int, min_secs: float, max_secs: float) -> list[int]:
        """Runs the model and returns the time of each run in nanoseconds (see `timed_runs`)."""
        try:
            return timed_runs(self._interpreter.invoke, runs, min_secs, max_secs)
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"the runtime fails to run it: {error}") from error

    def _fill_inputs(self) -> list[str]:
        import numpy as np

        rng = np.random.default_rng(_SEED)
        described = []
        for details in self._interpreter.get_input_details():
            shape, dtype = details["shape"].tolist(), np.dtype(details["dtype"])
            if any(size == -1 for size in details["shape_signature"].tolist()[1:]):
                raise ModelError(
                    f"input {details['name']} has the dynamic shape "
                    f"{details['shape_signature'].tolist()}; only the batch (set to 1) may be "
                    "dynamic. Convert the model with fixed sizes."
                )
            self._interpreter.set_tensor(details["index"], random_input(rng, shape, dtype))
            described.append(f"{dtype.name}[{','.join(map(str, shape))}]")
        return described


def random_input(rng: Any, shape: list[int], dtype: Any) -> Any:
    """Returns an array of random values: normal for floats, the full range for narrow integers.

    Integers of 32 and 64 bits may be indices and are only 0 or 1.

    Args:
        rng: A `numpy.random.Generator`.
        shape: Sizes of the array.
        dtype: Its `numpy.dtype`.

    Raises:
        ModelError: The type is neither a number nor a truth value.
    """
    import numpy as np

    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = (limits.min, limits.max) if dtype.itemsize < 4 else (0, 1)
        return rng.integers(low, high, size=shape, dtype=dtype, endpoint=True)
    if dtype.kind == "b":
        return rng.integers(0, 2, size=shape).astype(dtype)
    raise ModelError(f"an input has type {dtype.name}, which cannot be filled with random values")


def describe_delegation(nodes: list[tuple[str, list[int], list[int]]]) -> dict[str, Any]:
    """Returns what a delegate took of a graph, as the fields of `results.Delegation`.

    The runtime keeps the ops that were replaced in its list and adds one DELEGATE node for each
    partition, without saying which ops that stands for. They are found by walking from the
    node's outputs back to its inputs.

    Args:
        nodes: Name, input tensors and output tensors of each node.
    """
    ops = [node for node in nodes if node[0] != "DELEGATE"]
    partitions = [node for node in nodes if node[0] == "DELEGATE"]
    producers = {tensor: index for index, (_, _, outputs) in enumerate(ops) for tensor in outputs}
    taken: set[int] = set()
    for _, inputs, outputs in partitions:
        borders, waiting = set(inputs), list(outputs)
        while waiting:
            index = producers.get(waiting.pop())
            if index is not None and index not in taken:
                taken.add(index)
                waiting.extend(tensor for tensor in ops[index][1] if tensor not in borders)
    outside = Counter(name for index, (name, _, _) in enumerate(ops) if index not in taken)
    return {
        "delegate": "xnnpack" if partitions else "cpu",
        "partitions": len(partitions),
        "ops": len(ops),
        "delegated_ops": len(taken),
        "ops_outside": dict(sorted(outside.items())),
        "complete": len(taken) == len(ops),
    }


def timed_runs(
    invoke: Callable[[], None], runs: int, min_secs: float, max_secs: float
) -> list[int]:
    """Calls `invoke` until both minimums are met and returns each call's time in nanoseconds.

    Args:
        invoke: What is timed.
        runs: Least number of calls; 0 calls it only to fill `min_secs`.
        min_secs: Least seconds in all.
        max_secs: Seconds after which no further call is made, nor after 100,000 calls.
    """
    clock = time.perf_counter_ns
    min_ns, max_ns = min_secs * 1e9, max_secs * 1e9
    times: list[int] = []
    if not runs and not min_ns:
        return times
    start = clock()
    while True:
        before = clock()
        invoke()
        after = clock()
        times.append(after - before)
        elapsed = after - start
        if len(times) >= runs and (elapsed >= min_ns or len(times) >= MAX_RUNS_PER_ROUND):
            return times
        if elapsed >= max_ns:
            return times


class Server:
    """Answers requests, one model and one round each.

    A request has `model` (path), `keep` (whether its interpreter stays for the next round), and
    `num_runs`, `min_secs`, `max_secs`, `warmup_runs`, `warmup_min_secs`. What a reply says of
    memory is true for the first model of a process only.
    """

    def __init__(self, threads: int, delegate: str) -> None:
        self._threads = threads
        self._delegate = delegate
        self._kept: dict[str, LoadedModel] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Runs one round of one model and returns its times, or `error` with what went wrong."""
        path = request["model"]
        model = self._kept.pop(path, None)
        reused = model is not None
        memory = [process_memory()]
        try:
            model = model or LoadedModel(path, self._threads, self._delegate)
            memory.append(process_memory())
            max_secs = request["max_secs"]
            warmup = model.run(request["warmup_runs"], request["warmup_min_secs"], max_secs)
            runs = model.run(request["num_runs"], request["min_secs"], max_secs)
        except ModelError as error:
            return {"error": str(error)}
        if request["keep"]:
            self._kept[path] = model
        return {
            "init_ns": None if reused else model.init_ns,
            "warmup_ns": warmup,
            "runs_ns": runs,
            "inputs": model.inputs,
            "delegation": model.delegation(),
            "memory": describe_memory(*memory, process_memory()),
        }


def process_memory() -> tuple[float, float] | None:
    """Returns what this process has in memory now and had at its peak, in MB (2^20 bytes).

    None where the system does not tell.
    """
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    kb = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", text, re.MULTILINE))
    return int(kb["VmRSS"]) / 1024, int(kb["VmHWM"]) / 1024


def describe_memory(
    start: tuple[float, float] | None,
    loaded: tuple[float, float] | None,
    end: tuple[float, float] | None,
) -> dict[str, float | None]:
    """Returns the fields of `results.Memory` from three looks at a new process.

    Args:
        start: Before the model was loaded.
        loaded: After that.
        end: After its runs.
    """
    if start is None or loaded is None or end is None:
        return {"init_mb": None, "overall_mb": None, "peak_mb": None}
    resident = start[0]
    return {
        "init_mb": loaded[0] - resident,
        "overall_mb": end[0] - resident,
        "peak_mb": end[1] - resident,
    }


def _bind(cpus: str) -> list[int] | None:
    """Binds this process to cores ("0,1"; "" leaves it free) and returns what is read back."""
    if cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _greeting(cpus: str) -> dict[str, Any]:
    """Binds to the cores, loads the runtime and returns the cores, or `error`."""
    try:
        bound = _bind(cpus)
        import ai_edge_litert.interpreter  # noqa: F401

        return {"cpus": bound}
    except ImportError as error:
        first = error
        while first.__cause__ is not None:  # below pages of advice
            first = first.__cause__
        return {"error": f"ai-edge-litert cannot be loaded: {first}"}
    except OSError as error:
        return {"error": f"cpus {cpus}: {error.strerror}"}


def _read_requests(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Passes on what comes on standard input, and ends this process with it.

    It ends when the parent does, by whatever signal, in the middle of a run, too.
    """
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)


def main() -> None:
    """Greets, then answers requests until standard input ends."""
    threads, delegate, cpus = sys.argv[1:]
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    # Whatever the runtime prints to standard output must not get between the replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(_greeting(cpus)), file=replies, flush=True)
    server = Server(int(threads), delegate)
    while True:
        print(json.dumps(server.answer(requests.get())), file=replies, flush=True)


if __name__ == "__main__":
    main()
