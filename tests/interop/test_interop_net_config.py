"""net.config: the published networks cost what was published, and every plan survives the file."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys

import interop_helpers as helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.interop import read_net_config, to_net_config, write_net_config
from ofa_tf.spaces import Blueprint, get_space, list_spaces
from ofa_tf.spaces.blueprint import (
    Bottleneck,
    Classifier,
    Conv,
    GlobalPool,
    InvertedResidual,
    MaxPool,
)


def unnamed(plan: Blueprint) -> Blueprint:
    """The plan without block names and positions, which the format does not hold."""
    blocks = []
    for block in plan.blocks:
        given = {"name": "", "position": None}
        kept = {key: given[key] for key in given if hasattr(block, key)}
        blocks.append(dataclasses.replace(block, **kept))
    return dataclasses.replace(plan, blocks=tuple(blocks))


def write_json(path, value) -> None:
    path.write_text(json.dumps(value))


def read(config, folder, resolution=None) -> Blueprint:
    """Reads a config by way of a file."""
    write_json(folder / "net.config", config)
    return read_net_config(folder / "net.config", resolution)


def example(space_name: str) -> dict:
    space = get_space(space_name)
    return to_net_config(space.blueprint(space.max(), 10))


# -- published networks ----------------------------------------------------------------------------


def test_published_networks_cost_what_was_published():
    folder = helpers.published()
    with open(folder / "specialized.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    for row in rows:
        plan = read_net_config(folder / "specialized" / row["id"] / "net.config")
        assert plan.resolution == int(row["image_size"]), row["id"]
        assert abs(plan.params / 1e6 - float(row["published_params_m"])) < 0.1, row["id"]
        if row["id"].startswith("note10_lat-8ms"):
            # The one row whose published MACs are not those of its network.
            assert plan.macs == 75_802_880
        else:
            assert abs(plan.macs / 1e6 - float(row["published_macs_m"])) < 1, row["id"]


def test_published_networks_survive_the_file(tmp_path):
    networks = sorted((helpers.published() / "specialized").iterdir())
    assert len(networks) == 25
    for network in networks:
        plan = read_net_config(network / "net.config")
        write_net_config(plan, tmp_path)
        assert read_net_config(tmp_path / "net.config") == plan, network.name


def test_published_network_has_the_names_of_its_space():
    """Where a stage runs all of its blocks, names and positions are those of the space too."""
    plan = read_net_config(
        helpers.published() / "specialized/pixel1_lat-143ms_top1-80.1_finetune-75/net.config"
    )
    space = dataclasses.replace(get_space("ofa_mbv3_w1.2"), resolutions=(plan.resolution,))
    largest = [block.name for block in space.blueprint(space.max()).blocks]
    names = [block.name for block in plan.blocks]
    assert set(names) <= set(largest)
    assert names == sorted(names, key=largest.index)
    assert [b.position for b in plan.elastic_blocks] == list(range(len(plan.elastic_blocks)))
    assert plan.blocks[1].position is None


# -- every plan of every space ---------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(list_spaces()), seed=st.integers(0, 2**32 - 1))
def test_random_plans_survive_the_file(tmp_path_factory, name, seed):
    space = get_space(name)
    plan = space.blueprint(space.sample(np.random.default_rng(seed)), num_classes=seed % 7 + 1)
    folder = tmp_path_factory.mktemp("random", numbered=True)
    write_net_config(plan, folder)
    assert unnamed(read_net_config(folder / "net.config")) == unnamed(plan)


@pytest.mark.parametrize("name", list_spaces())
def test_largest_plan_keeps_its_names(name, tmp_path):
    space = get_space(name)
    plan = space.blueprint(space.max())
    write_net_config(plan, tmp_path)
    assert read_net_config(tmp_path / "net.config") == plan


@pytest.mark.parametrize("activation", ["swish", "relu6"])
def test_another_activation_survives_the_file(activation, tmp_path):
    """The reference has no swish and refuses it by its name; relu6 it has."""
    space = get_space("ofa_mbv3_tiny", activation)
    plan = space.blueprint(space.max())
    write_net_config(plan, tmp_path)
    assert read_net_config(tmp_path / "net.config") == plan
    config = to_net_config(plan)
    assert config["first_conv"]["act_func"] == config["feature_mix_layer"]["act_func"] == activation
    used = {block["conv"]["act_func"] for block in config["blocks"]}
    assert used == {"relu", activation}


def test_depth_and_stem_of_a_resnet(tmp_path):
    space = get_space("ofa_resnet_tiny")
    smallest, largest = (space.blueprint(arch) for arch in (space.min(), space.max()))
    assert len(to_net_config(smallest)["input_stem"]) == 2
    residual = to_net_config(largest)["input_stem"][1]
    assert residual["name"] == "ResidualBlock"
    assert residual["shortcut"]["name"] == "IdentityLayer"
    write_net_config(smallest, tmp_path)
    assert unnamed(read_net_config(tmp_path / "net.config")) == unnamed(smallest)


# -- networks outside the spaces -------------------------------------------------------------------


def conv_layer(ins, outs, kernel_size=1, stride=1, **changes):
    """A ConvLayer with only the keys that the reference has no default for."""
    return {
        "name": "ConvLayer",
        "in_channels": ins,
        "out_channels": outs,
        "kernel_size": kernel_size,
        "stride": stride,
        **changes,
    }


def mb_block(ins, outs, shortcut=None, **changes):
    layer = {"name": "MBConvLayer", "in_channels": ins, "out_channels": outs, **changes}
    return {"name": "ResidualBlock", "conv": layer, "shortcut": shortcut}


IDENTITY = {"name": "IdentityLayer", "in_channels": [13], "out_channels": [13], "use_bn": False}


def test_mobile_network_of_any_widths(tmp_path):
    config = {
        "name": "ProxylessNASNets",
        "first_conv": conv_layer(1, 9, 5, 3, act_func="relu6"),
        "blocks": [
            mb_block(9, 13, expand_ratio=1, use_se=True, act_func="h_swish"),
            {"mobile_inverted_conv": {"name": "ZeroLayer"}, "shortcut": IDENTITY},
            mb_block(13, 13, IDENTITY, expand_ratio=2.3, kernel_size=9),
            mb_block(13, 13, {"name": "ZeroLayer"}, mid_channels=17, expand_ratio=None, stride=2),
            {"conv": None, "shortcut": None},
            mb_block(13, 13, IDENTITY),
        ],
        "feature_mix_layer": None,
        "classifier": {"name": "LinearLayer", "in_features": 13, "out_features": 3},
    }
    plan = read(config, tmp_path, resolution=50)
    stem, first, *blocks, pool, classifier = plan.blocks
    assert (plan.bn_momentum, plan.bn_epsilon) == (0.9, 1e-3)
    assert stem == Conv("stem", 50, 1, 9, 5, 3, "relu6")
    assert first == InvertedResidual(
        "first", None, 17, 9, 9, 13, 3, 1, "hard_swish", se_channels=8, expand=False, shortcut=False
    )
    assert [(b.name, b.position, b.shortcut) for b in blocks] == [
        ("stage0_block0", 0, True),
        ("stage1_block0", 1, False),
        ("stage1_block1", 2, True),
    ]
    assert [b.mid_channels for b in blocks] == [30, 17, 78]
    assert [b.kernel_size for b in blocks] == [9, 3, 3]
    assert [(b.in_size, b.out_size) for b in blocks] == [(17, 17), (17, 9), (9, 9)]
    assert pool == GlobalPool("pool", 9, 13)
    assert classifier == Classifier("classifier", 13, 3, 0)
    assert unnamed(read(to_net_config(plan), tmp_path, resolution=50)) == unnamed(plan)


def test_plain_resnet(tmp_path):
    """ResNet50's kind: one 7x7 convolution, shortcuts of a strided convolution."""

    def bottleneck(ins, outs, **changes):
        return {
            "name": "ResNetBottleneckBlock",
            "in_channels": ins,
            "out_channels": outs,
            "downsample_mode": "conv",
            **changes,
        }

    config = {
        "name": "ResNets",
        "bn": {"momentum": 0.05, "eps": 1e-4, "ws_eps": None},
        "input_stem": [conv_layer(3, 64, 7, 2)],
        "blocks": [
            bottleneck(64, 100),
            bottleneck(100, 100, mid_channels=44),
            bottleneck(100, 200, stride=2, expand_ratio=0.5),
        ],
        "classifier": {"name": "LinearLayer", "in_features": 200, "out_features": 3},
    }
    plan = read(config, tmp_path, resolution=100)
    assert (plan.bn_momentum, plan.bn_epsilon) == (0.95, 1e-4)
    assert plan.blocks == (
        Conv("stem0", 100, 3, 64, 7, 2, "relu"),
        MaxPool("max_pool", 50, 64, 3, 2),
        # Middle widths are rounded to multiples of 8, also those that are given.
        Bottleneck("stage0_block0", 0, 25, 64, 24, 100, 3, 1, "relu", "conv"),
        Bottleneck("stage0_block1", 1, 25, 100, 48, 100, 3, 1, "relu", "identity"),
        Bottleneck("stage1_block0", 2, 25, 100, 104, 200, 3, 2, "relu", "conv"),
        GlobalPool("pool", 13, 200),
        Classifier("classifier", 200, 3, 0),
    )
    assert read(to_net_config(plan), tmp_path, resolution=100) == plan


