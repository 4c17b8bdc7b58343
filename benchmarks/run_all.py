"""Runs the measurements of this folder, one after the other, and prints one table: `make bench`.

    python benchmarks/run_all.py --published=DIR
    python benchmarks/run_all.py --only=train_step,elastic_forms

Each part is a script in a process of its own. What a part measured is kept in RESULTS/PART.json as
soon as it is finished; a part that fails does not take others with it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import NamedTuple

import machine
import records
import tables

from ofa_tf.errors import FailureError
from ofa_tf.files import read_json, write_json

_HERE = pathlib.Path(__file__).resolve().parent
_PUBLISHED = ("acc_predictor.pth", "note10")


class Part(NamedTuple):
    """One line of what is run: a script of this folder, and what it is run with.

    Attributes:
        script: Its name.
        arguments: For a measurement.
        quick: To see that it runs.
        published: Whether it needs the published files (and the PyTorch reference).
    """

    script: str
    arguments: str
    quick: str
    published: bool = False


_STEP = "--reference --archs=10 --standalone=5"
_TINY = "--space=ofa_mbv3_tiny --resolution=32 --batch_size=8 --repeats=2"
_TINY_STEP = f"--reference {_TINY} --archs=2 --standalone=0 --evaluated=0"
PARTS = {
    "train_step": Part("train_step.py", _STEP, f"{_TINY_STEP} --standalone=1 --evaluated=1"),
    "train_step_cifar": Part(
        "train_step.py",
        f"{_STEP} --space=ofa_mbv3_cifar --resolution=32 --batch_size=128",
        _TINY_STEP,
    ),
    "train_step_bfloat16": Part(
        "train_step.py",
        "--reference --archs=4 --repeats=3 --standalone=0 --evaluated=0 --dtype=bfloat16",
        f"{_TINY_STEP} --dtype=bfloat16",
    ),
    "elastic_forms": Part("elastic_forms.py", "--repeats=3", _TINY),
    "input_pipeline": Part(
        "input_pipeline.py",
        "--train_step",
        "--train_step --photo_space=ofa_mbv3_tiny --photos=40 --small_space=ofa_mbv3_tiny "
        "--batches=2 --repeats=2",
    ),
    "predictors": Part("predictors.py", "", "--archs=50 --repeats=2", published=True),
    "search": Part(
        "search.py",
        "--first_seed=100 --budgets=18,28,38,48,58",
        "--budgets=45 --seeds=1 --many=3 --repeats=1",
        published=True,
    ),
    "export_formats": Part(
        "export_formats.py",
        "--random=0 --files=float32-cpu,float32-plain,int8-cpu,int8-plain",
        "--spaces=ofa_mbv3_tiny --random=0 --rounds=1 --files=float32-cpu,int8-cpu --no-keras",
    ),
}


def main() -> int:
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the part, as Ctrl-C does
    lines, failed = [], False
    try:
        for number, name in enumerate(args.only, 1):
            print(f"\n[{number}/{len(args.only)}] {name}", flush=True)
            lack = _lack(PARTS[name], args.published)
            error = "" if lack else run_part(name, args.results, args.published, args.quick)
            failed |= bool(error)
            if lack or error:
                lines.append(f"{name}: skipped, {lack}" if lack else error)
            else:
                result = read_json(args.results / f"{name}.json")
                measured = map(records.from_json, result["records"])
                lines += [f"{name}: {tables.caption(result)}", *records.as_lines(measured)]
    except FailureError as error:
        print(f"run_all.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        left = ",".join(args.only[number - 1 :])
        print(f"\nInterrupted. {args.results} keeps what is finished; to go on: --only={left}")
        return 130
    print("\n".join(["", records.head_line(), *lines, "", f"Results: {args.results}"]))
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts, of %(default)s")
    parser.add_argument("--published", type=pathlib.Path, help="folder of the published files")
    parser.add_argument("--quick", action="store_true", help="small settings, to see that it runs")
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        help="of the JSON files (default: benchmarks/results; with --quick runs/bench_quick)",
    )
    args = parser.parse_args()
    args.only = args.only.split(",")
    unknown = sorted(set(args.only) - set(PARTS))
    if unknown:
        parser.error(f"--only: no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    folder = args.published
    missing = [name for name in _PUBLISHED if folder and not (folder / name).exists()]
    if missing:
        parser.error(f"--published={folder} has no {', '.join(missing)}")
    quick = machine.ROOT / "runs/bench_quick"
    args.results = args.results or (quick if args.quick else _HERE / "results")
    return args


def _lack(part: Part, published: pathlib.Path | None) -> str:
    """What keeps a part from being run; empty where nothing does."""
    if part.published and published is None:
        return "it needs the published files: --published=DIR with " + ", ".join(_PUBLISHED)
    for module in ("torch", "ofa"):
        needed = part.published or "--reference" in part.arguments
        if needed and importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install -e '.[reference]'"
    return ""


def run_part(name: str, folder: pathlib.Path, published: pathlib.Path | None, quick: bool) -> str:
    """Runs a script and keeps what it measured in NAME.json.

    Returns:
        The line that says why it failed; empty where it did not.

    Raises:
        FailureError: The result cannot be written.
    """
    part = PARTS[name]
    arguments = f"{part.script} {part.quick if quick else part.arguments}".strip()
    print(f"python benchmarks/{arguments}", flush=True)
    date, start = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, "records.json")
        flags = [*arguments.split()[1:], f"--records={path}"]
        if part.published:
            flags.append(f"--published={published}")
        code = _run([sys.executable, str(_HERE / part.script), *flags])
        if code:
            return f"{name}: failed with exit code {code}; see above"
        measured = read_json(path)
    result = {"part": name, "date": date, "seconds": round(time.monotonic() - start)}
    result |= {"arguments": arguments, "quick": quick, "commit": machine.commit()}
    result |= machine.versions() | machine.machine() | {"records": measured}
    write_json(folder / f"{name}.json", result)
    return ""


def _run(command: Sequence[str]) -> int:
    """Runs a process in a group of its own, so that Ctrl-C comes once and not to each worker."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ  # of TensorFlow, errors only
    with subprocess.Popen(command, env=quiet, start_new_session=True) as process:
        try:
            return process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)  # it removes what it has in temporary folders
            raise


if __name__ == "__main__":
    sys.exit(main())
