"""The spaces of MobileNetV3 with another activation: what of them is other, and their names."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from ofa_tf.errors import UsageError
from ofa_tf.spaces import BlockCosts, get_space, list_spaces

MOBILENET_V3 = ("ofa_mbv3_w1.0", "ofa_mbv3_w1.2", "ofa_mbv3_cifar", "ofa_mbv3_tiny")
ACTIVATIONS = ("swish", "relu6")


@pytest.mark.parametrize(("name", "activation"), list(itertools.product(MOBILENET_V3, ACTIVATIONS)))
def test_only_hard_swish_is_replaced(name, activation):
    base, space = get_space(name), get_space(f"{name}-{activation}")
    rng = np.random.default_rng(0)
    for arch in (base.max(), base.min(), base.sample(rng)):
        plan, other = base.blueprint(arch, 10), space.blueprint(arch, 10)
        used = [getattr(block, "activation", None) for block in plan.blocks]
        assert {"relu", "hard_swish"} < set(used)
        expected = [
            dataclasses.replace(block, activation=activation) if had == "hard_swish" else block
            for block, had in zip(plan.blocks, used, strict=True)
        ]
        assert list(other.blocks) == expected
        assert (other.macs, other.params) == (plan.macs, plan.params)


def test_stem_and_head_have_it_too():
    space = get_space("ofa_mbv3_w1.0-swish")
    blocks = {block.name: block for block in space.blueprint(space.max()).blocks}
    relu = [f"stage{stage}_block{block}" for stage in (0, 1) for block in range(4)]
    swish = [f"stage{stage}_block{block}" for stage in (2, 3, 4) for block in range(4)]
    assert {blocks[name].activation for name in ("first", *relu)} == {"relu"}
    head = ("stem", "final_expand", "feature_mix")
    assert {blocks[name].activation for name in (*head, *swish)} == {"swish"}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_name_alone_says_the_activation(activation):
    space = get_space("ofa_mbv3_tiny", activation)
    assert space.name == f"ofa_mbv3_tiny-{activation}"
    assert get_space(space.name) is space
    assert get_space(space.name, activation) is space
    assert get_space("ofa_mbv3_tiny").name == "ofa_mbv3_tiny"
    assert space.name not in list_spaces()
    published = get_space("ofa_mbv3_d234_e346_k357_w1.0", activation)
    assert published.name == f"ofa_mbv3_w1.0-{activation}"


def test_codes_are_those_of_the_base_and_latency_keys_are_not():
    """So a latency table of one cannot answer for the other."""
    base, space = get_space("ofa_mbv3_tiny"), get_space("ofa_mbv3_tiny-swish")
    codes = base.sample_codes(20, np.random.default_rng(0))
    assert space.decode(codes) == base.decode(codes)

    def weighted(block, resolution):  # by the activation, which MACs do not tell
        return block.macs * (2 if "swish" in block.key.split("-") else 1)

    assert (BlockCosts(space, weighted)(codes) > BlockCosts(base, weighted)(codes)).all()


@pytest.mark.parametrize("name", [name for name in list_spaces() if name not in MOBILENET_V3])
def test_other_families_have_no_choice(name):
    with pytest.raises(UsageError) as caught:
        get_space(name, "relu6")
    for part in (f"{name} cannot have", "'relu6'", "swish or relu6", *MOBILENET_V3):
        assert part in str(caught.value)
    with pytest.raises(UsageError, match=f"no search space '{name}-relu6'.*-swish or -relu6"):
        get_space(f"{name}-relu6")


@pytest.mark.parametrize(
    ("name", "activation"),
    [("ofa_mbv3_tiny", "gelu"), ("ofa_mbv3_tiny-swish", "relu6"), ("ofa_mbv3_tiny", "")],
)
def test_what_cannot_be_chosen_is_refused(name, activation):
    with pytest.raises(UsageError, match=f"{name} cannot have the activation '{activation}'"):
        get_space(name, activation)
