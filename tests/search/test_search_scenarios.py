"""Scenarios files: what they say, and what is said of a wrong one."""

from __future__ import annotations

import pathlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_tf.errors import UsageError
from ofa_tf.search.measures import MEASURES
from ofa_tf.search.scenarios import Scenario, read_scenarios, scenario_name

GOOD = """\
devices:
  note10: tables/note10
  pi: pi.json
scenarios:
  - note10_ms: [18, 20.5]
  - name: both
    note10_ms: 30
    pi_ms: 120
    file_kb: 6e3
  - name: small
    latency_ms: [1, 2]
    macs_m: [10, 20]
"""


def written(tmp_path: pathlib.Path, text: str) -> pathlib.Path:
    path = tmp_path / "scenarios.yaml"
    path.write_text(text)
    return path


def test_lists_make_every_combination(tmp_path):
    found = read_scenarios(written(tmp_path, GOOD))
    assert found.tables == {"note10_ms": tmp_path / "tables/note10", "pi_ms": tmp_path / "pi.json"}
    assert found.scenarios == (
        Scenario("note10_18ms", {"note10_ms": 18}),
        Scenario("note10_20.5ms", {"note10_ms": 20.5}),
        Scenario("both", {"note10_ms": 30, "pi_ms": 120, "file_kb": 6000}),
        Scenario("small-1ms-macs_10m", {"latency_ms": 1, "macs_m": 10}),
        Scenario("small-1ms-macs_20m", {"latency_ms": 1, "macs_m": 20}),
        Scenario("small-2ms-macs_10m", {"latency_ms": 2, "macs_m": 10}),
        Scenario("small-2ms-macs_20m", {"latency_ms": 2, "macs_m": 20}),
    )


