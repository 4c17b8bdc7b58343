"""The command `mobile-bench`: flags in, progress on stderr, tables on stdout, rows in a file."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from mobile_bench.errors import FailureError, UsageError, one_line
from mobile_bench.models import expand, split_and_expand
from mobile_bench.results import DELEGATES, SCREENS, Measurement, Settings
from mobile_bench.signals import interrupted_by_signals
from mobile_bench.streams import outlets
from mobile_bench.target import RUNNERS, Target, TargetOptions

if TYPE_CHECKING:
    from mobile_bench.rows import RowWriter
    from mobile_bench.summary import Summary

_USAGE = """mobile-bench: measure how long .tflite files take, on Android phones and on this host.

  mobile-bench a.tflite b.tflite --threads=2 --output=runs.jsonl
  mobile-bench *.tflite --target=all --benchmark_binary=tools/ --cpus=auto --output=runs.jsonl
  mobile-bench --models='runs/*/subnets/*/*.tflite' --output=runs.jsonl --resume
  mobile-bench devices                     the phones that adb knows
  mobile-bench clean                       remove what was put on the phones
  mobile-bench table runs.jsonl            the results of a file, --format=csv for all of them
  mobile-bench compare a.jsonl b.jsonl     what changed from one file to another

Each command has its own --help. Exit code: 0 all measured, 1 something failed, 2 wrong usage, 129,
130 or 143 interrupted. Whatever it is, the rows measured until then are in the file. A measurement
that cannot be trusted is marked invalid, with the reasons, in the table and in its row.
"""

_SETTINGS_HELP = {
    "threads": "Threads of the runtime.",
    "cpus": "Cores to bind the runtime to: big, little, auto (the fastest ones), 0,1,4-7 or a mask "
    "such as 0xf0; all if not given.",
    "delegate": f"What runs the model: {', '.join(DELEGATES)}.",
    "num_runs": "Least number of timed inferences in a round.",
    "min_secs": "Least seconds of timed inferences in a round.",
    "max_secs": "Most seconds of warm-up, and of timed inferences, in a round.",
    "warmup_runs": "Least number of warm-up inferences in a round.",
    "warmup_min_secs": "Least seconds of warm-up in a round.",
    "require_full_delegation": "A model that the delegate does not take whole is invalid.",
    "memory": "Watch the peak of memory, which slows what is timed.",
    "op_profile": "Time every op, which slows what is timed.",
    "screen": f"The phone's screen meanwhile: {', '.join(SCREENS)}; leave is as it is.",
    "max_spread": "Largest difference of the rounds, as a fraction, of a valid result.",
    "max_celsius": "Battery temperature above which a phone rests and a run is invalid.",
}
_OPTIONS_HELP = {
    "timeout_secs": "Seconds past its bounds after which a run counts as hung.",
    "benchmark_binary": "benchmark_model for the phones: a file, or a folder with one for each ABI "
    "(see docs/PHONES.md).",
    "benchmark_version": "What to record as its version; if not given, what its output tells.",
    "runner": f"What a phone runs: {' or '.join(RUNNERS)} (the app of benchmark_model).",
    "adb_path": "The adb to use; if not given, it is looked for by ANDROID_HOME and PATH.",
    "batch": "Most models that a phone is given at once.",
}
_FLAG_KINDS = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    type(None): flags.DEFINE_string,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
        argv: Program name and arguments; those of the process when None.
    """
    with outlets() as out:
        code = _ended(list(sys.argv if argv is None else argv))
        out.flush()
        if out.error is None:
            return code
        if not isinstance(out.error, BrokenPipeError):  # whose reader has left
            _say(f"standard output: {out.error.strerror}")
        return code or 1


def _ended(argv: list[str]) -> int:
    """Runs a command, says why it failed, if it did, and returns its exit code."""
    try:
        with interrupted_by_signals():
            _main(argv)
        return 0
    except (UsageError, flags.Error) as error:
        code, message = 2, one_line(str(error), None)
    except FailureError as error:
        code, message = 1, str(error)
    except KeyboardInterrupt as interruption:
        code, message = getattr(interruption, "exit_code", 130), "interrupted"
    except MemoryError:
        code, message = 1, "there is not enough memory; give it more (ulimit -v), or less to do"
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        code, message = 1, one_line(f"{where}{error.strerror or error}", None)
    _say(message)
    return code


