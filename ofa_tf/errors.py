"""The two errors that end a command with one clear message instead of a traceback."""


class UsageError(ValueError):
    """The user asked for something that cannot be: a flag, an arch, a folder. Exit code 2.

    The message names the thing, says what was expected and what to do.
    """


class FailureError(RuntimeError):
    """The request was fine but the work could not be done: a full disk, say. Exit code 1."""
