"""What the commands share: how they start and end, flags of several of them, and how to read."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import math
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging

import mobile_bench
from mobile_bench.results import DELEGATES
from mobile_bench.signals import interrupted_by_signals
from mobile_bench.streams import outlets
from ofa_tf.cli import presets
from ofa_tf.errors import NO_MEMORY, FailureError, UsageError, is_lack_of_memory
from ofa_tf.job import Job
from ofa_tf.names import read_labels as read_labels_file
from ofa_tf.version import __version__
from ofa_tf.workdir import Workdir

FLAGS = flags.FLAGS

log = logging.getLogger("ofa_tf")


def run(command: Callable[[], None], usage: str, default_preset: str | None = None) -> None:
    """Runs a command with absl flags; an error becomes one line and an exit code.

    Exit codes: 2 for a UsageError or a bad flag, 1 for a FailureError or where the output could not
    be written, 128 + signal after SIGINT, SIGTERM or SIGHUP. Whoever reads the output may leave.

    Args:
        command: does the work; reads FLAGS.
        usage: what --help says above the flags.
        default_preset: as in `parse_flags`.
    """

    with outlets() as out:
        try:
            app.run(
                lambda _: _ended(command),
                flags_parser=lambda argv: _parse(argv, usage, default_preset),
            )
        except SystemExit as end:
            out.flush()
            if not end.code and out.error and not isinstance(out.error, BrokenPipeError):
                _end(f"the output could not be written: {out.error.strerror}.", 1)
            raise


def _ended(command: Callable[[], None]) -> int:
    """Does the work of a command, says why it failed, if it did, and gives its exit code."""
    _log_to_stderr()
    try:
        with interrupted_by_signals():
            _prepare_environment()
            command()
    except (UsageError, mobile_bench.UsageError) as error:
        _end(str(error), 2)
    except (FailureError, mobile_bench.FailureError) as error:
        _end(str(error), 1)
    except KeyboardInterrupt as interruption:
        code = getattr(interruption, "exit_code", 130)
        _end("interrupted. Run the same command again to go on.", code)
    except Exception as error:
        if not is_lack_of_memory(error):
            raise
        _end(NO_MEMORY, 1)
    return 0


def _parse(argv: list[str], usage: str, default_preset: str | None) -> list[str]:
    """Reads the flags. absl's own parser ends misuse with 1 and prints all help first."""
    if {"--help", "-help", "-h"} & set(argv):
        _show("\n".join([usage.strip(), "", *_describe_flags()]))
    if {"--version", "-version"} & set(argv):
        _show(_versions())
    try:
        rest = parse_flags(argv, default_preset)
    except flags.Error as error:
        _end(f"{error} (--help lists the flags)", 2)
    except UsageError as error:
        _end(str(error), 2)
    if len(rest) > 1:
        _end(f"unknown argument {rest[1]!r}; flags are given as --name=value.", 2)
    return rest


def parse_flags(argv: list[str], default_preset: str | None = None) -> list[str]:
    """Reads a command line into FLAGS; what is given wins over what a preset says.

    Args:
        argv: program name and flags.
        default_preset: the preset to use where neither a preset nor a flagfile is given.

    Returns:
        The program name and the arguments that are no flags.

    Raises:
        flags.Error: a flag is unknown or has a bad value, or a flagfile cannot be read.
        UsageError: a preset is unknown, or not for this command.
    """
    args = FLAGS.read_flags_from_files(argv[1:])
    has_flagfile = args != argv[1:]
    if default_preset and not has_flagfile and not presets.split(args)[0]:
        args.append(f"--preset={default_preset}")
    return FLAGS([argv[0], *presets.expand(args, FLAGS)])


def _versions() -> str:
    """The versions of the command and of TensorFlow, which is not imported for it."""
    try:
        tensorflow = importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:
        tensorflow = "is not installed"
    return f"{os.path.basename(sys.argv[0])} {__version__} (ofa_tf), TensorFlow {tensorflow}"


