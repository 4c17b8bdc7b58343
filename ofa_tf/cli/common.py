"""What the commands share: how they start and end, and the job that they work on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import app, flags, logging

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.workdir import Workdir

if TYPE_CHECKING:
    from ofa_tf.data import ImageData
    from ofa_tf.models import Supernet

FLAGS = flags.FLAGS


def run(command: Callable[[], None], usage: str) -> None:
    """Runs a command with absl flags; an error becomes one line and an exit code.

    Exit codes: 2 for a UsageError or a bad flag, 1 for a FailureError, 130 or 143 after SIGINT or
    SIGTERM.

    Args:
        command: does the work; reads FLAGS.
        usage: what --help says above the flags.
    """

    def main(_) -> None:
        logging.set_verbosity(logging.INFO)
        try:
            _prepare_environment()
            command()
        except UsageError as error:
            _end(str(error), 2)
        except FailureError as error:
            _end(str(error), 1)
        except KeyboardInterrupt as interruption:
            code = getattr(interruption, "exit_code", 130)
            _end("interrupted. Run the same command again to go on.", code)

    app.run(main, flags_parser=lambda argv: _parse(argv, usage))


def _parse(argv: list[str], usage: str) -> list[str]:
    """Reads the flags. absl's own parser ends misuse with 1 and prints all help first."""
    if {"--help", "-help", "-h"} & set(argv):
        print(usage.strip(), "\n")
        for module in sorted(FLAGS.flags_by_module_dict()):
            if module.startswith("ofa_tf.") or module == "__main__":
                print(FLAGS.module_help(module), "\n")
        sys.exit(0)
    try:
        rest = FLAGS(argv)
    except flags.Error as error:
        _end(f"{error} (--help lists the flags)", 2)
    if len(rest) > 1:
        _end(f"unknown argument {rest[1]!r}; flags are given as --name=value.", 2)
    return rest


def _end(message: str, code: int) -> None:
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
    sys.exit(code)


def _prepare_environment() -> None:
    """Before TensorFlow is imported: the backend must be its own, and its start-up talk is off."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise UsageError(
            f"KERAS_BACKEND is {backend!r}; ofa_tf needs tensorflow. Unset it, or set it to "
            "tensorflow."
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def define_workdir() -> None:
    flags.DEFINE_string("workdir", None, "Folder of the job; all results go there.")
    flags.mark_flag_as_required("workdir")


def workdir() -> Workdir:
    return Workdir(FLAGS.workdir)


def load_data(config: dict, workdir: Workdir) -> ImageData:
    """The images that the job was trained on."""
    from ofa_tf.data import load_dataset

    return load_dataset(**config["data"], cache_dir=str(workdir.path / "data"))


def load_supernet(config: dict, workdir: Workdir) -> Supernet:
    """The job's supernet with the newest weights.

    Raises:
        UsageError: there is no checkpoint yet.
        FailureError: it cannot be read.
    """
    from ofa_tf.models import Supernet
    from ofa_tf.spaces import get_space
    from ofa_tf.training.checkpoints import CheckpointFolder

    supernet = Supernet(get_space(config["space"]), len(config["class_names"]))
    if CheckpointFolder(workdir.checkpoints).load_newest(weights=supernet.variables) is None:
        raise UsageError(f"{workdir.checkpoints} has no checkpoint. Run ofa-train first.")
    return supernet
