"""Arch: the published spelling in and out, and what is said about a wrong one."""

from __future__ import annotations

import json

import hypothesis
import numpy as np
import pytest
from spaces_helpers import SEEDS, any_space

from ofa_tf.errors import UsageError
from ofa_tf.spaces import Arch, get_space

TINY = {
    "ks": [3, 5, 7, 3, 5, 7],
    "e": [2, 3, 4, 2, 3, 4],
    "d": [1, 2, 2],
    "r": 28,
}


def changed(**changes) -> dict:
    return {**TINY, **changes}


def test_from_dict_reads_the_published_spelling():
    arch = Arch.from_dict({"ks": [3, 5], "e": [4, 0.25], "d": [2], "w": [1], "r": 160})
    assert arch == Arch((2,), (3, 5), (4, 0.25), 160, (1,))
    assert Arch.from_dict({"wid": None, **changed(r=[28])}).resolution == 28


@hypothesis.given(space=any_space(), seed=SEEDS)
def test_json_round_trip(space, seed):
    arch = space.sample(np.random.default_rng(seed))
    text = arch.to_json()
    assert "\n" not in text
    assert json.loads(text) == arch.to_dict()
    assert Arch.from_json(text) == arch
    assert hash(Arch.from_json(text)) == hash(arch)


def test_to_dict_has_widths_only_where_there_are_some():
    assert list(Arch.from_dict(TINY).to_dict()) == ["ks", "e", "d", "r"]
    assert Arch((1,), (3,), (2,), 24, (0.65,)).to_dict()["w"] == [0.65]


def test_two_spellings_of_one_subnet_are_equal_in_canonical_form():
    space = get_space("ofa_mbv3_tiny")
    one, other = changed(ks=[3, 5, 7, 3, 5, 7]), changed(ks=[3, 999, 7, 3, 5, 7])
    assert Arch.from_dict(one) != Arch.from_dict(other)
    assert space.arch(one) == space.arch(other)
    assert space.arch(one).kernel_sizes == (3, 0, 7, 3, 5, 7)
    assert space.arch(one).expand_ratios == (2, 0, 4, 2, 3, 4)
    assert space.arch(one) != space.arch(changed(ks=[5, 5, 7, 3, 5, 7]))


def test_whole_floats_are_read_as_ints():
    arch = Arch.from_json('{"ks": [3.0], "e": [2.0], "d": [1.0], "r": 24.0}')
    assert arch.to_json() == '{"ks": [3], "e": [2], "d": [1], "r": 24}'


@pytest.mark.parametrize(
    ("choices", "parts"),
    [
        ({"ks": [3], "e": [2], "d": [1]}, ["ks, e, d and r", "missing: ['r']"]),
        (changed(ks=None), ["missing: ['ks']"]),
        (changed(depth=[1]), ["unknown: ['depth']"]),
        (changed(ks=["3"] * 6), ["ks", "numbers", "'3'"]),
        (changed(e=[True] * 6), ["e holds numbers", "True"]),
        (changed(ks=[[3]] * 6), ["ks", "numbers"]),
        (changed(ks=[float("nan")] * 6), ["ks", "numbers", "nan"]),
        (changed(r=float("inf")), ["r holds", "numbers", "inf"]),
        (changed(r=[24, 28]), ["one resolution", "[24, 28]"]),
        ([1, 2], ["JSON object", "[1, 2]"]),
        (None, ["JSON object", "None"]),
    ],
)
def test_from_dict_says_what_is_wrong(choices, parts):
    with pytest.raises(UsageError) as caught:
        Arch.from_dict(choices)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_from_json_says_where_the_text_ends_to_be_json():
    with pytest.raises(UsageError, match=r"not JSON: .*line 1 column 8"):
        Arch.from_json('{"ks": ')
    with pytest.raises(UsageError, match="ks holds numbers"):
        Arch.from_json('{"ks": [NaN], "e": [2], "d": [1], "r": 24}')


@pytest.mark.parametrize(
    ("choices", "parts"),
    [
        (changed(ks=[3, 5, 9, 3, 5, 7]), ["kernel_sizes", "position 2", "[3, 5, 7]", "not 9"]),
        (changed(e=[2, 3, 4, 2, 3, 6]), ["expand_ratios", "position 5", "[2, 3, 4]", "not 6"]),
        (changed(d=[1, 2, 3]), ["depths", "stage 2", "[1, 2]", "not 3"]),
        (changed(d=[1, 1.5, 2]), ["depths", "stage 1", "[1, 2]", "not 1.5"]),
        (changed(r=26), ["resolution", "28", "not 26"]),
        (changed(ks=[3] * 20), ["6 kernel_sizes", "not 20"]),
        (changed(e=[2]), ["6 expand_ratios", "not 1"]),
        (changed(d=[]), ["3 depths", "not 0"]),
        (changed(w=[1.0]), ["0 widths", "not 1"]),
    ],
)
def test_an_arch_outside_the_space_is_refused_by_name(choices, parts):
    space = get_space("ofa_mbv3_tiny")
    for method in (space.arch, space.blueprint, space.sizes, lambda c: space.encode([c])):
        with pytest.raises(UsageError) as caught:
            method(choices)
        assert all(part in str(caught.value) for part in ["ofa_mbv3_tiny", *parts])


def test_a_restricted_space_refuses_what_it_left_out():
    space = get_space("ofa_mbv3_tiny").restrict(kernel_sizes=[7], depths=[2])
    with pytest.raises(UsageError, match=r"depths .* stage 0 is one of \[2\], not 1"):
        space.arch(TINY)
    with pytest.raises(UsageError, match=r"kernel_sizes .* position 1 is one of \[7\], not 5"):
        space.arch(changed(d=[2, 2, 2], ks=[7, 5, 7, 7, 7, 7]))
