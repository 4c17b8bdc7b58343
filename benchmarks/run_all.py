"""Runs the measurements of this folder, one after the other, and prints one table: `make bench`.

    python benchmarks/run_all.py --published=DIR
    python benchmarks/run_all.py --only=train_step,elastic_forms --again

Each part is a script in a process of its own. What a part measured is kept in RESULTS/PART.csv as
soon as it is finished; a part that was finished with the same code, settings, versions and machine
is not run again. So an interrupted run goes on with the same command, and a part that fails does
not take others with it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import machine
from records import from_row, head_line, read_csv
from results import Result, read_result

from ofa_tf.errors import FailureError

_HERE = pathlib.Path(__file__).resolve().parent
_SHARED_SCRIPTS = ("records", "workers", "ours", "reference", "published_reference")
_PUBLISHED_FILES = ("acc_predictor.pth", "note10")


class Part(NamedTuple):
    """One line of what is run.

    Attributes:
        name: Of the part, and of its file of results.
        script: In this folder.
        arguments: Of the script, for a measurement.
        quick: Of the script, to see that it runs.
        minutes: What it takes on two cores without other work, roughly.
        needs: Of "reference" (the PyTorch reference) and "published" (the published files).
    """

    name: str
    script: str
    arguments: str
    quick: str
    minutes: float
    needs: tuple[str, ...] = ()


_TINY_STEP = (
    "--reference --space=ofa_mbv3_tiny --resolution=32 --batch_size=8 --archs=2 --repeats=2"
)
PARTS = (
    Part(
        "train_step",
        "train_step.py",
        "--reference --archs=10 --standalone=5",
        f"{_TINY_STEP} --standalone=1 --evaluated=1",
        5,
        ("reference",),
    ),
    Part(
        "train_step_cifar",
        "train_step.py",
        "--reference --archs=10 --standalone=5 "
        "--space=ofa_mbv3_cifar --resolution=32 --batch_size=128",
        f"{_TINY_STEP} --standalone=0 --evaluated=0",
        2,
        ("reference",),
    ),
    Part(
        "train_step_bfloat16",
        "train_step.py",
        "--reference --archs=4 --repeats=3 --standalone=0 --evaluated=0 --dtype=bfloat16",
        f"{_TINY_STEP} --standalone=0 --evaluated=0 --dtype=bfloat16",
        1.5,
        ("reference",),
    ),
    Part(
        "elastic_forms",
        "elastic_forms.py",
        "--repeats=3",
        "--space=ofa_mbv3_tiny --resolution=32 --batch_size=8 --repeats=2",
        1.5,
    ),
    Part(
        "input_pipeline",
        "input_pipeline.py",
        "--train_step",
        "--train_step --photo_space=ofa_mbv3_tiny --photos=40 --small_space=ofa_mbv3_tiny "
        "--batches=2 --repeats=2",
        1.5,
    ),
    Part(
        "predictors",
        "predictors.py",
        "",
        "--archs=50 --repeats=2",
        0.5,
        ("reference", "published"),
    ),
    Part(
        "search",
        "search.py",
        "--first_seed=100 --budgets=18,28,38,48,58",
        "--budgets=45 --seeds=1 --many=3 --repeats=1",
        3.5,
        ("reference", "published"),
    ),
    Part(
        "export_formats",
        "export_formats.py",
        "--random=0 --files=float32-cpu,float32-plain,int8-cpu,int8-plain",
        "--spaces=ofa_mbv3_tiny --random=0 --rounds=1 --files=float32-cpu,int8-cpu --no-keras",
        5.5,
    ),
)


def main() -> None:
    args = _arguments()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(ending, lambda number, _: sys.exit(128 + number))
    try:
        outcomes = run(args.only, args.results, args.published, quick=args.quick, again=args.again)
    except FailureError as error:
        sys.exit(str(error))  # exit code 1
    except KeyboardInterrupt:
        print(f"\nInterrupted. {args.results} keeps what is finished; run it again to go on.")
        sys.exit(130)
    print(f"\n{head_line()}")
    for outcome in outcomes.values():
        print("\n".join(outcome.lines() if isinstance(outcome, Result) else [outcome]))
    print(f"\nResults: {args.results}")
    if any(isinstance(outcome, Failed) for outcome in outcomes.values()):
        sys.exit(1)


class Failed(str):
    """The line of a part that failed."""


def run(
    parts: Sequence[Part],
    folder: pathlib.Path,
    published: pathlib.Path | None = None,
    *,
    quick: bool = False,
    again: bool = False,
) -> dict[str, Result | str]:
    """Runs what is not there yet.

    Args:
        parts: What to run.
        folder: Of the results.
        published: The folder of the published predictor and latency tables.
        quick: With the small settings.
        again: What is there, too.

    Returns:
        Of each part its result, or the line that says why there is none.

    Raises:
        FailureError: A result cannot be written.
    """
    outcomes: dict[str, Result | str] = {}
    for number, part in enumerate(parts):
        lack = _lack(part, published)
        if lack:
            outcomes[part.name] = f"{part.name}: skipped, {lack}"
            print(outcomes[part.name], flush=True)
            continue
        expected = _expected(part, quick)
        kept = None if again else read_result(folder, part.name)
        if kept and kept.is_of(expected):
            outcomes[part.name] = kept
            print(f"{part.name}: kept from {kept.context['date']}", flush=True)
            continue
        left = sum(part.minutes for part in parts[number:])
        about = "" if quick else f", about {part.minutes:g} of at most {left:g} minutes"
        print(f"\n[{number + 1}/{len(parts)}] {part.name}{about}", flush=True)
        outcomes[part.name] = _run_part(part, folder, published, expected)
    return outcomes


def _lack(part: Part, published: pathlib.Path | None) -> str:
    """What keeps a part from being run; empty where nothing does."""
    if "reference" in part.needs:
        for module in ("torch", "ofa"):
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed: pip install -e '.[reference]'"
    if "published" in part.needs and published is None:
        return "it needs the published files: --published=DIR with " + ", ".join(_PUBLISHED_FILES)
    return ""


def _expected(part: Part, quick: bool) -> dict[str, str]:
    """The columns that are known before."""
    scripts = [_HERE / f"{name}.py" for name in _SHARED_SCRIPTS]
    return {
        "arguments": f"{part.script} {part.quick if quick else part.arguments}".strip(),
        "quick": "yes" if quick else "no",
        "commit": machine.commit(),
        "code": machine.code_hash([*scripts, _HERE / part.script]),
        **machine.versions(),
        **machine.machine(),
    }


def _run_part(
    part: Part, folder: pathlib.Path, published: pathlib.Path | None, expected: dict[str, str]
) -> Result | str:
    print(f"python benchmarks/{expected['arguments']}", flush=True)
    script, *flags = shlex.split(expected["arguments"])
    command = [sys.executable, str(_HERE / script), *flags]
    if "published" in part.needs:
        command.append(f"--published={published}")
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, "records.csv")
        watch = machine.Watch()
        code, last = _run_process([*command, f"--records={path}"])
        happened = watch.stop()
        if code or not path.exists():
            return Failed(f"{part.name}: failed with exit code {code}: {last}")
        records = tuple(from_row(row) for row in read_csv(path))
    result = Result(part.name, records, happened | expected)
    result.write(folder)
    return result


def _run_process(command: list[str]) -> tuple[int, str]:
    """Runs a script; its exit code and the last line that it wrote to standard error."""
    with _own_group(command) as process:
        tail = b""
        # As it comes, so that progress bars move.
        while chunk := os.read(process.stderr.fileno(), 4096):
            sys.stderr.buffer.write(chunk)
            sys.stderr.flush()
            tail = (tail + chunk)[-4096:]
        code = process.wait()
    lines = tail.decode(errors="replace").strip().splitlines()
    return code, lines[-1] if lines else "it wrote no message"


@contextmanager
def _own_group(command: list[str]) -> Iterator[subprocess.Popen]:
    """A process in a group of its own, which is ended as a whole if this one must end before it.

    So Ctrl-C reaches this process only, and not each worker of the script with a traceback.
    """
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ  # of TensorFlow, errors only
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, env=quiet)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        process.stderr.close()


def _arguments() -> argparse.Namespace:
    by_name = {part.name: part for part in PARTS}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(by_name), help="parts, of %(default)s")
    parser.add_argument("--published", type=pathlib.Path, help="folder of the published files")
    parser.add_argument("--quick", action="store_true", help="small settings, to see that it runs")
    parser.add_argument("--again", action="store_true", help="also what is finished already")
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        help="of the CSV files (default: benchmarks/results; with --quick runs/bench_quick)",
    )
    args = parser.parse_args()
    unknown = set(args.only.split(",")) - set(by_name)
    if unknown:
        parser.error(
            f"--only={args.only}: no part {', '.join(sorted(unknown))}; {', '.join(by_name)}"
        )
    args.only = [by_name[name] for name in args.only.split(",")]
    if args.published:
        missing = [name for name in _PUBLISHED_FILES if not (args.published / name).exists()]
        if missing:
            parser.error(f"--published={args.published} has no {', '.join(missing)}")
    if args.results is None:
        args.results = machine.ROOT / "runs/bench_quick" if args.quick else _HERE / "results"
    return args


if __name__ == "__main__":
    main()