def _main(argv: list[str]) -> None:
    named = len(argv) > 1 and argv[1] in _COMMANDS
    command = _COMMANDS[argv.pop(1) if named else "run"]
    values = flags.FlagValues()  # apart from those of any other command in the process
    values.set_gnu_getopt(True)
    flags.DEFINE_bool("help", False, "Show this text and leave.", values, short_name="h")
    flags.DEFINE_bool("version", False, "Show the versions and leave.", values)
    command.define_flags(values)
    arguments = values(argv)[1:]
    if values.help:
        print(f"{command.usage}\nflags (also from a file: --flagfile=FILE):")
        print(_describe_flags(values))
    elif values.version:
        print(_versions())
    else:
        command.run(values, arguments)


def _versions() -> str:
    """The versions of mobile-bench, which is released with ofa_tf, and of the host's runtime."""

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "(not installed)"

    return f"mobile-bench {version('ofa_tf')} (ofa_tf), LiteRT {version('ai-edge-litert')}"


class _Command(NamedTuple):
    """A command of the program: its help above the flags, its flags, and what it does."""

    usage: str
    define_flags: Callable[[flags.FlagValues], None]
    run: Callable[[flags.FlagValues, list[str]], None]


def _describe_flags(values: flags.FlagValues) -> str:
    lines = []
    for name in values:
        if name == "h":  # the same as help
            continue
        flag = values[name]
        default = "" if flag.default in (None, [], "") else f" Default: {flag.default}."
        lines.append(f"  --{name}: {flag.help}{default}")
    return "\n".join(lines)


def _define(values: flags.FlagValues, defaults: Any, helps: Mapping[str, str]) -> None:
    """Defines a flag for each help text, with the default that a dataclass has."""
    for name, text in helps.items():
        default = getattr(defaults, name)
        _FLAG_KINDS[type(default)](name, default, text, flag_values=values)


def _define_format(values: flags.FlagValues) -> None:
    flags.DEFINE_enum(
        "format", "markdown", ["markdown", "csv"], "Of the table.", flag_values=values
    )


def _define_adb(values: flags.FlagValues) -> None:
    _define(values, TargetOptions(), {"adb_path": _OPTIONS_HELP["adb_path"]})


def _define_clean(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "target", "all", "Which phones: serials or addresses, or all.", flag_values=values
    )
    _define_adb(values)


def _define_table(values: flags.FlagValues) -> None:
    _define_format(values)
    flags.DEFINE_bool("profile", False, "The time of each op instead.", flag_values=values)


def _define_run(values: flags.FlagValues) -> None:
    def define(kind: Callable[..., object], name: str, default: object, text: str) -> None:
        kind(name, default, text, flag_values=values)

    define(
        flags.DEFINE_string,
        "models",
        "",
        "Files or patterns with commas between, besides the plain arguments.",
    )
    define(
        flags.DEFINE_string,
        "target",
        "host",
        "Where to measure: host (this machine), serials or addresses of phones with commas "
        "between, or all (phones).",
    )
    _define(values, Settings(), _SETTINGS_HELP)
    define(flags.DEFINE_integer, "rounds", 3, "Times all models are measured, in turn.")
    define(flags.DEFINE_float, "cooldown_secs", 300.0, "Longest rest of a phone that is too warm.")
    flags.DEFINE_alias("cooldown", "cooldown_secs", flag_values=values)
    _define(values, TargetOptions(), _OPTIONS_HELP)
    define(flags.DEFINE_string, "output", None, "File to append a row of JSON per run to.")
    define(flags.DEFINE_bool, "resume", False, "Leave out the runs that --output already has.")
    _define_format(values)