def test_resolution_is_the_argument_or_of_the_run_config_or_224(tmp_path):
    config = example("ofa_mbv3_tiny")
    assert read(config, tmp_path).resolution == 224
    write_json(tmp_path / "run.config", {"image_size": 40})
    assert read(config, tmp_path).resolution == 40
    assert read(config, tmp_path, resolution=36).resolution == 36


def test_written_files_are_the_published_two(tmp_path):
    space = get_space("ofa_mbv3_tiny")
    write_net_config(space.blueprint(space.max()), tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "net.config",
        "run.config",
    ]
    assert json.loads((tmp_path / "new" / "run.config").read_text()) == {"image_size": 32}
    config = json.loads((tmp_path / "new" / "net.config").read_text())
    assert config["bn"] == {"momentum": 0.1, "eps": 1e-5}
    assert config["blocks"][1]["conv"]["expand_ratio"] == 4
    with pytest.raises(FailureError, match=r"net\.config"):
        write_net_config(space.blueprint(space.max()), tmp_path / "new" / "run.config")


# -- what is refused -------------------------------------------------------------------------------


def _set(*path_and_value):
    *path, last, value = path_and_value

    def change(config):
        for key in path:
            config = config[key]
        config[last] = value

    return change


def _delete(*path):
    def change(config):
        for key in path[:-1]:
            config = config[key]
        del config[path[-1]]

    return change


