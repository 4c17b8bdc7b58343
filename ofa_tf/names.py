"""Text that came from a file, a person or a library: what may be a name, and what is printed."""

from __future__ import annotations

from ofa_tf.errors import UsageError

_LONGEST_LINE = 10_000
MAX_NAME_BYTES = 100  # a file system has 255, of which suffixes and temporary names want some


def check_name(name: object, what: str) -> str:
    """Returns a name that may become a folder or a file, as it is.

    Letters of any language, digits, spaces and most signs may be in it. It is one part of a path,
    it is not hidden, and a terminal prints it as it is.

    Args:
        name: the name.
        what: what has this name, for the message.

    Raises:
        UsageError: it may not; says why.
    """
    problem = _problem_of(name)
    if problem is not None:
        from mobile_bench.errors import one_line  # only here: whoever reads a file imports this

        shown = one_line(name) if isinstance(name, str) else name
        raise UsageError(f"{what} is called {shown!r}, but a name {problem}.")
    return name


def printable(text: str) -> str:
    """Text of others in lines of ours, for a terminal or a page.

    Escape sequences, marks that turn the direction of text, and what else cannot be seen are
    spelled out; lines stay lines.
    """
    from mobile_bench.errors import one_line

    return "\n".join(one_line(line, _LONGEST_LINE) for line in text.split("\n"))


def _problem_of(name: object) -> str | None:
    if not isinstance(name, str):
        return "is a text"
    if not name.strip():
        return "is not empty"
    if not name.isprintable():
        return "has only characters that can be printed"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"has at most {MAX_NAME_BYTES} bytes"
    if "/" in name or "\\" in name:
        return "has no slashes: it is one part of a path"
    if name[0] in ".-" or name != name.strip():
        return "begins with neither a dot, a hyphen nor a space, and does not end with a space"
    return None