def _run(values: flags.FlagValues, arguments: list[str]) -> None:
    """Measures, and prints the table of what there is at the end, however it ends."""
    from mobile_bench import session
    from mobile_bench.rows import RowWriter

    settings = Settings(**{name: values[name].value for name in _SETTINGS_HELP})
    named = {name: values[name].value for name in _OPTIONS_HELP}
    options = TargetOptions(**named, environ=os.environ)
    paths = list(dict.fromkeys([*split_and_expand(values.models or ""), *expand(arguments)]))
    if not paths:
        raise UsageError("no models: give .tflite files or patterns, or --models=PATTERN[,..]")
    session.check(values.rounds, values.cooldown_secs)
    if values.resume and values.output is None:
        raise UsageError("--resume needs --output=FILE, the file to go on with")
    with ExitStack() as stack:
        writer = stack.enter_context(RowWriter(values.output)) if values.output else None
        if writer is not None and writer.notice:
            _say(writer.notice)
        rows = _read(values.output) if values.resume else []
        # Other settings and models of the file are other calls' results.
        known = [row for row in rows if row.settings == settings and row.model in paths]
        measured: list[Measurement] = []
        try:
            _measure(paths, settings, options, values, known, measured, writer)
        finally:
            _print_outcome(known, measured, values)


def _measure(
    paths: list[str],
    settings: Settings,
    options: TargetOptions,
    values: flags.FlagValues,
    known: Sequence[Measurement],
    measured: list[Measurement],
    writer: RowWriter | None,
) -> None:
    """Adds each measurement to `measured` and to the file at once, under a progress bar."""
    from tqdm import tqdm

    from mobile_bench import session

    stop = threading.Event()
    with ExitStack() as stack:
        targets = session.open_targets(values.target, settings, options, stop)
        for target in targets:
            stack.callback(target.close)
        total = values.rounds * len(paths) * len(targets)
        bar = stack.enter_context(tqdm(total=total, unit="run"))

        def on_progress(done: int, total: int, label: str) -> None:
            bar.total, bar.n = total, done
            bar.set_postfix_str(one_line(label[-60:]))

        def on_result(measurement: Measurement) -> None:
            if writer is not None:
                writer.write(measurement)
            measured.append(measurement)
            bar.update()

        session.measure_on(
            targets,
            paths,
            settings,
            rounds=values.rounds,
            cooldown_secs=values.cooldown_secs,
            resume_rows=known,
            progress=on_progress,
            on_result=on_result,
            notice=lambda text: tqdm.write(f"mobile-bench: {text}", file=sys.stderr),
            stop=stop,
        )
    if values.target == "all":
        _check_all_there(known, targets, values.rounds * len(paths))


def _check_all_there(known: Sequence[Measurement], targets: Sequence[Target], runs: int) -> None:
    """Raises FailureError for phones that began to measure, have not all runs, and are not there.

    Args:
        known: The rows that are gone on with.
        targets: What is there now.
        runs: What each phone has to make.
    """
    done: dict[str, set[tuple[str, int]]] = {}
    for row in known:
        done.setdefault(row.device.target, set()).add((row.model, row.round))
    there = {"host"} | {name for t in targets for name in (t.device.target, t.device.serial)} - {""}
    away = {
        row.device.target for row in known if not {row.device.target, row.device.serial} & there
    }
    failures = [
        f"{name}: not connected, and {runs - len(done[name])} of its {runs} runs are missing; "
        "connect it and resume"
        for name in sorted(away)
        if len(done[name]) < runs
    ]
    if failures:
        raise FailureError(f"failures: {len(failures)}", *failures)


def _read(path: str) -> list[Measurement]:
    """Returns the rows of a file; says so where the last one is left out."""
    from mobile_bench.rows import read_rows

    rows = read_rows(path)
    if rows.notice:
        _say(rows.notice)
    return rows.measurements


def _say(text: str) -> None:
    print(f"mobile-bench: {text}", file=sys.stderr)


def _print_outcome(
    known: Sequence[Measurement],
    measured: Sequence[Measurement],
    values: flags.FlagValues,
) -> None:
    """Prints the results: of the rounds that were there already, and of those measured now."""
    summaries = _summarize([*known, *measured])
    if not summaries:
        return
    _print_summaries(summaries, values.format)
    profiled = _profiled(summaries)
    if profiled and values.format == "markdown":
        print()
        _print_profiles(profiled, values.format)
    sys.stdout.flush()
    if values.output:
        count = len(measured)
        told = f"{count} row{'s' * (count != 1)} appended to" if count else "no new row in"
        print(f"{told} {one_line(values.output, None)}", file=sys.stderr)