FIRST = ("blocks", 1, "conv")


def _no_middle_width(config):
    config["blocks"][1]["conv"] |= {"expand_ratio": None, "mid_channels": None}


REFUSED = [
    (_no_middle_width, ["blocks[1]: conv", "expand_ratio is null"]),
    (_set("name", "ResNeXt"), ["name", "ResNeXt", "MobileNetV3"]),
    (_delete("name"), ["no 'name'"]),
    (_delete("classifier"), ["no 'classifier'"]),
    (_set("classifier", None), ["classifier", "null"]),
    (_set("blocks", []), ["blocks", "list"]),
    (_set("blocks", {"0": 1}), ["blocks", "list"]),
    (_set("blocks", [{"conv": None, "shortcut": None}]), ["blocks[0]", "do not run"]),
    (_set("blocks", 1, 7), ["blocks[1]", "7"]),
    (_delete("blocks", 1, "conv"), ["blocks[1]", "mobile_inverted_conv"]),
    (_delete("blocks", 1, "shortcut"), ["blocks[1]", "shortcut"]),
    (_set("blocks", 1, "shortcut", {"name": "ConvLayer"}), ["blocks[1]", "ConvLayer"]),
    (_set("blocks", 1, "shortcut", IDENTITY), ["blocks[1]", "shortcut", "stride"]),
    (
        _set("blocks", 2, "shortcut", {**IDENTITY, "act_func": "relu"}),
        ["blocks[2]", "act_func", "relu"],
    ),
    (_set(*FIRST, "name", "ConvLayer"), ["blocks[1]: conv", "ConvLayer", "MBConvLayer"]),
    (_set(*FIRST, "groups", 2), ["blocks[1]: conv", "groups is 2", "null"]),
    (_set(*FIRST, "act_func", "mish"), ["blocks[1]: conv", "act_func", "mish", "h_swish"]),
    (_set(*FIRST, "act_func", ["relu"]), ["blocks[1]: conv", "act_func"]),
    (_set(*FIRST, "kernel_size", 4), ["blocks[1]: conv", "kernel_size is 4", "odd"]),
    (_set(*FIRST, "kernel_size", [3, 3]), ["blocks[1]: conv", "kernel_size is [3, 3]"]),
    (_set(*FIRST, "stride", 0), ["blocks[1]: conv", "stride is 0"]),
    (_set(*FIRST, "stride", True), ["blocks[1]: conv", "stride is true"]),
    (_set(*FIRST, "in_channels", 17), ["blocks[1]: conv", "in_channels is 17", "gives 8 channels"]),
    (_delete(*FIRST, "out_channels"), ["blocks[1]: conv", "no 'out_channels'"]),
    (_set(*FIRST, "out_channels", 16.5), ["blocks[1]: conv", "out_channels is 16.5"]),
    (_set(*FIRST, "expand_ratio", "6"), ["blocks[1]: conv", 'expand_ratio is "6"']),
    (_set(*FIRST, "expand_ratio", float("nan")), ["blocks[1]: conv", "expand_ratio is NaN"]),
    (_set(*FIRST, "expand_ratio", 1), ["blocks[1]: conv", "mid_channels", "expand_ratio of 1"]),
    (_set(*FIRST, "use_se", 1.0), ["blocks[1]: conv", "use_se"]),
    (_set(*FIRST, "squeeze", 4), ["blocks[1]: conv", "unknown", "squeeze"]),
    (_set("first_conv", "dilation", 2), ["first_conv", "dilation is 2"]),
    (_set("first_conv", "groups", 2), ["first_conv", "groups is 2"]),
    (_set("first_conv", "bias", True), ["first_conv", "bias is true"]),
    (_set("first_conv", "has_shuffle", True), ["first_conv", "has_shuffle"]),
    (_set("first_conv", "use_se", True), ["first_conv", "use_se"]),
    (_set("first_conv", "dropout_rate", 0.1), ["first_conv", "dropout_rate is 0.1"]),
    (_set("first_conv", "ops_order", "bn_act_weight"), ["first_conv", "bn_act_weight"]),
    (_set("first_conv", "act_func", None), ["first_conv", "act_func is null"]),
    (_set("classifier", "in_features", 3), ["classifier", "in_features is 3", "gives"]),
    (_set("classifier", "bias", False), ["classifier", "bias is false"]),
    (_set("classifier", "use_bn", True), ["classifier", "use_bn"]),
    (_set("classifier", "name", "MultiHeadLinearLayer"), ["classifier", "MultiHead"]),
    (_set("classifier", "dropout_rate", -0.1), ["classifier", "dropout_rate is -0.1"]),
    (_set("bn", None), ["bn", "null"]),
    (_set("bn", "eps", 0), ["bn", "eps is 0"]),
    (_set("bn", "momentum", None), ["bn", "momentum is null"]),
    (_set("bn", "gn_channel_per_group", 8), ["bn", "gn_channel_per_group"]),
    (_set("bn", "ws_eps", 1e-5), ["bn", "ws_eps"]),
]


