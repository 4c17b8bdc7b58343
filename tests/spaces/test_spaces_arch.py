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


RESNET = {
    "d": [2, 0, 1, 2, 0],
    "e": [0.2, 0.25, 0.35] * 6,
    "w": [0, 1, 2, 0, 1, 2],
    "r": 160,
}


def changed(**changes) -> dict:
    return {**TINY, **changes}


def resnet(**changes) -> dict:
    return {**RESNET, **changes}


def test_from_dict_reads_the_published_spelling():
    arch = Arch.from_dict({"ks": [3, 5], "e": [4, 0.25], "d": [2], "w": [1], "r": 160})
    assert arch == Arch((2,), (3, 5), (4, 0.25), 160, (1,))
    assert Arch.from_dict({"wid": None, **changed(r=[28])}).resolution == 28
    assert Arch.from_dict({"image_size": 28, **changed(r=None)}).resolution == 28


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
    assert get_space("ofa_resnet50").arch(RESNET).to_dict()["w"] == [0, 1, 2, 0, 1, 2]


def test_two_spellings_of_one_subnet_are_equal_in_canonical_form():
    space = get_space("ofa_mbv3_tiny")
    one, other = changed(ks=[3, 5, 7, 3, 5, 7]), changed(ks=[3, 999, 7, 3, 5, 7])
    assert Arch.from_dict(one) != Arch.from_dict(other)
    assert space.arch(one) == space.arch(other)
    assert space.arch(one).kernel_sizes == (3, 0, 7, 3, 5, 7)
    assert space.arch(one).expand_ratios == (2, 0, 4, 2, 3, 4)
    assert space.arch(one) != space.arch(changed(ks=[5, 5, 7, 3, 5, 7]))


def test_a_resnet_is_spelled_as_published():
    """Its one kernel may be left out; stages 0 to 3 have 2, 2, 4, 2 blocks beyond their depth."""
    space = get_space("ofa_resnet50")
    arch = space.arch(RESNET)
    assert arch.depths == (2, 0, 1, 2, 0)
    assert arch.widths == (0, 1, 2, 0, 1, 2)
    runs = [1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    assert arch.kernel_sizes == tuple(3 * run for run in runs)
    assert arch.expand_ratios == tuple(e * r for e, r in zip(RESNET["e"], runs, strict=True))
    assert space.arch(resnet(ks=[3] * 18)) == arch
    assert space.arch(Arch.from_json(arch.to_json())) == arch
    assert space.arch(resnet(d=[0, 0, 1, 2, 0])) != arch
    with pytest.raises(UsageError, match="6 kernel_sizes, not 0"):
        get_space("ofa_mbv3_tiny").arch(changed(ks=None))


def test_whole_floats_are_read_as_ints():
    arch = Arch.from_json('{"ks": [3.0], "e": [2.0], "d": [1.0], "r": 24.0}')
    assert arch.to_json() == '{"ks": [3], "e": [2], "d": [1], "r": 24}'


@pytest.mark.parametrize(
    ("choices", "parts"),
    [
        ({"ks": [3], "e": [2], "d": [1]}, ["ks, e, d and r", "missing: ['r']"]),
        (changed(e=None), ["missing: ['e']"]),
        (changed(image_size=28), ["unknown: ['image_size']"]),
        (resnet(w=[0, 0.65, 1.0, 0, 1, 2]), ["w holds indices", "0 for the narrowest", "0.65"]),
        (resnet(w=[True] * 6), ["w holds", "True"]),
        (resnet(w="012012"), ["w holds indices", "'012012'"]),
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
        (changed(w=[1]), ["0 widths", "not 1"]),
    ],
)
def test_an_arch_outside_the_space_is_refused_by_name(choices, parts):
    space = get_space("ofa_mbv3_tiny")
    for method in (space.arch, space.blueprint, space.sizes, lambda c: space.encode([c])):
        with pytest.raises(UsageError) as caught:
            method(choices)
        assert all(part in str(caught.value) for part in ["ofa_mbv3_tiny", *parts])


@pytest.mark.parametrize(
    ("choices", "parts"),
    [
        (resnet(d=[1, 0, 1, 2, 0]), ["depths", "stage 0", "stem", "[0, 2]", "not 1"]),
        (resnet(d=[2, 0, 1, 3, 0]), ["depths", "stage 3", "[0, 1, 2]", "not 3"]),
        (resnet(w=[0, 1, 3, 0, 1, 2]), ["widths", "place 2", "[0, 1, 2]", "not 3"]),
        (resnet(w=[0, 1]), ["6 widths", "not 2"]),
        (resnet(w=None), ["6 widths", "not 0"]),
        (resnet(ks=[5] * 18), ["kernel_sizes", "position 0", "[3]", "not 5"]),
        (resnet(e=[0.2, 0.3] * 9), ["expand_ratios", "position 1", "[0.2, 0.25, 0.35]", "not 0.3"]),
    ],
)
def test_a_resnet_outside_the_space_is_refused_by_name(choices, parts):
    with pytest.raises(UsageError) as caught:
        get_space("ofa_resnet50").arch(choices)
    assert all(part in str(caught.value) for part in ["ofa_resnet50", *parts]), str(caught.value)


def test_a_restricted_space_refuses_what_it_left_out():
    space = get_space("ofa_mbv3_tiny").restrict(kernel_sizes=[7], depths=[2])
    with pytest.raises(UsageError, match=r"depths .* stage 0 is one of \[2\], not 1"):
        space.arch(TINY)
    with pytest.raises(UsageError, match=r"kernel_sizes .* position 1 is one of \[7\], not 5"):
        space.arch(changed(d=[2, 2, 2], ks=[7, 5, 7, 7, 7, 7]))