def _print_summaries(summaries: Sequence[Summary], form: str) -> None:
    from mobile_bench.table import format_csv, format_table

    print(format_csv(summaries) if form == "csv" else format_table(summaries))


def _summarize(rows: Iterable[Measurement]) -> list[Summary]:
    """Returns the summaries by device: several are measured at once, their rows in no order."""
    from mobile_bench.summary import summarize

    return sorted(summarize(rows), key=lambda summary: summary.device.target)


def _read_summaries(path: str) -> list[Summary]:
    """Returns the results of a file.

    Raises:
        FailureError: It cannot be read, or there are none.
    """
    summaries = _summarize(_read(path))
    if not summaries:
        raise FailureError(f"{path}: there is no measurement in it")
    return summaries


def _profiled(summaries: Sequence[Summary]) -> list[Measurement]:
    """Returns the last round of each summary whose ops were timed."""
    last = (summary.rounds[-1] for summary in summaries)
    return [row for row in last if row.profile is not None]


def _print_profiles(rows: Sequence[Measurement], form: str) -> None:
    from mobile_bench.table import format_profile, format_profiles_csv

    if form == "csv":
        print(format_profiles_csv(rows))
    else:
        print("\n\n".join(map(format_profile, rows)))


def _table(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise UsageError(f"table: expected one file of rows, got {len(arguments)}")
    summaries = _read_summaries(arguments[0])
    if not values.profile:
        _print_summaries(summaries, values.format)
    elif profiled := _profiled(summaries):
        _print_profiles(profiled, values.format)
    else:
        raise UsageError(f"{arguments[0]}: no row has op times; measure with --op_profile")


def _compare(_: flags.FlagValues, arguments: list[str]) -> None:
    from mobile_bench.compare import compare
    from mobile_bench.table import format_changes

    if len(arguments) != 2:
        raise UsageError(f"compare: expected two files of rows, A and B, got {len(arguments)}")
    before, after = map(_read_summaries, arguments)
    print(format_changes(compare(before, after)))


def _devices(values: flags.FlagValues, arguments: list[str]) -> None:
    from mobile_bench.phone.listing import format_devices, list_devices
    from mobile_bench.phone.target import open_adb

    _expect_flags_only("devices", arguments)
    print(format_devices(list_devices(open_adb(_adb_options(values)))))


def _clean(values: flags.FlagValues, arguments: list[str]) -> None:
    from mobile_bench.phone.target import clean

    _expect_flags_only("clean", arguments)
    outcome = clean(values.target.split(","), _adb_options(values))
    for phone, why in outcome.items():
        if not why:
            print(f"{one_line(phone)}: clean")
    failures = [f"{phone}: {why}" for phone, why in outcome.items() if why]
    if failures:
        raise FailureError(f"failures: {len(failures)}", *failures)


def _expect_flags_only(command: str, arguments: list[str]) -> None:
    if arguments:
        raise UsageError(f"{command}: expected flags only, got {one_line(arguments[0])!r}")


def _adb_options(values: flags.FlagValues) -> TargetOptions:
    return TargetOptions(adb_path=values.adb_path, environ=os.environ)


_COMMANDS = {
    "run": _Command(_USAGE, _define_run, _run),
    "devices": _Command(
        "mobile-bench devices: the phones that adb knows, and what to do where one cannot be used.",
        _define_adb,
        _devices,
    ),
    "clean": _Command(
        "mobile-bench clean: removes what mobile-bench put on the phones: its tool and the models.",
        _define_clean,
        _clean,
    ),
    "table": _Command(
        "mobile-bench table ROWS.jsonl: the results of a file.", _define_table, _table
    ),
    "compare": _Command(
        "mobile-bench compare A.jsonl B.jsonl: what changed from one file to another, with the 95 "
        "% interval\nof the ratio.",
        lambda values: None,
        _compare,
    ),
}


if __name__ == "__main__":
    sys.exit(main())
