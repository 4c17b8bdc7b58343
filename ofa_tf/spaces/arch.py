"""Arch: the choices that make one subnet out of a supernet."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from ofa_tf.errors import UsageError
from ofa_tf.fields import Fields, is_number
from ofa_tf.files import parse_json

if TYPE_CHECKING:
    from ofa_tf.spaces.search_space import SearchSpace

# The published spelling of each field, in the order in which it is written.
_PUBLISHED_KEYS = {
    "ks": "kernel_sizes",
    "e": "expand_ratios",
    "d": "depths",
    "w": "widths",
    "r": "resolution",
}


@dataclasses.dataclass(frozen=True)
class Arch:
    """One subnet's choices. Immutable, hashable, and equal when its fields are.

    `kernel_sizes` and `expand_ratios` have one entry per block position of the largest net,
    stage by stage. `SearchSpace.arch` gives the canonical form, in which the positions that
    `depths` switches off hold 0, so that two spellings of one subnet compare equal.

    Args:
        depths: blocks run in each stage.
        kernel_sizes: kernel of each block position; 0 where switched off.
        expand_ratios: middle width of each block position over its input width (in ResNets,
            output width); 0 where switched off.
        resolution: side of the square input image in pixels.
        widths: which width multiplier each part of the network takes, as indices from the
            narrowest on, in families that have them; else empty.
    """

    depths: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[float, ...]
    resolution: int
    widths: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> Arch:
        """Reads the published spelling: `{"ks": [...], "e": [...], "d": [...], "r": 224}`.

        Families with widths have "w" too; ks may be missing where there is one kernel size.
        "image_size" is read as "r".

        Raises:
            UsageError: a key is missing or unknown, or a value is not a number.
        """
        if not isinstance(choices, dict):
            raise UsageError(f"An arch is a JSON object with ks, e, d and r, not {choices!r:.200}.")
        # The published sampler writes "wid": None for the families that have no width choice.
        given = {key: value for key, value in choices.items() if value is not None}
        if "image_size" in given and "r" not in given:
            given["r"] = given.pop("image_size")
        unknown = sorted(set(given) - set(_PUBLISHED_KEYS))
        missing = sorted({"e", "d", "r"} - set(given))
        if unknown or missing:
            raise UsageError(
                f"An arch has the keys ks, e, d and r (w where the family has widths); "
                f"missing: {missing}, unknown: {unknown!s:.200}."
            )
        if not all(isinstance(index, int) for index in _as_list(given.get("w", ()))):
            raise UsageError(
                f"An arch's w holds indices of width multipliers, 0 for the narrowest, not "
                f"{given['w']!r:.200}."
            )
        fields = {"kernel_sizes": ()} | {
            _PUBLISHED_KEYS[key]: _numbers(key, value) for key, value in given.items()
        }
        if len(fields["resolution"]) != 1:
            raise UsageError(f"An arch has one resolution r, not {given['r']!r:.200}.")
        fields["resolution"] = fields["resolution"][0]
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """The published spelling, ready for JSON."""
        choices = {}
        for key, field in _PUBLISHED_KEYS.items():
            value = getattr(self, field)
            if value != ():
                choices[key] = list(value) if isinstance(value, tuple) else value
        return choices

    @classmethod
    def from_json(cls, text: str) -> Arch:
        """Reads what `to_json` wrote. Raises UsageError when the text is no arch."""
        try:
            choices = parse_json(text)
        except ValueError as error:
            raise UsageError(f"An arch is a JSON object; this is not JSON: {error}.") from error
        return cls.from_dict(choices)

    def to_json(self) -> str:
        """One line of JSON in the published spelling."""
        return json.dumps(self.to_dict())


def read_arch(fields: Fields, space: SearchSpace) -> Arch:
    """What a JSON object has as its "arch". Raises its error where that is none of the space."""
    choices = fields.fields("arch")
    try:
        return space.arch(dict(choices.items()))
    except UsageError as error:
        raise fields.error(f"{fields.place('arch')}: {str(error).rstrip('.')}") from error


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    """A number or a list of them as a tuple, whole numbers as int."""
    values = _as_list(value)
    if not all(is_number(v) for v in values):
        raise UsageError(f"An arch's {key} holds numbers, not {value!r:.200}.")
    return tuple(int(v) if v == int(v) else float(v) for v in values)


def _as_list(value: Any) -> list | tuple:
    return value if isinstance(value, (list, tuple)) else [value]