def _describe_flags() -> list[str]:
    """A line for each flag of the command, and for those that all commands have."""
    its_flags = [
        flag
        for module, flags_of_module in FLAGS.flags_by_module_dict().items()
        if not module.startswith("absl.")
        for flag in flags_of_module
    ]
    lines = ["  --flagfile: A file of flags, one per line."]
    if names := presets.fitting(FLAGS):
        known = ", ".join(names)
        lines.append(f"  --preset: A recipe, used where no flag is given; known: {known}.")
    lines.append("  --version: Show the versions and leave.")
    for flag in sorted(its_flags, key=lambda flag: flag.name):
        default = "" if flag.default in (None, []) else f" Default: {flag.default_as_str}."
        lines.append(f"  --{flag.name}: {flag.help}{default}")
    return lines


def _show(text: str) -> NoReturn:
    print(text)
    sys.exit(0)


def _end(message: str, code: int) -> NoReturn:
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
    sys.exit(code)


def _log_to_stderr() -> None:
    """What ofa_tf says goes to stderr, plainly; what others say only from warnings on."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _prepare_environment() -> None:
    """Before TensorFlow is imported: the backend must be its own, and its start-up talk is off."""
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # wins over keras.json
    if backend != "tensorflow":
        raise UsageError(
            f"KERAS_BACKEND is {backend!r}; ofa_tf needs tensorflow. Unset it, or set it to "
            "tensorflow."
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def writes_job(command: Callable[..., None]) -> Callable[..., None]:
    """A command that keeps the job in --workdir to itself while it works.

    The decorated function raises FailureError where another process writes there.
    """

    @functools.wraps(command)
    def alone(*args: Any, **kwargs: Any) -> None:
        with workdir().lock():
            command(*args, **kwargs)

    return alone


def define_workdir() -> None:
    flags.DEFINE_string("workdir", None, "Folder of the job; all results go there.")
    flags.register_validator("workdir", bool, "give the folder of the job, --workdir=DIR")
    flags.DEFINE_bool(
        "trust_space_file",
        False,
        "Run the job's copy of the file that defines its search space, though it changed.",
    )


def define_target() -> None:
    flags.DEFINE_string(
        "target",
        "host",
        "Where latencies are measured: host, or the serial or address of a phone as `mobile-bench "
        "devices` lists it.",
    )
    flags.DEFINE_integer("threads", 1, "Threads of the TFLite runtime.", lower_bound=1)
    flags.DEFINE_string(
        "cpus", "", "Cores to run on: big, little, auto, 0,1 or 0xf0; any if not given."
    )
    flags.DEFINE_enum(
        "delegate", "xnnpack", DELEGATES, "What runs the operations of .tflite files."
    )
    flags.DEFINE_enum(
        "tflite_precision", "float32", ["float32", "int8"], "Of the files that are timed, or sized."
    )
    define_form()


def define_measuring() -> None:
    """Flags of the commands that measure on a phone, besides those of `define_target`."""
    flags.DEFINE_string(
        "benchmark_binary",
        None,
        "TFLite's benchmark_model for the phone: a file, or a folder with one for each ABI. See "
        "docs/PHONES.md.",
    )
    flags.DEFINE_string("adb_path", None, "The adb to use; found by itself if not given.")


def define_form() -> None:
    flags.DEFINE_enum(
        "form",
        "cpu",
        ["cpu", "plain"],
        "Of .tflite files: cpu is what XNNPACK runs fastest; plain has an operation for each "
        "layer, for GPUs and NPUs.",
    )


# The flags whose values are settings of a job's images.
_DATA_FLAGS = (
    "dataset",
    "data_dir",
    "train_split",
    "test_split",
    "tfds_dir",
    "num_validation",
    "flip",
    "seed",
)


def define_data() -> None:
    """The flags of a job's images, and of how subnets are evaluated on them."""
    flags.DEFINE_string("dataset", None, "TFDS image-classification set, e.g. ofa_doodles.")
    flags.DEFINE_string(
        "data_dir", None, "Folder of images in class folders, or in train/ and test/ with these."
    )
    flags.DEFINE_string("train_split", None, "TFDS split of the training images.")
    flags.DEFINE_string("test_split", None, "TFDS split of the test images.")
    flags.DEFINE_string("tfds_dir", None, "Where prepared TFDS sets are; TFDS's own by default.")
    flags.DEFINE_integer("num_validation", None, "Training images held out; 10 % by default.")
    flags.DEFINE_bool("flip", None, "Mirror training images; where the classes allow by default.")
    flags.DEFINE_float("eval_crop", 0.875, "Share of the image that evaluation sees.", 0.01, 1.0)
    flags.DEFINE_integer("calibration_images", 2000, "For batch-norm recalibration.", 1)
    define_seed("seed", "Of weights, images, subnets and dropout.")


