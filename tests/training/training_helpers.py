"""Images that are easy to tell apart, weights that are not trivial, and a small recipe."""

from __future__ import annotations

import functools
import pathlib

import keras
import numpy as np
from PIL import Image, ImageDraw

from ofa_tf.data import Augmentation
from ofa_tf.models import Supernet
from ofa_tf.training.calibration import SubnetEvaluator
from ofa_tf.training.phases import Phase
from ofa_tf.training.recipe import Recipe
from ofa_tf.training.trainer import RunSettings, Trainer
from ofa_tf.workdir import Workdir

CLASSES = ("disk", "frame", "square", "stripes")
PLAIN = Augmentation(crop_scale_min=0.6, brightness=0.0, saturation=0.0)


def draw_shape(kind: str, rng: np.random.Generator, side: int = 28) -> Image.Image:
    """A shape of a random color and place on a dark ground."""
    color = tuple(int(value) for value in rng.integers(90, 256, 3))
    image = Image.new("RGB", (side, side), tuple(int(v) for v in rng.integers(0, 60, 3)))
    draw = ImageDraw.Draw(image)
    left, top = (int(value) for value in rng.integers(1, 10, 2))
    box = (left, top, left + 16, top + 16)
    if kind == "disk":
        draw.ellipse(box, fill=color)
    elif kind == "frame":
        draw.rectangle(box, outline=color, width=2)
    elif kind == "square":
        draw.rectangle(box, fill=color)
    else:
        for x in range(left, left + 17, 4):
            draw.line((x, top, x, top + 16), fill=color, width=2)
    return image


def write_shapes(folder: pathlib.Path, per_class: int, seed: int) -> None:
    """Writes `per_class` images in a folder per class."""
    rng = np.random.default_rng(seed)
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            draw_shape(kind, rng).save(folder / kind / f"{i:03d}.png")


def randomize(supernet: Supernet, seed: int = 0) -> None:
    """Weights and statistics under which outputs differ between images and between archs."""
    rng = np.random.default_rng(seed)
    for variable in supernet.weights:  # without the state of dropout
        shape, name = tuple(variable.shape), variable.name
        if name in ("gamma", "moving_variance"):
            value = rng.uniform(0.6, 1.5, shape)
        elif name.startswith("transform"):
            value = np.eye(shape[0]) + rng.normal(0, 0.1, shape)
        elif len(shape) < 2:
            value = rng.normal(0, 0.3, shape)
        else:
            fan_in = np.prod(shape[:-1]) if len(shape) != 3 else np.prod(shape[:2])
            value = rng.normal(0, np.sqrt(2 / fan_in), shape)
        variable.assign(value.astype(np.float32))


def random_images(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Normalized noise, float32 (count, side, side, 3)."""
    return np.random.default_rng(seed).normal(0, 1, (count, side, side, 3)).astype(np.float32)


def values(variables) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def restore(variables, arrays) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def recipe(*phases: Phase, **changes) -> Recipe:
    fields = {"batch_size": 16, "resolutions": (24, 32), "augmentation": PLAIN}
    return Recipe(phases=phases, **(fields | changes))


@functools.cache
def shared_evaluator(supernet: Supernet, data) -> SubnetEvaluator:
    """Its graphs take seconds too."""
    return SubnetEvaluator(supernet, data, calibration_images=48, batch_size=16)


def make_trainer(
    data,
    folder: pathlib.Path,
    the_recipe: Recipe,
    supernet: Supernet,
    seed: int = 0,
    *,
    kind: type[Trainer] = Trainer,
    init: pathlib.Path | None = None,
    **settings,
) -> Trainer:
    """A Trainer that saves after every step, of weights as they come from a seed.

    The supernet may have been trained before: its graphs, which take seconds, are used again.
    """
    keras.utils.set_random_seed(seed)
    randomize(supernet, seed)
    evaluator = shared_evaluator(supernet, getattr(data, "whole", data))
    settings = RunSettings(**({"checkpoint_minutes": 0.0, "eval_epochs": 100} | settings))
    return kind(supernet, data, the_recipe, Workdir(folder), evaluator, settings, init=init)
