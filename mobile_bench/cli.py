"""The command `mobile-bench`: flags in, progress on stderr, a table on stdout, rows in a file."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence

from absl import flags

from mobile_bench.errors import FailureError, UsageError
from mobile_bench.models import expand
from mobile_bench.results import Measurement, Settings

_USAGE = """mobile-bench: measure how long .tflite files take.

  mobile-bench a.tflite b.tflite --threads=2 --output=runs.jsonl
  mobile-bench --models='runs/*/subnets/*/*.tflite' --output=runs.jsonl --resume

Exit code: 0 all measured, 1 something failed, 2 wrong usage, 130 interrupted. Whatever it is, the
rows measured until then are in the file. A measurement that cannot be trusted is marked invalid
in the table and in its row.

flags (also from a file: --flagfile=FILE):
"""


def _define_flags() -> flags.FlagValues:
    """Returns this command's flags, apart from those of any other command in the process."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    defaults = Settings()

    def define(kind: Callable[..., object], name: str, default: object, text: str) -> None:
        kind(name, default, text, flag_values=values)

    number, real = flags.DEFINE_integer, flags.DEFINE_float
    define(flags.DEFINE_bool, "help", False, "Show this text and leave.")
    define(flags.DEFINE_list, "models", [], "Files or patterns, besides the plain arguments.")
    define(flags.DEFINE_string, "target", "host", "Where to measure: host (this machine).")
    define(number, "threads", defaults.threads, "Threads of the runtime.")
    define(flags.DEFINE_list, "cpus", [], "Cores to bind the runtime to, such as 0,1.")
    define(flags.DEFINE_bool, "use_xnnpack", True, "Apply the XNNPACK delegate; --nouse_xnnpack.")
    define(number, "num_runs", defaults.num_runs, "Least number of timed runs in a round.")
    define(real, "min_secs", defaults.min_secs, "Least seconds of timed runs in a round.")
    define(real, "max_secs", defaults.max_secs, "Most seconds of warm-up, and of runs, in a round.")
    define(number, "warmup_runs", defaults.warmup_runs, "Least number of warm-up runs in a round.")
    define(
        real, "warmup_min_secs", defaults.warmup_min_secs, "Least seconds of warm-up in a round."
    )
    define(number, "rounds", defaults.rounds, "Times all models are measured, in turn.")
    define(
        real,
        "max_spread",
        defaults.max_spread,
        "Largest difference of the round medians, as a fraction, of a valid measurement.",
    )
    define(
        real, "timeout_secs", 60.0, "Seconds past its bounds after which a model counts as hung."
    )
    define(flags.DEFINE_string, "output", None, "File to append a row of JSON per model to.")
    define(flags.DEFINE_bool, "resume", False, "Leave out models that --output already has.")
    return values


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
        argv: Program name and arguments; those of the process when None.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names in an ASCII terminal
    try:
        return _run(list(sys.argv if argv is None else argv))
    except (UsageError, flags.Error) as error:
        print(f"mobile-bench: {error}", file=sys.stderr)
        return 2
    except FailureError as error:
        print(f"mobile-bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mobile-bench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the table has left. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(argv: list[str]) -> int:
    values = _define_flags()
    arguments = values(argv)[1:]
    if values.help:
        print(_USAGE + _describe_flags(values))
        return 0

    from mobile_bench import session

    settings = _settings(values)
    session.check(values.target, settings, values.timeout_secs)
    paths = expand([*values.models, *arguments])
    if values.resume:
        paths = _leave_out_measured(paths, values.output, settings)
    if not paths:
        print(f"all models are in {values.output} already")
        return 0
    _measure(paths, values, settings)
    return 0


def _describe_flags(values: flags.FlagValues) -> str:
    lines = []
    for name in values:
        flag = values[name]
        default = "" if flag.default in (None, []) else f" Default: {flag.default}."
        lines.append(f"  --{name}: {flag.help}{default}")
    return "\n".join(lines)


def _settings(values: flags.FlagValues) -> Settings:
    try:
        cpus = tuple(sorted({int(cpu) for cpu in values.cpus})) or None
    except ValueError:
        raise UsageError(f"cpus: expected core numbers, got {','.join(values.cpus)}") from None
    return Settings(
        threads=values.threads,
        cpus=cpus,
        delegate="xnnpack" if values.use_xnnpack else "none",
        num_runs=values.num_runs,
        min_secs=values.min_secs,
        max_secs=values.max_secs,
        warmup_runs=values.warmup_runs,
        warmup_min_secs=values.warmup_min_secs,
        rounds=values.rounds,
        max_spread=values.max_spread,
    )


def _leave_out_measured(paths: list[str], output: str | None, settings: Settings) -> list[str]:
    from mobile_bench import session
    from mobile_bench.rows import read_rows

    if output is None:
        raise UsageError("--resume needs --output=FILE, the file to go on with")
    if not os.path.exists(output):
        return paths
    rows = read_rows(output)
    if rows.notice:
        print(f"mobile-bench: {rows.notice}", file=sys.stderr)
    left = session.missing(paths, rows.measurements, settings)
    if len(left) < len(paths):
        skipped = len(paths) - len(left)
        print(f"mobile-bench: {skipped} of {len(paths)} already in {output}", file=sys.stderr)
    return left


def _measure(paths: list[str], values: flags.FlagValues, settings: Settings) -> None:
    """Measures, keeps each row at once, and prints the table of what there is at the end."""
    from contextlib import ExitStack

    from tqdm import tqdm

    from mobile_bench import session
    from mobile_bench.rows import RowWriter

    measured: list[Measurement] = []
    with ExitStack() as stack:
        stack.callback(_print_outcome, measured, values.output)
        writer = stack.enter_context(RowWriter(values.output)) if values.output else None
        bar = stack.enter_context(tqdm(total=settings.rounds * len(paths), unit="model"))

        def on_progress(done: int, total: int, model: str) -> None:
            bar.total, bar.n = total, done
            bar.set_postfix_str(os.path.basename(model)[-40:])

        def on_result(measurement: Measurement) -> None:
            if writer is not None:
                writer.write(measurement)
            measured.append(measurement)

        session.run(
            paths,
            values.target,
            settings,
            timeout_secs=values.timeout_secs,
            progress=on_progress,
            on_result=on_result,
        )
        bar.update(bar.total - bar.n)


def _print_outcome(measured: list[Measurement], output: str | None) -> None:
    if not measured:
        return
    from mobile_bench.table import format_table

    print(format_table(measured))
    if output:
        rows = "1 row" if len(measured) == 1 else f"{len(measured)} rows"
        print(f"{rows} appended to {output}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