def data_config() -> dict:
    """The settings of the images that the flags describe."""
    return {name: getattr(FLAGS, name) for name in _DATA_FLAGS}


def define_seed(name: str, help_text: str) -> None:
    """A flag of a seed, which NumPy and TensorFlow take up to 32 bits."""
    flags.DEFINE_integer(name, 0, help_text, 0, 2**32 - 1)


def define_moved_images() -> None:
    """The flag of the commands that work on the images of a job, for `open_job`."""
    flags.DEFINE_string("data_dir", None, "Where the job's folder of images is now, if it moved.")


def open_job() -> Job:
    """The job in the workdir, whose images are now where --data_dir says."""
    job = Job(workdir())
    move_images(job)
    return job


def move_images(job: Job) -> None:
    """Tells a job where its images are now, if --data_dir says so; imports TensorFlow for it."""
    if FLAGS.data_dir:
        job.move_images(FLAGS.data_dir)


def define_labels() -> None:
    flags.DEFINE_string(
        "labels", None, "File of class names, a line each, where no images tell them."
    )


def read_labels(num_classes: int, any_number: bool = False) -> tuple[str, ...]:
    """The class names in the file of --labels, or made-up ones.

    Raises:
        UsageError: the file cannot be read, or has not a name for each class; with `any_number`
            it may have any number of them.
    """
    if FLAGS.labels is None:
        return tuple(f"class {index}" for index in range(num_classes))
    try:
        names = read_labels_file(FLAGS.labels)
    except UsageError as error:
        raise UsageError(f"--labels={error}") from error
    if len(names) != num_classes and not (any_number and names):
        raise UsageError(
            f"--labels={FLAGS.labels} has {len(names)} lines, but there are {num_classes} classes."
        )
    return names


def workdir() -> Workdir:
    return Workdir(FLAGS.workdir, FLAGS.trust_space_file)


def latency_file(workdir: Workdir) -> pathlib.Path:
    """The latency table of what the flags of `define_target` say."""
    return workdir.latency_table(**measured_so())


def measured_so() -> dict[str, Any]:
    """What the flags of `define_target` say, as the arguments that name a latency table."""
    return {
        "target": FLAGS.target,
        "threads": FLAGS.threads,
        "precision": FLAGS.tflite_precision,
        "form": FLAGS.form,
        "cpus": FLAGS.cpus,
        "delegate": FLAGS.delegate,
    }


def numbers(flag: str) -> list[float]:
    """A list flag as finite numbers; empty where it was not given. Raises UsageError."""
    return _numbers(flag, float, "a list of numbers")


def whole_numbers(flag: str) -> list[int]:
    """A list flag as integers; empty where it was not given. Raises UsageError."""
    return _numbers(flag, int, "a list of whole numbers")


def positive_numbers(flag: str) -> list[float]:
    """A list flag as numbers above zero, each once, ascending. Raises UsageError."""
    values = sorted(set(numbers(flag)))
    if any(value <= 0 for value in values):
        raise UsageError(f"--{flag} holds positive numbers, not {','.join(getattr(FLAGS, flag))}.")
    return values


def _numbers(flag: str, kind: type, expected: str) -> list:
    texts = getattr(FLAGS, flag) or []
    try:
        values = [kind(text) for text in texts]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise UsageError(f"--{flag} is {expected}, not {','.join(texts)!r}.")
    return values


def progress_bar(**options):
    """A tqdm bar on stderr, and the `(done, total)` callback that moves it."""
    from tqdm import tqdm

    bar = tqdm(**options)

    def update(done: int, total: int) -> None:
        if bar.total is None:  # what an earlier run did says nothing about the speed of this one
            bar.initial = bar.n = bar.last_print_n = done
        bar.total = total
        bar.update(done - bar.n)

    return bar, update
