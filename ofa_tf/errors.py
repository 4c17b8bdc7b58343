"""The two errors that end a command with one clear message instead of a traceback.

Also `first_line`, which such a message takes of another library's error.
"""

import re

_NODES_OF_TENSORFLOW = re.compile(r"\{\{.*?\}\}|\[Op:\w+\].*")


class UsageError(ValueError):
    """The user asked for something that cannot be: a flag, an arch, a folder. Exit code 2.

    The message names the thing, says what was expected and what to do.
    """


class FailureError(RuntimeError):
    """The request was fine but the work could not be done: a full disk, say. Exit code 1."""


NO_MEMORY = (
    "there is too little memory for this: end other programs, or do less at once (a smaller "
    "--batch_size, fewer --jobs)."
)


def is_lack_of_memory(error: Exception) -> bool:
    """Whether it is Python's error of that, or TensorFlow's, which may not be imported yet."""
    return isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"


def first_line(error: Exception) -> str:
    """The first line of what an error of another library says, for a message of ours.

    Without the names of nodes and operations, in which TensorFlow wraps its words.
    """
    lines = _NODES_OF_TENSORFLOW.sub("", str(error)).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
