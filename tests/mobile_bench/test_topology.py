"""Which cores "big", "little" and "auto" are, and the masks of cores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_bench.errors import UsageError
from mobile_bench.results import Device, parse_cpus
from mobile_bench.topology import cores_to_mask, describe_cores, resolve_cpus

THREE_CLUSTERS = (1804800,) * 4 + (2419200,) * 3 + (2841600,)
BIG_FIRST = (2000000, 2000000, 1500000, 1500000, 1500000, 1500000)
ONE_CLUSTER = (1800000,) * 4


def phone(*core_max_khz: int | None) -> Device:
    return Device("serial", "", "", "", "", "", "", (), core_max_khz)


@pytest.mark.parametrize(
    ("cpus", "frequencies", "threads", "expected"),
    [
        ("", THREE_CLUSTERS, 4, None),
        ("big", THREE_CLUSTERS, 1, (4, 5, 6, 7)),
        ("little", THREE_CLUSTERS, 1, (0, 1, 2, 3)),
        ("auto", THREE_CLUSTERS, 1, (7,)),
        ("auto", THREE_CLUSTERS, 2, (4, 7)),
        ("auto", THREE_CLUSTERS, 5, (0, 4, 5, 6, 7)),
        ("auto", THREE_CLUSTERS, 64, tuple(range(8))),
        ("big", BIG_FIRST, 1, (0, 1)),
        ("little", BIG_FIRST, 1, (2, 3, 4, 5)),
        ("auto", BIG_FIRST, 1, (0,)),
        ("big", ONE_CLUSTER, 1, (0, 1, 2, 3)),
        ("little", ONE_CLUSTER, 1, (0, 1, 2, 3)),
        ("0xf0", THREE_CLUSTERS, 1, (4, 5, 6, 7)),
        ("7,0-1", THREE_CLUSTERS, 1, (0, 1, 7)),
        ("0,3", (None, None, None, None), 1, (0, 3)),
        ("5", (), 1, (5,)),
    ],
)
def test_cores_are_resolved(cpus, frequencies, threads, expected):
    assert resolve_cpus(cpus, phone(*frequencies), threads) == expected


def test_only_allowed_cores_count():
    device = phone(*THREE_CLUSTERS)
    assert resolve_cpus("big", device, 1, allowed={0, 1, 4}) == (4,)
    assert resolve_cpus("auto", device, 2, allowed={0, 1, 4}) == (0, 4)
    assert resolve_cpus("little", device, 1, allowed={4, 5, 6, 7}) == (4, 5, 6)
    with pytest.raises(UsageError, match=r"may be bound to 0,1, not to 5"):
        resolve_cpus("5", device, 1, allowed={0, 1})


def test_a_core_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"serial may be bound to 0,1,2,3, not to 4,9"):
        resolve_cpus("0,4,9", phone(*ONE_CLUSTER), 1)


@pytest.mark.parametrize("frequencies", [(), (None,) * 8, (1804800,) * 4 + (None,) * 4])
@pytest.mark.parametrize("name", ["big", "little", "auto"])
def test_a_hidden_cluster_is_not_guessed(name, frequencies):
    with pytest.raises(UsageError, match=f"so {name} is not known; give core numbers"):
        resolve_cpus(name, phone(*frequencies), 1)


@given(st.sets(st.integers(0, 1023), min_size=1))
def test_a_mask_names_the_same_cores(cores):
    mask = cores_to_mask(cores)
    assert parse_cpus(f"0x{mask}") == tuple(sorted(cores))
    assert not mask.startswith(("0", "-"))


def test_cores_are_described():
    assert describe_cores(THREE_CLUSTERS) == "4x1.80 + 3x2.42 + 1x2.84"
    assert describe_cores((1000000, None, None)) == "1x1.00 + 2x?"
    assert describe_cores(()) == ""
