"""What the evaluations of a job were made with, which it remembers, and what is different now."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

from absl import flags

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import read_json
from ofa_tf.job import Job
from ofa_tf.quiet import import_tensorflow
from ofa_tf.search.rows import first_row
from ofa_tf.workdir import Workdir

FLAGS = flags.FLAGS

# Of fields that are called otherwise; behind a job's fingerprint stands on how many images.
_FLAGS = {"seed": "predictor_seed", "more": "arch_images"}
_NO_FLAGS = {
    "weights": "the supernet has other weights since",
    "images": "its images are others since (put them back as they were)",
}


@contextlib.contextmanager
def on_every_core() -> Iterator[None]:
    """Around whatever makes a supernet and evaluates many of its subnets."""
    import_tensorflow()
    from ofa_tf.training.strategy import every_core

    with every_core().scope():
        yield


def adopt(workdir: Workdir, names: tuple[str, ...]) -> None:
    """Makes what the job's evaluations were made with the defaults of these flags.

    Args:
        workdir: of the job.
        names: flags of the accuracy predictor.
    """
    for name, value in _recorded(workdir).items():
        # A number that no flag takes is damage, of which whoever reads the file tells.
        with contextlib.suppress(flags.Error):
            if name in names:
                FLAGS.set_default(name, value)


def _recorded(workdir: Workdir) -> dict[str, int]:
    """Settings of the accuracy predictor that is there; those of the rows are what counts."""
    found: dict[str, Any] = {}
    if workdir.accuracy_report.exists():
        try:
            report = read_json(workdir.accuracy_report, kind=dict)
            found = dict(report.get("made_from") or {})
        except (FailureError, TypeError, ValueError):
            found = {}  # who reads it says what to do about it
    if (row := first_row(workdir.accuracy_rows)) is not None:
        found |= {"predictor_seed": row.get("seed"), **_parts(row.get("fingerprint"))}
    return {name: value for name, value in found.items() if type(value) is int}


def check_same(path: pathlib.Path, **identity: Any) -> None:
    """Checks that the evaluations in a file were made as they would be now.

    Args:
        path: JSON lines.
        **identity: what their rows begin with.

    Raises:
        UsageError: they were not; names what is different, as flags with both values.
    """
    row = first_row(path)
    if row is None:
        return
    there, here = ({**_parts(each.get("fingerprint")), **each} for each in (row, identity))
    different = [
        _NO_FLAGS.get(name) or f"--{_FLAGS.get(name, name)} was {there.get(name)}, is {value}"
        for name, value in here.items()
        if name != "fingerprint" and there.get(name) != value
    ]
    if different or row.get("fingerprint") != identity.get("fingerprint"):
        raise UsageError(
            f"{path} holds evaluations that were made otherwise: "
            f"{'; '.join(different) or 'by another version'}. Go back to what it was to use them "
            f"(a flag that is left out does), or remove the file to evaluate anew."
        )


def _parts(fingerprint: object) -> dict[str, Any]:
    """The parts of a fingerprint, by the flags that they come from."""
    texts = Job.fingerprint_parts(fingerprint) if isinstance(fingerprint, str) else {}
    named = {_FLAGS.get(name, name): text for name, text in texts.items()}
    return {name: int(text) if text.isdecimal() else text for name, text in named.items()}
