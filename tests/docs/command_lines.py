"""What a command line in a page is checked for without being run: names, flags, files."""

from __future__ import annotations

import configparser
import contextlib
import functools
import importlib
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from absl import flags
from cli_helpers import own_flags
from pages import ROOT

from mobile_bench import cli as mobile_bench_cli

_OF_ALL = ("flagfile", "help", "preset", "version")  # flags of each ofa-...
_UNCHECKED = ("adb", "export", "mkdir", "tensorboard", "time", "wait")


def strip(words: Sequence[str]) -> list[str]:
    """A command without the variables before it, `&` behind it, and `...` for what is left out."""
    words = [word for word in words if word not in ("&", "...")]
    while words and re.match(r"\w+=", words[0]):
        words.pop(0)
    return words


def check(words: Sequence[str]) -> None:
    """Raises AssertionError where a command or something in it does not exist.

    `mobile-bench` is run: there must be nothing that it could measure.
    """
    name, *arguments = strip(words)
    if name.startswith("ofa-"):
        check_flags(name, arguments)
    elif name in _CHECKS:
        _CHECKS[name](arguments)
    else:
        assert name in _UNCHECKED, f"teach tests/docs/command_lines.py the command {name!r}"


def module_of(command: str):
    """The module of a command ofa-..., by its entry point."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    scripts = dict(
        line.split(" = ")
        for line in setup["options.entry_points"]["console_scripts"].split("\n")[1:]
    )
    assert command in scripts, f"there is no command {command}"
    return importlib.import_module(scripts[command].partition(":")[0])


def check_flags(command: str, arguments: Sequence[str]) -> None:
    """A command ofa-... with its presets and flags, parsed by itself; it is not run."""
    argv = [command, *arguments]
    if not any(argument.startswith("--workdir=") for argument in arguments):
        argv.append("--workdir=DIR")
    errors = io.StringIO()
    with (
        own_flags(),
        mock.patch.object(sys, "argv", argv),
        mock.patch("absl.app.run", lambda main, flags_parser: flags_parser(argv)),
        contextlib.redirect_stderr(errors),
    ):
        try:
            module_of(command).main()
        except SystemExit:
            raise AssertionError(f"{' '.join(argv)}\n{errors.getvalue()}") from None


@functools.cache
def known_flags(command: str) -> dict[str, flags.Flag]:
    """The flags of a command ofa-..., by name."""
    found = {}

    def collect(main: Callable, flags_parser: Callable) -> None:
        found.update({name: flags.FLAGS[name] for name in flags.FLAGS})

    with own_flags(), mock.patch("absl.app.run", collect):
        module_of(command).main()
    return found


def has_flag(command: str, text: str) -> bool:
    """Whether a command has the flag of `--name` or `--name=value`, and takes the value.

    Args:
        command: ofa-..., mobile-bench, or a script of this project.
        text: the flag.
    """
    name, equals, value = text.removeprefix("--").partition("=")
    if command == "mobile-bench":
        return _mobile_bench_has(name, text if equals else "")
    if command.endswith(".py"):
        return f'"--{name}"' in Path(ROOT, command).read_text(encoding="utf-8")
    known = known_flags(command)
    if name not in known:
        negated = name.removeprefix("no")
        return name in _OF_ALL or (negated in known and known[negated].boolean and not equals)
    try:
        if equals:
            known[name].parser.parse(value)
    except ValueError:
        return False
    return True


def _mobile_bench_has(name: str, text: str) -> bool:
    helps = io.StringIO()
    with contextlib.redirect_stdout(helps):
        mobile_bench_cli.main(["mobile-bench", "--help"])
        mobile_bench_cli.main(["mobile-bench", "table", "--help"])
    if f"  --{name}: " not in helps.getvalue():
        return False
    try:
        check(
            [
                "mobile-bench",
                "runs/quickstart/subnets/NAME/model_int8.tflite",
                *filter(None, [text]),
            ]
        )
    except AssertionError:
        return False
    return True


def _check_mobile_bench(arguments: Sequence[str]) -> None:
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        code = mobile_bench_cli.main(["mobile-bench", *arguments])
    assert code == 0, f"mobile-bench {' '.join(arguments)}\n{errors.getvalue()}"


def _check_make(arguments: Sequence[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in arguments:
        assert target in targets or "=" in target, f"make has no target {target}"


def _check_python(arguments: Sequence[str]) -> None:
    script, *options = arguments
    if script in ("-c", "tune.py"):  # which the page tells to write
        return
    for option in options:
        assert not option.startswith("--") or has_flag(script, option), f"{script} has no {option}"


def _check_pytest(arguments: Sequence[str]) -> None:
    for argument in arguments:
        assert not argument.startswith("tests/") or Path(ROOT, argument).exists(), argument


def _check_pip(arguments: Sequence[str]) -> None:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    for extra in re.findall(r"\[(.+)\]", " ".join(arguments)):
        assert extra in setup["options.extras_require"], f"there is no extra {extra}"


_CHECKS = {
    "mobile-bench": _check_mobile_bench,
    "make": _check_make,
    "python": _check_python,
    "pytest": _check_pytest,
    "pip": _check_pip,
}