@pytest.mark.parametrize(("change", "told"), REFUSED)
def test_what_no_plan_can_hold_is_refused(change, told, tmp_path):
    config = example("ofa_mbv3_tiny")
    read(config, tmp_path)
    change(config)
    with pytest.raises(UsageError) as caught:
        read(config, tmp_path)
    for part in ("net.config", *told):
        assert part in str(caught.value)


REFUSED_RESNETS = [
    (_set("blocks", 0, "groups", 4), ["blocks[0]", "groups is 4"]),
    (_set("blocks", 0, "name", "ZeroLayer"), ["blocks[0]", "ZeroLayer"]),
    (_set("blocks", 0, "downsample_mode", "max"), ["blocks[0]", "downsample_mode", "max"]),
    (_set("input_stem", 1, "conv", None), ["input_stem[1]", "a layer and an IdentityLayer"]),
    (_set("input_stem", 1, "shortcut", None), ["input_stem[1]", "a layer and an IdentityLayer"]),
    (_set("input_stem", []), ["input_stem", "list"]),
    (_set("input_stem", 2, "act_func", "h_swish"), ["input_stem", "hard_swish", "negative"]),
    (_set("input_stem", 2, "act_func", "swish"), ["input_stem", "'swish'", "negative"]),
    (_set("input_stem", 1, "conv", "out_channels", 8), ["input_stem[1]", "shortcut"]),
]


