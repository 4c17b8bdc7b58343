"""check_space: every space passes, and each thing that can be wrong is named."""

from __future__ import annotations

import dataclasses

import pytest
from document import FILES
from spaces_helpers import own_spaces

from ofa_tf.errors import UsageError
from ofa_tf.spaces import check_space, get_space, list_spaces
from ofa_tf.spaces.blueprint import Conv

TINY = get_space("ofa_mbv3_tiny")


@pytest.mark.parametrize(
    "space", [*map(get_space, list_spaces()), *own_spaces()], ids=lambda space: space.name
)
def test_every_space_passes(space):
    check_space(space)


def test_own_spaces_are_those_of_the_page():
    assert {space.name for space in own_spaces()} == {"my_space", "plain_small", "plain"}
    assert {space.source for space in own_spaces()} == set(FILES.values())


def refused(space, *parts) -> None:
    with pytest.raises(UsageError) as caught:
        check_space(space)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"name": ""}, ["name", "''"]),
        ({"name": "a/b"}, ["name", "'a/b'"]),
        ({"name": "a.py"}, ["name", "'a.py'"]),  # it would read as a file
        ({"name": 3}, ["name", "3"]),
        ({"depths": ()}, ["depths of ofa_mbv3_tiny", "()"]),
        ({"depths": [1, 2]}, ["depths", "a tuple", "[1, 2]"]),
        ({"depths": (2, 1)}, ["depths", "ascending", "(2, 1)"]),
        ({"depths": (1, 1)}, ["depths", "each once"]),
        ({"depths": (-1, 1)}, ["depths", "from 0"]),
        ({"depths": (True,)}, ["depths", "(True,)"]),
        ({"kernel_sizes": (3, 4)}, ["kernel_sizes", "odd numbers from 3 to 9", "(3, 4)"]),
        ({"kernel_sizes": (1, 3)}, ["kernel_sizes", "(1, 3)"]),
        ({"expand_ratios": (0, 1)}, ["expand_ratios", "above 0"]),
        ({"expand_ratios": ("2",)}, ["expand_ratios", "('2',)"]),
        ({"expand_ratios": (float("inf"),)}, ["expand_ratios", "inf"]),
        ({"resolutions": (31.5,)}, ["resolutions", "whole numbers", "31.5"]),
        ({"resolutions": (4, 32)}, ["resolutions", "at least 8 pixels", "not 4"]),
        ({"widths": (0, 1)}, ["widths", "is ()", "(0, 1)"]),
        ({"depths": (0, 1, 2)}, ["stage0_block0", "not in every arch", "keeps"]),
        ({"depths": (1,)}, ["Stage 0 has 2 blocks", "[1] run at most 1", "blocks=1"]),
        ({"depths": (1, 3)}, ["Stage 0 has 2 blocks", "at most 1"]),
        ({"parent": TINY}, ["restriction"]),
    ],
)
def test_fields(fields, parts):
    refused(dataclasses.replace(TINY, **fields), *parts)


def test_fields_of_a_family():
    resnet = get_space("ofa_resnet_tiny")
    refused(dataclasses.replace(resnet, widths=()), "widths", "(0, 1, ...)")
    refused(dataclasses.replace(resnet, widths=(1, 2)), "widths", "(1, 2)")
    refused(dataclasses.replace(resnet, widths=(0, 1, 2)), "width_mults (0.5, 1.0)", "(0, 1, 2)")
    refused(dataclasses.replace(resnet, depths=(0, 1, 2)), "extra_blocks", "1, not 2")
    stages = list(TINY.family.stages)
    listed = dataclasses.replace(TINY.family, stages=stages)
    refused(dataclasses.replace(TINY, family=listed), "hashable", "frozen=True", "tuples")
    loud = stages[0]._replace(activation="gelu")
    refused(with_family(stages=(loud, *stages[1:])), "stage0_block0", "'gelu'", "relu6")
    wide = stages[0]._replace(stride=3)
    refused(with_family(stages=(wide, *stages[1:])), "stage0_block0", "stride 3", "1, 2")
    refused(with_family(stages=()), "no stage")


def with_family(**changes):
    return dataclasses.replace(TINY, family=dataclasses.replace(TINY.family, **changes))


