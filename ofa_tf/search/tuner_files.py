"""The files of a keras-tuner project, checked before keras-tuner reads them; it checks nothing."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator

from keras_tuner.engine.trial import Trial

from ofa_tf.errors import FailureError, UsageError, first_line
from ofa_tf.fields import Fields, read_fields


@contextlib.contextmanager
def damage_told(
    project: str | os.PathLike, remedy: str, check: Callable[[Trial], object]
) -> Iterator[None]:
    """Around what goes on with a project.

    Args:
        project: its folder, in which there may be nothing yet.
        remedy: what to do about damage, as a sentence.
        check: called with each trial; raises an error where it is none of this search.

    Raises:
        FailureError: a file is damaged, or keras-tuner gives up in the block.
    """
    oracle = pathlib.Path(project) / "oracle.json"
    try:
        paths = sorted(oracle.parent.glob("trial_*/trial.json"))
        trials = {_check_trial(path, read_fields(path, remedy), check) for path in paths}
        if oracle.exists():
            _check_oracle(read_fields(oracle, remedy), trials)
        yield
    except (UsageError, FailureError):
        raise
    except Exception as error:  # whatever a wrong value makes keras-tuner do
        raise FailureError(f"{oracle} is damaged: {_said(error)}. {remedy}") from error


def _check_trial(path: pathlib.Path, fields: Fields, check: Callable[[Trial], object]) -> str:
    """The id of a trial. Raises FailureError where keras-tuner or `check` refuses it."""
    state = dict(fields.items())
    try:
        trial = Trial.from_state(state)
        check(trial)
    except Exception as error:
        raise fields.error(_said(error)) from error
    if not isinstance(trial.score, (int, float, type(None))):  # NaN where it failed
        fields.number("score")
    if path.parent.name != f"trial_{fields.text('trial_id')}":
        raise fields.error(f"trial_id is {fields.text('trial_id')!r:.80}")
    return fields.text("trial_id")


def _check_oracle(fields: Fields, trials: set[str]) -> None:
    """Raises FailureError where what is used long after it was read is of another type."""
    for key in ("seed", "seed_state"):
        fields.whole(key)
    fields.named_numbers("run_times")
    for key in ("start_order", "end_order", "retry_queue"):
        unknown = set(fields.texts(key)) - trials
        if unknown:
            raise fields.error(f"{key} has {min(unknown)!r:.80}, of which there is no trial")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error).rstrip('.'):.300}"
