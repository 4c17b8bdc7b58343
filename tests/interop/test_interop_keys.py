"""The reference's keys: one form for all spellings, and a key for every variable."""

from __future__ import annotations

import pytest

from ofa_tf.interop.keys import canonical, close_gaps, tensors
from ofa_tf.models import Supernet, build_subnet
from ofa_tf.spaces import get_space, list_spaces


@pytest.mark.parametrize(
    "spellings",
    [
        (
            "blocks.3.conv.depth_conv.conv.weight",
            "blocks.3.conv.depth_conv.conv.conv.weight",
            "blocks.3.mobile_inverted_conv.depth_conv.conv.conv.weight",
            "module.blocks.3.mobile_inverted_conv.depth_conv.conv.weight",
        ),
        ("input_stem.1.conv.conv.weight", "input_stem.1.conv.conv.conv.weight"),
        ("input_stem.1.conv.bn.bias", "input_stem.1.conv.bn.bn.bias"),
        ("blocks.2.downsample.bn.weight", "blocks.2.downsample.bn.bn.weight"),
        ("classifier.linear.bias", "classifier.linear.linear.bias"),
    ],
)
def test_spellings_meet(spellings):
    assert len({canonical(spelling) for spelling in spellings}) == 1


@pytest.mark.parametrize("name", list_spaces())
def test_keys_differ_in_every_form(name):
    """No two tensors of a network meet in one canonical key."""
    space = get_space(name)
    table = list(tensors(space.blueprint(space.max()), space.kernel_sizes))
    for keys in ([t.key for t in table], [t.elastic_key for t in table]):
        assert len({canonical(key) for key in keys}) == len(table)
    assert [canonical(t.key) for t in table] == [canonical(t.elastic_key) for t in table]


@pytest.mark.parametrize("name", ["ofa_mbv3_tiny", "ofa_resnet_tiny", "ofa_proxyless_w1.3"])
def test_every_variable_has_a_key(name):
    space = get_space(name)
    plan = space.blueprint(space.max())
    assert len(list(tensors(plan, space.kernel_sizes))) == len(Supernet(space).variables)
    plan = space.blueprint(space.min())
    weights = [v for v in build_subnet(plan).variables if "seed" not in v.path]
    assert len(list(tensors(plan))) == len(weights)


def test_gaps_are_closed():
    keys = [
        "first_conv.conv.weight",
        "module.blocks.0.a",
        "blocks.4.b",
        "blocks.4.c",
        "blocks.10.d",
    ]
    assert list(close_gaps(keys).values()) == [
        "first_conv.conv.weight",
        "module.blocks.0.a",
        "blocks.1.b",
        "blocks.1.c",
        "blocks.2.d",
    ]
