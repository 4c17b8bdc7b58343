"""Fields: a JSON object of somebody else's, taken key by key with one message for what is wrong."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ofa_tf.errors import UsageError

_MOST = 1_000_000  # channels, or whatever a network has of anything
_REQUIRED = object()  # the default of a key that has none


class Fields:
    """The keys of one JSON object, taken one by one; values that nobody expects are refused.

    Args:
        place: the file and where the object stands in it, for messages.
        value: what stands there.
    """

    def __init__(self, place: str, value: Any):
        self.place = place
        if not isinstance(value, dict):
            raise UsageError(f"{place} is {short(value)}; expected a JSON object.")
        self._values = dict(value)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> Any:
        """A value that stays to be taken; None where there is none."""
        return self._values.get(key)

    def _take(self, key: str, default: Any = _REQUIRED) -> Any:
        if key in self._values:
            return self._values.pop(key)
        if default is _REQUIRED:
            raise UsageError(f"{self.place} has no {key!r}, which a net.config needs there.")
        return default

    def refuse(self, key: str, value: Any, reason: str) -> NoReturn:
        raise UsageError(f"{self.place}: {key} is {short(value)}, but {reason}.")

    def child(self, key: str) -> Fields:
        """A nested object."""
        return Fields(f"{self.place}: {key}", self._take(key))

    def child_or_none(self, key: str) -> Fields | None:
        """A nested object, or None where there is null."""
        value = self._take(key)
        return None if value is None else Fields(f"{self.place}: {key}", value)

    def children(self, key: str) -> list[Fields]:
        """The objects of a list that is not empty."""
        values = self._take(key)
        if not isinstance(values, list) or not values:
            self.refuse(key, values, "it has to be a list of layers")
        return [Fields(f"{self.place}: {key}[{i}]", value) for i, value in enumerate(values)]

    def whole(self, key: str, default: Any = _REQUIRED) -> Any:
        """A whole number from 1 to a million; where `default` is None, None too."""
        value = self._take(key, default)
        if value is None and default is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
            self.refuse(key, value, f"it has to be a whole number from 1 to {_MOST}")
        return value

    def kernel(self) -> int:
        """The side of a square kernel."""
        value = self.whole("kernel_size", 3)
        if value % 2 == 0:
            self.refuse("kernel_size", value, "only odd square kernels can be read")
        return value

    def number(
        self, key: str, default: Any = _REQUIRED, least: float | None = None, most: float = 1e9
    ) -> Any:
        """A number up to `most`, above 0 or from `least` on; where `default` is None, None too."""
        value = self._take(key, default)
        if value is None and default is None:
            return None
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self.refuse(key, value, "it has to be a number")
        if not (value > 0 if least is None else value >= least) or not value <= most:
            low = "above 0" if least is None else f"from {least}"
            self.refuse(key, value, f"it has to be a number {low} to {most:g}")
        return value

    def choice(self, key: str, known: dict[Any, Any], default: Any = _REQUIRED) -> Any:
        """What `known` has for the value."""
        value = self._take(key, default)
        if not isinstance(value, (str, bool)) or value not in known:
            self.refuse(key, value, f"only {short(list(known))} can be read")
        return known[value]

    def only(self, key: str, value: Any) -> None:
        """Takes a key that may be missing, and has to have one value."""
        found = self._take(key, value)
        if found != value:
            self.refuse(key, found, f"only {short(value)} can be read")

    def end(self) -> None:
        """Refuses the keys that were not taken."""
        if self._values:
            raise UsageError(f"{self.place} has unknown keys: {short(sorted(self._values))}.")


def short(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 200 else f"{text[:200]}..."
