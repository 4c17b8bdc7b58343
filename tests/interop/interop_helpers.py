"""The reference's networks, with weights that show mistakes, and ours of the same shapes."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
import types

import numpy as np
import pytest

from ofa_tf.spaces import SearchSpace, get_space
from ofa_tf.spaces.mobilenet_v3 import MobileNetV3
from ofa_tf.spaces.proxyless import ProxylessNAS

PUBLISHED_SPACES = ("ofa_mbv3_w1.0", "ofa_mbv3_w1.2", "ofa_proxyless_w1.3", "ofa_resnet50")


def published() -> pathlib.Path:
    """The folder of the published artifacts; skips the test where they are not at hand."""
    if "OFA_SHARED" not in os.environ:
        pytest.skip("OFA_SHARED is not set: the published networks are not at hand")
    return pathlib.Path(os.environ["OFA_SHARED"], "data", "published")


def small_space(name: str) -> SearchSpace:
    """A published space with fewer blocks and narrower widths, which the reference has too."""
    space = get_space(name)
    family = space.family
    if name == "ofa_resnet50":
        family = dataclasses.replace(family, width_mults=(0.125, 0.25), extra_blocks=1)
        changes = {"depths": (0, 1), "widths": (0, 1)}
    else:
        stages = tuple(stage._replace(blocks=min(2, stage.blocks)) for stage in family.stages)
        family = dataclasses.replace(family, stages=stages, width_mult=0.5)
        changes = {"depths": (1, 2)}
    return dataclasses.replace(
        space, name=f"small_{name}", family=family, resolutions=(64, 68, 76), **changes
    )


class _Anything(types.ModuleType):
    """Stands in for a module of which only names are taken."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def stub_torchvision() -> None:
    """Lets the reference be imported without torchvision and gdown, which take no part here."""
    for name in (
        "torchvision",
        "torchvision.transforms",
        "torchvision.transforms.functional",
        "torchvision.datasets",
        "gdown",
    ):
        try:
            __import__(name)
        except ImportError:
            module = sys.modules[name] = _Anything(name)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)


def reference_network(space: SearchSpace | str, num_classes: int = 1000, seed: int = 0):
    """The reference's supernet (a torch module, in evaluation mode) of the shapes of a space.

    The space is a published one (by its name) or one like it in all but width multiplier, depths,
    kernel sizes and expand ratios. All weights are random; see `randomize`.
    """
    stub_torchvision()
    from ofa.imagenet_classification.elastic_nn import networks

    space = get_space(space) if isinstance(space, str) else space
    choices = {"depth_list": list(space.depths), "expand_ratio_list": list(space.expand_ratios)}
    if isinstance(space.family, (MobileNetV3, ProxylessNAS)):
        choices |= {"ks_list": list(space.kernel_sizes), "width_mult": space.family.width_mult}
        mobile_v3 = isinstance(space.family, MobileNetV3)
        make = networks.OFAMobileNetV3 if mobile_v3 else networks.OFAProxylessNASNets
    else:
        choices["width_mult_list"] = list(space.family.width_mults)
        make = networks.OFAResNets
    network = make(n_classes=num_classes, dropout_rate=space.family.dropout, **choices)
    network.set_max_net()
    randomize(network, min(space.resolutions), seed)
    return network


def randomize(network, resolution: int, seed: int = 0) -> None:
    """Random weights, biases, kernel transforms and batch-norm statistics for a torch module.

    The statistics are near those of the network as it is active, on random images: far from them
    the signals of a deep network explode or die, and a mistake goes unseen.
    """
    import torch

    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim == 1 and "bn" in name and name.endswith("weight"):
                value = rng.uniform(0.6, 1.5, weight.shape)
            elif weight.ndim == 1:
                value = rng.normal(0, 0.3, weight.shape)
            else:  # (out, in, k, k), (out, in) and transform matrices: all but the first go in
                value = rng.normal(0, np.sqrt(2 / np.prod(weight.shape[1:])), weight.shape)
            weight.copy_(torch.tensor(value, dtype=torch.float32))
        norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        network.train()
        images = rng.normal(0.2, 1, (8, 3, resolution, resolution))
        network(torch.tensor(images, dtype=torch.float32))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            std = norm.running_var.sqrt().numpy()
            shift = 0.1 * std * rng.normal(size=std.shape)
            norm.running_mean += torch.tensor(shift, dtype=torch.float32)
            norm.running_var *= torch.tensor(rng.uniform(0.8, 1.25, std.shape), dtype=torch.float32)
    network.eval()


def run_reference(network, images: np.ndarray) -> np.ndarray:
    """Logits of a torch module for images (batch, height, width, 3)."""
    import torch

    with torch.no_grad():
        return network(torch.tensor(images).permute(0, 3, 1, 2).contiguous()).numpy()


def make_images(side: int, count: int = 4, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.2, 1, (count, side, side, 3)).astype(np.float32)


def deviation(actual, expected) -> float:
    """The largest difference, as a part of the largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.isfinite(expected).all()
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
