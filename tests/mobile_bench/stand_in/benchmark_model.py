"""The stand-in of benchmark_model: runs the model with LiteRT, or not at all, and reports.

The text is in the form of the recorded runs of the real tool (generation "current"), or in that of
its builds of 2020 to 2024 ("2020") or of 2019. It runs in a process of its own, started by
client.py without site-packages, and imports little: see there.
"""

from __future__ import annotations

import os
import sys
import time

from tool_models import InstantModel, RealModel
from tool_reports import Sample, op_profile, result_proto

_NOTE = (
    "Note: as the benchmark tool itself affects memory footprint, the following is only "
    "APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at "
    "your discretion."
)
_MEMORY_STATUS = (
    "Memory status at the end of exeution:",  # the real tool's spelling
    "- VmRSS              : 44 MB",
    "+ RssAnnon           : 30 MB",
    "+ RssFile + RssShmem : 14 MB",
)
_RESULT_LABEL = "File path to save the benchmark result in binary proto format"
_NEW_FLAG = "result_file_path"  # which earlier generations do not have
# name, default, type, label in the log (of flags that were given), in the order of the log
_FLAGS = (
    ("num_runs", "50", "int32", "Min num runs"),
    ("min_secs", "1", "float", "Min runs duration (seconds)"),
    ("max_secs", "150", "float", "Max runs duration (seconds)"),
    ("num_threads", "-1", "int32", "Num threads"),
    ("warmup_runs", "1", "int32", "Min warmup runs"),
    ("warmup_min_secs", "0.5", "float", "Min warmup runs duration (seconds)"),
    ("dry_run", "false", "bool", "Run w/o invoking kernels"),
    ("report_peak_memory_footprint", "false", "bool", "Report the peak memory footprint"),
    ("graph", "", "string", "Graph"),
    ("require_full_delegation", "false", "bool", "Require full delegation"),
    ("enable_op_profiling", "false", "bool", "Enable op profiling"),
    ("op_profiling_output_mode", "stdout", "string", "Op profiling output mode."),
    ("op_profiling_output_file", "", "string", "Op profiling output file."),
    ("result_file_path", "", "string", _RESULT_LABEL),
    ("help", "false", "bool", "Print out all supported flags"),
)  # fmt: skip
_DELEGATES = {"xnnpack": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI", "hexagon": "Hexagon"}
_GPU_SPLIT = (12, 200)  # ops that a GPU takes and leaves, where it does not take all
_BOOLS = {"true": True, "1": True, "false": False, "0": False}
_TYPES = {"int32": int, "float": float, "string": str, "bool": _BOOLS.__getitem__}


class Ended(Exception):  # noqa: N818 - not an error: the run is over
    """The tool ends here, with an exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run(arguments: list[str], orders: dict, tell_the_middle) -> int:
    """Runs the tool and returns its exit code.

    Args:
        arguments: The ABI and the path of the launcher, and the flags.
        orders: How to behave, as `StandInDevice` says it.
        tell_the_middle: Called without arguments between the warm-up and the result of a run that
            is to be spoiled by a fault of the whole phone.
    """
    fault = orders["fault"] or {"kind": None}
    if fault["kind"] == "silent":
        return 0
    if fault["kind"] == "rubbish":
        sys.stdout.buffer.write(bytes(range(256)) * 64)
        return 0
    output = Output(orders)
    output.info("STARTING!")
    try:
        flags = Flags(arguments[1:], orders, output)
        model = load(flags, orders, output)
        apply_delegates(model, flags, output)
        output.info(f"The input model file size (MB): {model.size / 1e6:g}")
        output.info(f"Initialized session in {model.init_us / 1000:g}ms.")
        values = flags.values
        warmup = measure(model, values["warmup_runs"], values["warmup_min_secs"], flags, output)
        output.ends(warmup)
        runs = measure(model, values["num_runs"], values["min_secs"], flags, output)
        spoil(fault, runs, tell_the_middle)
        output.ends(runs)
        report(model, warmup, runs, flags, output)
    except Ended as ended:
        return ended.code
    return 0


class Output:
    """The tool's two streams, in the form of its generation."""

    def __init__(self, orders: dict) -> None:
        self.generation = orders["generation"]
        self._root = orders["root"]

    def info(self, text: str, level: str = "INFO") -> None:
        """Prints what the tool says; paths are those of the phone."""
        prefix = f"{level}: " if self.generation == "current" else ""
        stream = sys.stderr if self.generation == "2019" else sys.stdout
        print(f"{prefix}{text.replace(self._root, '')}", file=stream, flush=True)

    def error(self, text: str) -> None:
        prefix = "ERROR: " if self.generation == "current" else ""
        print(f"{prefix}{text.replace(self._root, '')}", file=sys.stderr, flush=True)

    def runtime(self, text: str) -> None:
        """Prints what the runtime, not the tool, says."""
        print(f"INFO: {text}", file=sys.stderr, flush=True)

    def gpu_refuses(self, ops: int, rest: int) -> None:
        """Prints what the GPU delegate says of the ops that it leaves to the CPU."""
        refused = "operations are not supported by GPU delegate:\nMEAN: Operation is not supported."
        if self.generation == "2019":
            split = (
                f"First {ops} operations will run on the GPU, and the remaining {rest} on the CPU."
            )
            text = f"Next {refused}\n{split}"
        else:
            split = (
                f"{ops} operations will run on the GPU, and the remaining {rest} operations will"
            )
            text = f"Following {refused}\n{split} run on the CPU."
        print(f"ERROR: {text}", file=sys.stderr, flush=True)

    def fail(self) -> None:
        self.error("Benchmarking failed.")
        raise Ended(1)

    def ends(self, sample: Sample) -> None:
        """Prints the line of statistics that ends a round of runs."""
        self.info(sample.line(percentiles=self.generation == "current") + "\n")


class Flags:
    """The command line.

    Attributes:
        values: By name, those that were not given too.
        delegates: Those that were asked for.
        xnnpack: Whether the runtime may apply XNNPACK, which it does unasked.

    Raises:
        Ended: A value is bad, or help was asked for.
    """

    def __init__(self, arguments: list[str], orders: dict, output: Output) -> None:
        self._name, *words = arguments
        self._orders = orders
        built_in = [(f"use_{d}", "false", "bool", f"Use {d}") for d in orders["delegates"]]
        of_then = [f for f in _FLAGS if f[0] != _NEW_FLAG or orders["generation"] == "current"]
        self._known = (*of_then, *built_in)
        names = {flag[0] for flag in self._known}
        texts, unconsumed = {}, []
        for word in words:
            name, equals, value = word.removeprefix("--").partition("=")
            if word == "--help":
                texts["help"] = "true"
            elif word.startswith("--") and equals and name in names:
                texts.setdefault(name, value)  # the first of two equal flags wins
            else:
                unconsumed.append(word)
        self.values = {_NEW_FLAG: ""} | self._read(texts, output)
        if self.values["help"] or any(not word.startswith("-") for word in unconsumed):
            self._usage(output)
        if unconsumed:
            output.info(f"Unconsumed cmdline flags: {' '.join(unconsumed)}", level="WARN")
        self.delegates = [d for d in orders["delegates"] if self.values[f"use_{d}"]]
        self.xnnpack = "xnnpack" in orders["delegates"] and (
            "use_xnnpack" not in texts or self.values["use_xnnpack"]
        )
        if not self.values["graph"]:
            output.error("Please specify the name of your TF Lite input file with --graph")
            output.fail()
        self._log(texts, built_in, output)

    def path(self, name: str) -> str:
        """Returns the host's path of a path in a flag; the phone's shell may have done it."""
        path, root = self.values[name], self._orders["root"]
        return path if path.startswith(root) or not path.startswith("/") else root + path

    def _read(self, texts: dict[str, str], output: Output) -> dict:
        values = {}
        for name, default, kind, _ in self._known:
            try:
                values[name] = _TYPES[kind](texts.get(name, default))
            except (ValueError, KeyError):
                word = f"--{name}={texts[name]}"
                output.error(f"Failed to parse flag '{name}' against argv '{word}'")
                self._usage(output)
        return values

    def _usage(self, output: Output) -> None:
        lines = [f"usage: {self._name} <flags>", "Flags:"]
        for name, default, kind, label in self._known:
            flag = f"--{name}={default}"
            lines.append(f"\t{flag:47}\t{kind}\toptional\t{label}")
        output.error("\n".join(lines) + "\n")
        output.fail()

    def _log(self, given: dict[str, str], built_in: list, output: Output) -> None:
        if output.generation != "2019":
            output.info("Log parameter values verbosely: [0]")
        for name, _, kind, label in self._known:
            if name in given:
                value = self.values[name]
                text = f"{value:g}" if kind in ("float", "bool") else str(value)
                output.info(f"{label}: [{text}]")
            if output.generation != "current":
                continue
            if name == "graph":
                output.info("Signature to run: []")
            elif name == _FLAGS[-1][0] and "num_threads" in given:  # before those of delegates
                output.info(f"#threads used for CPU inference: [{self.values['num_threads']}]")


def load(flags: Flags, orders: dict, output: Output) -> InstantModel | RealModel:
    """Opens the model.

    Raises:
        Ended: It is missing, empty or no model.
    """
    shown, path = flags.values["graph"], flags.path("graph")
    try:
        size = os.path.getsize(path)
    except OSError:
        size = None
    model = None
    if size is None:
        output.error(f"Could not open '{shown}'.")
        output.error("The model allocation is null/empty")
    elif size == 0:
        output.error("mmap of size 0 requested.")
        output.error("The model allocation is null/empty")
    elif orders["instant"]:
        model = InstantModel(size, orders)
    else:
        try:
            model = RealModel(path, size, flags.values["num_threads"], flags.xnnpack)
        except ValueError:
            output.error("The model is not a valid Flatbuffer buffer")
    if model is None:
        output.error(f"Failed to load model {shown}")
        output.fail()
    output.info(f"Loaded model {shown}")
    return model


def apply_delegates(model: InstantModel | RealModel, flags: Flags, output: Output) -> None:
    """Says what became of the delegates that were asked for, and of XNNPACK, which was not.

    A GPU that takes a part says itself how much that is; the tool of 2019 does not even say that
    it is a part.

    Raises:
        Ended: All of the graph was to be delegated, and is not.
    """
    runtime_speaks = model.is_real  # of XNNPACK, by itself
    if flags.xnnpack and not flags.delegates and not runtime_speaks:
        output.runtime("Created TensorFlow Lite XNNPACK delegate for CPU.")
    for delegate in flags.delegates:
        name = _DELEGATES[delegate]
        output.info(f"{name} delegate created.")
        if delegate != "xnnpack":
            output.runtime(f"Created TensorFlow Lite delegate for {name}.")
        elif not runtime_speaks:
            output.runtime("Created TensorFlow Lite XNNPACK delegate for CPU.")
        if delegate == "gpu" and not model.is_whole:
            output.gpu_refuses(*_GPU_SPLIT)
        if output.generation == "2019":
            output.info(f"Applied {name} delegate.")
            continue
        if flags.values["require_full_delegation"] and not model.is_whole:
            output.error("Disallowed CPU fallback detected.")
            output.fail()
        applied = f"Explicitly applied {name} delegate, and the model graph will be"
        if model.is_whole:
            output.info(f"{applied} completely executed by the delegate.")
        elif model.partitions:
            kernels = f"w/ {model.partitions} delegate kernels."
            output.info(f"{applied} partially executed by the delegate {kernels}")
        else:
            output.info(
                f"Though {name} delegate is explicitly applied, the model graph will not be "
                "executed by the delegate."
            )


def measure(
    model: InstantModel | RealModel, runs: int, secs: float, flags: Flags, output: Output
) -> Sample:
    """Says what is about to be run, and runs it."""
    if flags.values["dry_run"]:
        runs, secs = 0, 0.0
    most = flags.values["max_secs"]
    text = f"Running benchmark for at least {runs} iterations and at least {secs:g} seconds"
    if output.generation != "2019":
        text += f" but terminate if exceeding {most:g} seconds."
    output.info(text)
    return Sample(model.times_us(runs, secs, most))


def spoil(fault: dict, runs: Sample, tell_the_middle) -> None:
    """Does what the fault of this run says, with half of the report printed.

    Raises:
        Ended: It says that the tool ends.
    """
    kind = fault["kind"]
    if kind == "crash":
        os.kill(os.getpid(), fault["signal"])
    elif kind == "exit":
        raise Ended(fault["code"])
    elif kind == "truncate":
        line = runs.line(percentiles=True)
        sys.stdout.write(f"INFO: {line[: len(line) // 2]}")
        raise Ended(0)
    elif kind is not None:
        while kind == "hang":
            time.sleep(3600)
        while kind == "flood":
            sys.stdout.buffer.write(b"x" * 65535 + b"\n")
        tell_the_middle()


def report(
    model: InstantModel | RealModel, warmup: Sample, runs: Sample, flags: Flags, output: Output
) -> None:
    """Prints the result and writes the files that were asked for."""
    if output.generation == "2019":
        output.info(
            f"Average inference timings in us: Warmup: {warmup.mean:g}, Init: {model.init_us}, "
            f"no stats: {runs.mean:g}"
        )
        return
    first = int(warmup.times_us[0]) if warmup.times_us else 0
    output.info(
        f"Inference timings in us: Init: {model.init_us}, First inference: {first}, "
        f"Warmup (avg): {warmup.mean:g}, Inference (avg): {runs.mean:g}"
    )
    output.info(_NOTE)
    memory = "(MB): init=25.6719 overall=28.5742"
    if output.generation == "2020":
        output.info(f"Peak memory footprint {memory}")
    else:
        output.info(f"Memory footprint delta from the start of the tool {memory}")
        if flags.values["report_peak_memory_footprint"]:
            output.info("Overall peak memory footprint (MB) via periodic monitoring: 33.6367")
            for line in _MEMORY_STATUS:
                output.info(line)
    if flags.values["enable_op_profiling"]:
        write_op_profile(model, runs, flags, output)
    if flags.values["result_file_path"]:
        write_result(model, warmup, runs, flags, output)


def write_op_profile(
    model: InstantModel | RealModel, runs: Sample, flags: Flags, output: Output
) -> None:
    """Writes the CSV of the op profile; it is printed where it cannot be written."""
    parts = op_profile(model.op_types, model.init_us, runs)
    try:
        if flags.values["op_profiling_output_mode"] != "csv":
            raise OSError("to the output")
        with open(flags.path("op_profiling_output_file"), "w") as file:
            file.write("".join(parts))
    except OSError:
        for part in parts:
            output.info(part)


def write_result(
    model: InstantModel | RealModel, warmup: Sample, runs: Sample, flags: Flags, output: Output
) -> None:
    """Writes the result file; that it cannot be written is said and ignored."""
    shown = flags.values["result_file_path"]
    output.info(f"Saving benchmark result to: {shown}")
    try:
        with open(flags.path("result_file_path"), "wb") as file:
            file.write(result_proto(model.size, model.init_us, warmup, runs))
    except OSError:
        output.error(f"Failed to save benchmark result to: {shown}")
    else:
        output.info(f"Saved benchmark result to: {shown}")