@pytest.mark.parametrize(("change", "told"), REFUSED_RESNETS)
def test_what_no_resnet_plan_can_hold_is_refused(change, told, tmp_path):
    config = example("ofa_resnet_tiny")
    read(config, tmp_path)
    change(config)
    with pytest.raises(UsageError) as caught:
        read(config, tmp_path)
    for part in ("net.config", *told):
        assert part in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "\udcff", "[" * 100_000])
def test_damaged_files_are_refused(content, tmp_path):
    path = tmp_path / "net.config"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match=r"net\.config"):
        read_net_config(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.config"):
        read_net_config(tmp_path / "nothing.config")


@pytest.mark.parametrize("content", ["{", "{}", '{"image_size": [128, 160]}'])
def test_damaged_run_config_is_refused(content, tmp_path):
    (tmp_path / "run.config").write_text(content)
    with pytest.raises(UsageError, match=r"run\.config"):
        read(example("ofa_mbv3_tiny"), tmp_path)
    assert read(example("ofa_mbv3_tiny"), tmp_path, resolution=32).resolution == 32


def _plan_with(space_name: str, block_name: str, **changes) -> Blueprint:
    space = get_space(space_name)
    plan = space.blueprint(space.max())
    blocks = [
        dataclasses.replace(block, **changes) if block.name == block_name else block
        for block in plan.blocks
    ]
    return dataclasses.replace(plan, blocks=tuple(blocks))


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (_plan_with("ofa_mbv3_w1.0", "stage1_block1", se_channels=9), "stage1_block1"),
        (_plan_with("ofa_mbv3_w1.0", "stem", activation="tanh"), "'tanh' of stem"),
        (_plan_with("ofa_resnet50", "stage0_block1", mid_channels=90), "stage0_block1"),
        (_plan_with("ofa_resnet50", "stage0_block1", shortcut="conv"), "stage0_block1"),
        (_plan_with("ofa_resnet50", "max_pool", kernel_size=5), "max_pool"),
    ],
)
def test_what_no_config_can_hold_is_not_written(plan, told, tmp_path):
    with pytest.raises(UsageError, match=told):
        write_net_config(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_orders_of_blocks_are_not_written(tmp_path):
    plan = _plan_with("ofa_mbv3_tiny", "stem")
    part = dataclasses.replace(plan, blocks=plan.blocks[:-1])
    with pytest.raises(UsageError, match="MobileNetV3 nor ProxylessNASNets nor ResNets"):
        write_net_config(part, tmp_path)


def test_configs_are_read_without_torch_and_tensorflow():
    code = "import ofa_tf.interop, sys; print({'torch', 'tensorflow', 'keras'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
