"""The PyTorch reference's side of train_step.py: `pip install ofa torch`."""

# ruff: noqa: E402 (imports that come after the stand-in for torchvision)

from __future__ import annotations

import sys
import time
import types

import numpy as np
from workers import Setting

import ofa_tf
from ofa_tf.spaces import Arch, SearchSpace, blueprint


class _Anything(types.ModuleType):
    """Stands in for a module of which only names are taken."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


try:
    import torchvision
except ImportError:
    # The reference imports it for its data pipelines, which take no part here.
    torchvision = sys.modules["torchvision"] = _Anything("torchvision")
    for name in ("transforms", "transforms.functional", "datasets"):
        module = sys.modules[f"torchvision.{name}"] = _Anything(name)
        parent = sys.modules[f"torchvision.{name}".rpartition(".")[0]]
        setattr(parent, name.rpartition(".")[2], module)

import torch
from ofa.imagenet_classification.elastic_nn.modules.dynamic_layers import (
    DynamicConvLayer,
    DynamicLinearLayer,
    DynamicMBConvLayer,
    DynamicResNetBottleneckBlock,
)
from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics
from ofa.utils.layers import ConvLayer, IdentityLayer, LinearLayer, MBConvLayer, ResidualBlock

_ACTIVATIONS = {"relu": "relu", "relu6": "relu6", "hard_swish": "h_swish"}


class Network(torch.nn.Module):
    """The reference's layers, in the shapes of one of our spaces."""

    def __init__(self, space: SearchSpace, num_classes: int):
        super().__init__()
        self.space = space
        self.layers = torch.nn.ModuleDict()
        self.active = {}  # the blocks that run, by name
        widths = _output_widths(space)
        ins = [3]
        for block in space.blueprint(space.max(), num_classes).blocks:
            outs = widths.get(block.name, ins)
            self.layers[block.name] = self._layer(block, ins, outs)
            ins = outs

    def _layer(self, block: blueprint.Block, ins: list[int], outs: list[int]) -> torch.nn.Module:
        if isinstance(block, blueprint.GlobalPool):
            return torch.nn.AdaptiveAvgPool2d(1)
        if isinstance(block, blueprint.MaxPool):
            return torch.nn.MaxPool2d(block.kernel_size, block.stride, block.kernel_size // 2)
        if isinstance(block, blueprint.Classifier):
            fixed = {"dropout_rate": block.dropout}
            if len(ins) > 1:
                linear = DynamicLinearLayer(ins, block.out_channels, **fixed)
            else:
                linear = LinearLayer(*ins, block.out_channels, **fixed)
            return torch.nn.Sequential(torch.nn.Flatten(), linear)
        options = {"stride": block.stride, "act_func": _ACTIVATIONS[block.activation]}
        if isinstance(block, blueprint.Conv):
            return _conv(block, ins, outs, options)
        expand_ratios = list(self.space.expand_ratios)
        if isinstance(block, blueprint.Bottleneck):
            return DynamicResNetBottleneckBlock(
                ins, outs, expand_ratios, block.kernel_size, **options
            )
        options["use_se"] = block.se_channels > 0
        if block.position is None:
            ratio = block.mid_channels / block.in_channels
            conv = MBConvLayer(*ins, *outs, block.kernel_size, expand_ratio=ratio, **options)
        else:
            kernel_sizes = list(self.space.kernel_sizes)
            conv = DynamicMBConvLayer(ins, outs, kernel_sizes, expand_ratios, **options)
        return ResidualBlock(conv, IdentityLayer(*ins, *outs) if block.shortcut else None)

    def set_arch(self, arch: Arch) -> None:
        self.active = {block.name: block for block in self.space.blueprint(arch).blocks}
        for name, block in self.active.items():
            layer = self.layers[name]
            layer = layer.conv if isinstance(layer, ResidualBlock) else layer
            position = getattr(block, "position", None)
            if position is not None:
                layer.active_kernel_size = arch.kernel_sizes[position]
                layer.active_expand_ratio = arch.expand_ratios[position]
            if self.space.varies(name)["out_channels"]:
                layer.active_out_channel = block.out_channels

    def forward(self, images):
        outputs = images
        for name in self.active:
            outputs = self.layers[name](outputs)
        return outputs


def _output_widths(space: SearchSpace) -> dict[str, list[int]]:
    """The output channels that each block with weights can have, ascending, by its name."""
    widths: dict[str, set[int]] = {}
    for _, plan in space.covering_plans(resolutions=space.resolutions[:1]):
        for block in plan.blocks:
            if block.weighted_layers:
                widths.setdefault(block.name, set()).add(block.out_channels)
    return {name: sorted(channels) for name, channels in widths.items()}


def _conv(block: blueprint.Conv, ins: list[int], outs: list[int], options: dict) -> torch.nn.Module:
    options |= {"use_bn": block.batch_norm}
    if len(ins) == len(outs) == 1:
        conv = ConvLayer(*ins, *outs, block.kernel_size, **options)
    else:
        conv = DynamicConvLayer(ins, outs, block.kernel_size, **options)
    return ResidualBlock(conv, IdentityLayer(ins, outs)) if block.shortcut else conv


class Side:
    """The reference's network in a training loop like its own."""

    def __init__(self, setting: Setting):
        torch.set_num_threads(setting.threads)
        self.setting = setting
        self.network = Network(ofa_tf.get_space(setting.space), setting.num_classes)
        rng = np.random.default_rng(0)
        size = (setting.batch_size, 3, setting.resolution, setting.resolution)
        self.images = torch.tensor(rng.normal(size=size), dtype=torch.float32)
        self.labels = torch.tensor(rng.integers(0, setting.num_classes, size[0]))
        if setting.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        undecayed = [p for name, p in self.network.named_parameters() if _is_undecayed(name)]
        decayed = [p for name, p in self.network.named_parameters() if not _is_undecayed(name)]
        groups = [
            {"params": decayed, "weight_decay": 3e-5},
            {"params": undecayed, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True)
        self.loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)

    def _logits(self, images):
        low = self.setting.dtype == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            return self.network(images).float()

    def train(self, arch: Arch) -> float:
        """Seconds of a step."""
        self.network.set_arch(arch)
        self.network.train()
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self._logits(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        loss.item()
        return time.perf_counter() - start

    def evaluate(self, arch: Arch, calibration_batches: int, batches: int) -> float:
        """Seconds to recalibrate a subnet and classify some batches with it."""
        self.network.set_arch(arch)
        self.network.eval()
        start = time.perf_counter()
        with torch.no_grad():
            # In float32 always: its recalibration fails under autocast.
            set_running_statistics(self.network, [(self.images, self.labels)] * calibration_batches)
            for _ in range(batches):
                self._logits(self.images)
        return time.perf_counter() - start


def _is_undecayed(name: str) -> bool:
    return "bn" in name or "bias" in name