@dataclasses.dataclass(frozen=True)
class Changed:
    """The family of the tiny space, whose plans go through a function."""

    change: object
    num_widths = 0

    def stage_runs(self, depths):
        return TINY.family.stage_runs(depths)

    def blueprint(self, arch, num_classes):
        plan = TINY.family.blueprint(arch, num_classes)
        return dataclasses.replace(plan, blocks=tuple(self.change(arch, list(plan.blocks))))


def replaced(block_name, when=lambda arch: True, **fields):
    """A change of the fields of one block, in some archs."""

    def change(arch, blocks):
        return [
            dataclasses.replace(block, **fields)
            if block.name == block_name and when(arch)
            else block
            for block in blocks
        ]

    return change


def is_deep(arch):
    return arch.depths[0] == 2


def without(place, when):
    """A change that leaves a block out, in some archs."""
    return lambda arch, blocks: blocks[:place] + blocks[place + when(arch) :]


def wider_with_the_neighbor(arch, blocks):
    """The middle of the first block is that of the second's expand ratio."""
    ratio = arch.expand_ratios[1] or 4
    return replaced("stage0_block0", mid_channels=8 * ratio)(arch, blocks)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (replaced("first", in_channels=16), ["first takes 16 x 16 x 16", "16 x 16 x 8"]),
        (replaced("stem", in_channels=1), ["stem takes 32 x 32 x 1", "x 3"]),
        (replaced("stage1_block0", in_size=5), ["stage1_block0 takes 5 x 5"]),
        (replaced("stage1_block0", name="stage0_block0"), ["stage0_block0", "several blocks"]),
        (replaced("stem", name="the stem"), ["'the stem'", "letters"]),
        (replaced("stem", kernel_size=4), ["stem", "kernel 4", "odd"]),
        (replaced("stem", kernel_size=3.0), ["stem", "kernel_size 3.0", "whole"]),
        (replaced("first", shortcut=1.5), ["first", "shortcut 1.5", "True, False"]),
        (replaced("stage1_block0", shortcut=True), ["stage1_block0 has a shortcut"]),
        (replaced("first", mid_channels=16), ["first has 16 middle channels", "8 of its input"]),
        (replaced("classifier", out_channels=7), ["classifier has 7 outputs", "num_classes"]),
        (lambda arch, blocks: blocks[:-1], ["Classifier last"]),
        (lambda arch, blocks: [*blocks[:-3], *blocks[-2:]], ["one GlobalPool"]),
        (lambda arch, blocks: [*blocks, "dense"], ["'dense' is a str", "Conv, InvertedResidual"]),
        (lambda arch, blocks: blocks[::-1], ["Classifier last"]),
        (replaced("stage0_block0", position=3), ["positions and kernels", "(3, "]),
        (replaced("stage0_block0", kernel_size=3), ["positions and kernels", "(0, 3)"]),
        (replaced("stage1_block0", is_deep, se_channels=0), ["stage1_block0 has se_channels"]),
        (replaced("stem", is_deep, activation="relu"), ["stem has the activation", "largest net"]),
        (replaced("stage0_block0", is_deep, mid_channels=8), ["stage0_block0 has mid_channels"]),
        (without(2, is_deep), ["stage0_block1 takes 16 x 16 x 16"]),
        (wider_with_the_neighbor, ["lets a block depend on choices that are not its own"]),
    ],
)
def test_networks(change, parts):
    refused(dataclasses.replace(TINY, family=Changed(change)), "ofa_mbv3_tiny", *parts)


def test_what_no_supernet_can_slice():
    """A convolution between the stages whose kernel depends on the arch."""

    def change(arch, blocks):
        conv = Conv("extra", blocks[0].out_size, 8, 8, arch.kernel_sizes[0], 1, "relu")
        return [blocks[0], conv, *blocks[1:]]

    refused(
        dataclasses.replace(TINY, family=Changed(change)),
        "extra changes kernel_size",
        "active, out_channels of a Conv",
    )


def test_channels_that_depend_on_the_resolution():
    def change(arch, blocks):
        return replaced("stage0_block0", mid_channels=arch.resolution)(arch, blocks)

    refused(dataclasses.replace(TINY, family=Changed(change)), "other channels at 32", "at 24")