def test_devices_are_not_needed(tmp_path):
    found = read_scenarios(written(tmp_path, "scenarios: [{latency_ms: 20}]"))
    assert found.tables == {}
    assert found.scenarios == (Scenario("20ms", {"latency_ms": 20.0}),)


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("pi_ms: 120", "pi_sm: 120"), 8, "no key 'pi_sm' here; did you mean 'pi_ms'?"),
        (("scenarios:", "scenario:"), 4, "no key 'scenario' here; did you mean 'scenarios'?"),
        (("macs_m", "watts"), 12, "no key 'watts' here; known: name, latency_ms, macs_m,"),
        (("30", "0"), 7, "note10_ms is a positive number, not '0'"),
        (("30", "-3"), 7, "note10_ms is a positive number, not '-3'"),
        (("30", ".nan"), 7, "note10_ms is a positive number, not '.nan'"),
        (("30", "inf"), 7, "note10_ms is a positive number, not 'inf'"),
        (("30", "soon"), 7, "note10_ms is a positive number, not 'soon'"),
        (("30", "{a: 1}"), 7, "here belongs one value"),
        (("[18, 20.5]", "[]"), 5, "note10_ms has no value"),
        (("[18, 20.5]", "[18, 18.0]"), 5, "there is a scenario 'note10_18ms' already"),
        (("name: small", "name: both"), None, None),
        (("name: both", "name: ../both"), 6, "the name '../both' is not made of letters"),
        (("pi: pi.json", "note10: pi.json"), 3, "the key 'note10' is here twice"),
        (("pi: pi.json", "latency: pi.json"), 3, "'latency' cannot be the name of a device"),
        (("pi: pi.json", "pi: [a, b]"), 3, "here belongs one value"),
        (("  - name: small\n", "  - \n"), None, None),
        (("name: both\n    note10_ms: 30", "name: both\n   note10_ms: 30"), 7, "this is no YAML"),
    ],
)
def test_the_line_is_named(tmp_path, change, line, said):
    assert change[0] in GOOD
    path = written(tmp_path, GOOD.replace(*change, 1))
    if line is None:  # these stay right
        assert read_scenarios(path).scenarios
        return
    with pytest.raises(UsageError) as raised:
        read_scenarios(path)
    assert str(raised.value).startswith(f"{path}, line {line}: ")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; it needs `scenarios:`"),
        ("20", "line 1: here belong keys with values"),
        ("scenarios:", "line 1: here belongs a list of scenarios"),
        ("scenarios: {latency_ms: 3}", "line 1: here belongs a list of scenarios"),
        ("scenarios: []", "line 1: here belongs a list of scenarios"),
        ("scenarios:\n  - name: x", "line 2: a scenario needs a limit: latency_ms, macs_m"),
        ("devices: {pi: a.json}", "line 1: `scenarios:` is missing"),
        ("scenarios: [&a {latency_ms: 1}, *b]", "line 1: this is no YAML: found undefined alias"),
    ],
)
def test_other_shapes(tmp_path, text, said):
    with pytest.raises(UsageError) as raised:
        read_scenarios(written(tmp_path, text))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scenarios: [{latency_ms: 1\a}]", "cannot be read: unacceptable character #x0007"),
        ("scenarios: \x1b[31m", "cannot be read: unacceptable character #x001b"),
        ("[" * 5000, "cannot be read: line 1: it is nested too deeply."),
        ("- " * 5000 + "a", "cannot be read: line 1: it is nested too deeply."),
        ("scenarios:\n - &a {name: *a, latency_ms: 1}", "line 2: here belongs one value"),
        (
            "scenarios: [!!python/object:os.system {}]",
            "line 1: there is a tag, tag:yaml.org,20",
        ),
        ("#" * 200_000, "cannot be read: it has more than 100,000 bytes."),
        (
            f"scenarios:\n  - {{latency_ms: &a {list(range(1, 2001))}, macs_m: *a}}",
            "line 2: its values make 4,000,000 scenarios, a subnet each; a file has up to 1000.",
        ),
        (
            "scenarios:\n" + "".join(f"  - latency_ms: {ms}\n" for ms in range(1, 1100)),
            "line 1002: there are more than 1000 scenarios.",
        ),
        (f"scenarios:\n  - {{name: {'x' * 300}, latency_ms: 1}}", "a name has at most 100 bytes."),
    ],
)
def test_what_is_beyond_all_bounds_is_one_message_at_once(tmp_path, text, said):
    start = time.monotonic()
    with pytest.raises(UsageError) as raised:
        read_scenarios(written(tmp_path, text))
    assert said in str(raised.value)
    assert time.monotonic() - start < 5


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml cannot be read: "):
        read_scenarios(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"scenarios: \xff")
    with pytest.raises(UsageError, match=r"latin\.yaml cannot be read: "):
        read_scenarios(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"latency_ms": 20, "macs_m": 300.0}, "20ms-macs_300m"),
        ({"macs_m": 1234567}, "macs_1234567m"),
        ({"macs_m": 1e6, "file_kb": 2.5e7}, "macs_1000000m-file_25000000kb"),
        ({"latency_ms": 0.00001}, "0.00001ms"),
        ({"latency_ms": 20.000001}, "20.000001ms"),
        ({"latency_ms": 0.1, "memory_kb": 120.5}, "0.1ms-memory_120.5kb"),
    ],
)
def test_names_are_plain_and_tell_all(limits, name):
    assert scenario_name(limits) == name


@pytest.mark.parametrize("limit", [1e300, 1e-300, float("inf")])
def test_a_limit_that_is_none_gets_no_name(limit):
    with pytest.raises(UsageError, match=r"for macs_m is none .* give 1e-09 to 1e"):
        scenario_name({"macs_m": limit})


@given(
    st.dictionaries(
        st.sampled_from(("latency_ms", *MEASURES)),
        st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=4, unique=True),
        min_size=1,
        max_size=3,
    )
)
def test_what_is_written_is_read(tmp_path_factory, limits):
    """Any numbers, any combination; every name differs, and tells its limits."""
    path = written(tmp_path_factory.mktemp("any"), f"scenarios:\n  - {limits}\n")
    found = read_scenarios(path).scenarios
    count = 1
    for values in limits.values():
        count *= len(values)
    assert len(found) == len({scenario.name for scenario in found}) == count
    for scenario in found:
        assert all(value in limits[name] for name, value in scenario.limits.items())
        assert scenario.name == scenario_name(scenario.limits)
