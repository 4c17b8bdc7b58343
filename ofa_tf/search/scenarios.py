"""Scenarios: for which devices and budgets a search looks for subnets, read from a YAML file.

    devices:                       # latency tables by name; paths are relative to this file
      note10: note10               # a folder of published tables
      pi: latency_pi.json
    scenarios:                     # one subnet each; a list makes one of every value
      - note10_ms: [18, 20, 22]
      - name: both
        note10_ms: 30
        pi_ms: 120
        file_kb: 6000

`latency_ms` is the latency on the table of the command line or of the job.
"""

from __future__ import annotations

import decimal
import difflib
import hashlib
import itertools
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from ofa_tf.errors import UsageError
from ofa_tf.interop.yaml_text import read_yaml_text
from ofa_tf.names import MAX_NAME_BYTES, check_name
from ofa_tf.search.measures import MEASURES

LATENCY = "latency_ms"
_MOST_SCENARIOS = 1000  # each of which is searched for, exported and measured
_MOST_BYTES = 100_000
_SMALLEST, _LARGEST = 1e-9, 1e12  # limits, in any unit
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,-]*")


class Scenario(NamedTuple):
    """What one subnet is searched for.

    Args:
        name: of the scenario, and of the subnet's folder.
        limits: the most that each measure may be, by its name.
    """

    name: str
    limits: Mapping[str, float]


class Scenarios(NamedTuple):
    """A scenarios file.

    Args:
        tables: the latency table of each device: by the measure's name (`note10_ms`), its path.
        scenarios: in the order of the file.
    """

    tables: Mapping[str, pathlib.Path]
    scenarios: tuple[Scenario, ...]


def scenario_name(limits: Mapping[str, float]) -> str:
    """A short name that tells the limits: `20ms`, `note10_20ms-macs_300m`.

    Numbers are whole and without an exponent, so other limits have other names. What is too long
    for one is cut, and ends with a digest of it all.

    Raises:
        UsageError: a limit is so small or large that it is none.
    """
    text = "-".join(_limit_text(name, value) for name, value in limits.items())
    if len(text) > MAX_NAME_BYTES:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = f"{text[: MAX_NAME_BYTES - 9]}-{digest}"
    return text


def _limit_text(name: str, value: float) -> str:
    if not _SMALLEST <= value <= _LARGEST:
        raise UsageError(
            f"A limit of {value:g} for {name} is none that a network could meet or miss: give "
            f"{_SMALLEST:g} to {_LARGEST:g}."
        )
    what, unit = name.rsplit("_", 1)
    number = f"{decimal.Decimal(repr(float(value))).normalize():f}"
    return f"{number}{unit}" if name == LATENCY else f"{what}_{number}{unit}"


def read_scenarios(path: str | os.PathLike) -> Scenarios:
    """Reads a scenarios file.

    Raises:
        UsageError: the file cannot be read, has a key that means nothing, a value that is no
            positive number, or two scenarios of one name; says which line.
    """
    path = pathlib.Path(path)
    try:
        content = read_yaml_text(path, _MOST_BYTES, with_aliases=True)
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}, line {line}: this is no YAML: {error.problem}.") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split()).rstrip(".")  # YAML's errors have several lines
        raise UsageError(f"The scenarios file {path} cannot be read: {said}.") from error
    return _Reader(path).read(root)


class _Reader:
    """Turns the nodes of one file into scenarios; errors name the file and the line."""

    def __init__(self, path: pathlib.Path):
        self._path = path

    def read(self, root: yaml.Node | None) -> Scenarios:
        if root is None:
            raise UsageError(f"{self._path} is empty; it needs `scenarios:`.")
        parts = self._mapping(root, ("devices", "scenarios"))
        if "scenarios" not in parts:
            raise self._error(root, "`scenarios:` is missing")
        tables = self._tables(parts["devices"]) if "devices" in parts else {}
        scenarios: dict[str, Scenario] = {}
        for node in self._items(parts["scenarios"]):
            for scenario in self._scenarios(node, tables):
                if scenario.name in scenarios:
                    raise self._error(node, f"there is a scenario {scenario.name!r} already")
                scenarios[scenario.name] = scenario
                if len(scenarios) > _MOST_SCENARIOS:
                    raise self._error(node, f"there are more than {_MOST_SCENARIOS} scenarios")
        return Scenarios(tables, tuple(scenarios.values()))

    def _tables(self, node: yaml.Node) -> dict[str, pathlib.Path]:
        tables = {}
        for name, value in self._mapping(node).items():
            measure = f"{name}_ms"
            if not _NAME.fullmatch(name) or measure in (LATENCY, *MEASURES):
                raise self._error(value, f"{name!r} cannot be the name of a device")
            tables[measure] = self._path.parent / self._text(value)
        return tables

    def _scenarios(self, node: yaml.Node, tables: Mapping[str, pathlib.Path]) -> Iterator[Scenario]:
        """The scenarios of one entry: every combination of its values."""
        known = ("name", LATENCY, *MEASURES, *tables)
        parts = self._mapping(node, known)
        name = self._text(parts.pop("name")) if "name" in parts else None
        if name is not None and not _NAME.fullmatch(name):
            raise self._error(node, f"the name {name!r} is not made of letters, digits and _.,-")
        if not parts:
            raise self._error(node, f"a scenario needs a limit: {', '.join(known[1:])}")
        values = {measure: self._numbers(measure, value) for measure, value in parts.items()}
        count = math.prod(map(len, values.values()))
        if count > _MOST_SCENARIOS:
            raise self._error(
                node,
                f"its values make {count:,} scenarios, a subnet each; a file has up to "
                f"{_MOST_SCENARIOS}",
            )
        combinations = [
            dict(zip(values, combination, strict=True))
            for combination in itertools.product(*values.values())
        ]
        for limits in combinations:
            varied = {key: value for key, value in limits.items() if len(values[key]) > 1}
            try:
                parts_of_name = [name or "", scenario_name(varied if name else limits)]
                full_name = "-".join(part for part in parts_of_name if part)
                yield Scenario(check_name(full_name, "the scenario"), limits)
            except UsageError as error:
                raise self._error(node, str(error).rstrip(".")) from error

    def _numbers(self, measure: str, node: yaml.Node) -> list[float]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not nodes:
            raise self._error(node, f"{measure} has no value")
        return [self._number(measure, item) for item in nodes]

    def _number(self, measure: str, node: yaml.Node) -> float:
        text = self._text(node)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise self._error(node, f"{measure} is a positive number, not {text!r}")
        return value

    def _mapping(self, node: yaml.Node, known: tuple[str, ...] = ()) -> dict[str, yaml.Node]:
        """The values by their keys, each once and, where `known` is given, one of them."""
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, "here belong keys with values, `key: value`")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self._text(key)
            if known and name not in known:
                raise self._error(key, f"there is no key {name!r} here{_meant(name, known)}")
            if name in found:
                raise self._error(key, f"the key {name!r} is here twice")
            found[name] = value
        return found

    def _items(self, node: yaml.Node) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise self._error(node, "here belongs a list of scenarios, each with a `-`")
        return node.value

    def _text(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "here belongs one value")
        return node.value

    def _error(self, node: yaml.Node, problem: Any) -> UsageError:
        return UsageError(f"{self._path}, line {node.start_mark.line + 1}: {problem}.")


def _meant(name: str, known: tuple[str, ...]) -> str:
    """What was probably meant, or what there is."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
