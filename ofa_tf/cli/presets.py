"""Presets: the recipes of flags/ by name, from any folder, as --preset=cifar10/largest.

A preset is a file of flags, below a comment that begins with its command. It may start from another
preset, by a line --preset=NAME.
"""

from __future__ import annotations

import difflib
import importlib.resources
import os
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ofa_tf.errors import UsageError

_ENDING = ".flags"
# Where the images are can be said in two ways; a preset's way gives way to a given one.
_INSTEAD = {
    "data_dir": ("dataset", "train_split", "test_split"),
    "dataset": ("data_dir", "train_split", "test_split"),
}


def expand(args: Sequence[str], known: Collection[str]) -> list[str]:
    """Replaces --preset=NAME by the preset's flags, of which those that are given win.

    Args:
        args: the flags of a command line, those of its flagfiles among them.
        known: the flags that the command has.

    Raises:
        UsageError: there is no such preset, or it is for another command.
    """
    chosen, given = split(args)
    presets = _read_all()
    flags_of_presets = []
    for name in chosen:
        if name not in presets:
            raise UsageError(_no_preset(name, fitting(known)))
        preset = _with_bases(name, presets)
        if unknown := _unknown(preset, known):
            raise UsageError(_misfit(name, presets[name], unknown, fitting(known)))
        flags_of_presets += preset
    replaced = {other for flag in given for other in _INSTEAD.get(_name(flag), ())}
    return [*(flag for flag in flags_of_presets if _name(flag) not in replaced), *given]


def split(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The values of --preset among the flags, and the other flags, in order."""
    chosen, others = [], []
    words = iter(args)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in ("--preset", "-preset"):
            chosen.append(value if equals else next(words, ""))
        else:
            others.append(word)
    return chosen, others


def fitting(known: Collection[str]) -> list[str]:
    """The names of the presets that are for a command with these flags."""
    presets = _read_all()
    return [name for name in presets if not _unknown(_with_bases(name, presets), known)]


def _read_all() -> dict[str, str]:
    """The texts of all presets, by name."""
    # An installed package has them inside; in a checkout flags/ stands beside it.
    folder = importlib.resources.files("ofa_tf") / "presets"
    if not folder.is_dir():
        folder = pathlib.Path(__file__).resolve().parents[2] / "flags"
    return {name: file.read_text(encoding="utf-8") for name, file in sorted(_files(folder))}


def _files(folder: Any, parent: str = "") -> Iterator[tuple[str, Any]]:
    """(name, file) of the presets in a folder on the disk or in an archive."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{parent}{entry.name}/")
        elif entry.name.endswith(_ENDING):
            yield parent + entry.name.removesuffix(_ENDING), entry


def _with_bases(name: str, presets: dict[str, str]) -> list[str]:
    """The flags of a preset, behind those of the presets that it starts from."""
    lines = map(str.strip, presets[name].splitlines())
    bases, own = split([line for line in lines if line.startswith("--")])
    return [*(flag for base in bases for flag in _with_bases(base, presets)), *own]


def _misfit(name: str, text: str, unknown: Sequence[str], names: Sequence[str]) -> str:
    """The message for a preset that another command knows."""
    command = text.split()[1]
    more = f" and {len(unknown) - 1} more of its flags" * (len(unknown) > 1)
    return (
        f"--preset={name} is for {command}; this command has no --{unknown[0]}{more}. Its presets: "
        f"{', '.join(names) or 'none'}."
    )


def _no_preset(name: str, names: Sequence[str]) -> str:
    """The message for a wrong name; the nearest of the right ones stands first."""
    names = sorted(names, key=lambda other: _likeness(name, other), reverse=True)
    return f"this command has no preset {name!r}; known: {', '.join(names) or 'none'}."


def _likeness(name: str, other: str) -> float:
    """How much a name has in common with another one, its beginning, or its part past folders."""
    own_part = os.path.basename(other)
    candidates = (other, other[: len(name) + 1], own_part, own_part[: len(name) + 1])
    return max(difflib.SequenceMatcher(None, name, text).ratio() for text in candidates)


def _unknown(preset: Sequence[str], known: Collection[str]) -> list[str]:
    """The flags of a preset that are not known, each once."""
    names = dict.fromkeys(map(_name, preset))
    return [name for name in names if name not in known and name.removeprefix("no") not in known]


def _name(flag: str) -> str:
    return flag.lstrip("-").partition("=")[0]
