"""load_subnet: an exported subnet or a published network back as a plain Keras model."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

import keras

from ofa_tf.data import MEAN, STD
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export.card import CARD
from ofa_tf.export.formats import FORMATS
from ofa_tf.export.interface import Interface
from ofa_tf.export.keras_file import load_keras_file
from ofa_tf.export.plan_file import BLUEPRINT, NET_CONFIG, RUN_CONFIG, plan_file, read_plan
from ofa_tf.fields import read_fields
from ofa_tf.interop import download_specialized, load_specialized, read_net_config
from ofa_tf.models import build_subnet, copy_weights
from ofa_tf.spaces import Blueprint

_EXPORTED = (CARD, NET_CONFIG, RUN_CONFIG, FORMATS["keras"])
_OF_OWN_FAMILY = (CARD, BLUEPRINT, FORMATS["keras"])
_PUBLISHED = (NET_CONFIG, "init")


def load_subnet(
    path_or_id: str | os.PathLike,
    *,
    include_top: bool = True,
    input: str = "pixels",
    output: str = "logits",
) -> keras.Model:
    """A trained network with the images and the head that the caller wants.

    Args:
        path_or_id: the folder of an exported subnet, with its Keras file; or the id of a published
            specialized network, e.g. "note10_lat@8ms_top1@71.4_finetune@25", which is downloaded
            to `.cache/ofa_tf` in the home folder when it is first asked for and needs torch to be
            read; or the folder of such a one.
        include_top: False for a backbone without classifier: a dict of feature maps, "stride_4",
            "stride_8", "stride_16" and "stride_32" as far as the network has them.
        input: "pixels" for images of RGB pixels from 0 to 255 in float32, "uint8" for the same
            in uint8, "float32" for images that come normalized.
        output: of the classifier, "logits", or "softmax" for probabilities.

    Returns: a `keras.Model` of built-in layers, of images (batch, resolution, resolution, 3).

    Raises:
        UsageError: the folder is missing or is of no network, that can be no id, an unknown input
            or output, or an output other than logits without the top; or torch is missing.
        FailureError: a file in the folder is damaged or of another network, or the network cannot
            be downloaded, e.g. offline.
    """
    if not include_top and output != "logits":
        raise UsageError(f"output={output!r} is for models with their top.")
    Interface((MEAN, STD), input, output)  # refuses unknown ones before anything is read
    found = _read_folder(_folder(path_or_id))
    options = Interface(found.normalization, input, output).build_options
    if not include_top:
        options["head"] = "features"
    model = build_subnet(found.plan, **options, name=found.model.name)
    _check_weights(model, found)
    copy_weights(found.model, model)
    return model


class _Trained(NamedTuple):
    """A network as it was found."""

    file: pathlib.Path  # of the model
    model: keras.Model
    plan: Blueprint
    normalization: tuple[tuple[float, ...], tuple[float, ...]]


def _folder(path_or_id: str | os.PathLike) -> pathlib.Path:
    """The folder itself, or that of the download."""
    path = pathlib.Path(path_or_id)
    if path.is_dir():
        return path
    if path.is_file():
        raise UsageError(f"{path} is a file; give the folder that it is in, {path.parent}.")
    if not isinstance(path_or_id, str) or len(path.parts) != 1:
        raise UsageError(f"There is no folder {path}; ofa-export makes one for each subnet.")
    try:
        net_config, _ = download_specialized(path_or_id)
    except (UsageError, FailureError) as error:
        raise type(error)(
            f"There is no folder {path_or_id!r}, nor can it be had as a published network: {error}"
        ) from error
    return net_config.parent


def _read_folder(folder: pathlib.Path) -> _Trained:
    for files, read in (
        (_EXPORTED, _read_exported),
        (_OF_OWN_FAMILY, _read_exported),
        (_PUBLISHED, _read_published),
    ):
        if all((folder / file).is_file() for file in files):
            return read(folder)
    raise UsageError(
        f"{folder} is no folder of a subnet: it has to hold {', '.join(_EXPORTED)}, which "
        f"ofa-export writes where keras is among its --formats."
    )


def _read_published(folder: pathlib.Path) -> _Trained:
    net_config, weights = (folder / file for file in _PUBLISHED)
    model = load_specialized(net_config, weights, name=folder.resolve().name)
    return _Trained(weights, model, read_net_config(net_config), (MEAN, STD))


def _read_exported(folder: pathlib.Path) -> _Trained:
    plan = read_plan(folder)
    path = folder / FORMATS["keras"]
    model = load_keras_file(path)
    return _Trained(path, model, plan, _read_normalization(folder / CARD, plan))


def _read_normalization(
    path: pathlib.Path, plan: Blueprint
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What the card says, once it is known to be the card of this network."""
    card = read_fields(path, "Export the subnet again.")
    described = [card.number(key) for key in ("resolution", "macs", "params")]
    normalization = card.fields("input").fields("normalization")
    mean, std = (normalization.numbers(key) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise normalization.error(
            f"mean and std are {list(mean)} and {list(std)}, not of 3 channels"
        )
    if described != [plan.resolution, plan.macs, plan.params]:
        raise FailureError(
            f"{path} and the {plan_file(path.parent).name} beside it are of different networks. "
            "Export the subnet again."
        )
    return mean, std


def _check_weights(model: keras.Model, found: _Trained) -> None:
    """Raises FailureError where the weights of a network cannot be the found ones."""
    wanted, given = _shapes(model), _shapes(found.model)
    wrong = [name for name, shapes in wanted.items() if given.get(name) != shapes]
    if wrong:
        raise FailureError(
            f"{found.file} is of another network than the {plan_file(found.file.parent).name} "
            f"beside it: its weights of {wrong[0]} are {given.get(wrong[0], 'missing')}, not "
            f"{wanted[wrong[0]]}. Export the subnet again."
        )


def _shapes(model: keras.Model) -> dict[str, list[tuple[int, ...]]]:
    """Of the weights of each layer that has some."""
    return {
        layer.name: [tuple(weight.shape) for weight in layer.weights]
        for layer in getattr(model, "layers", [])
        if layer.weights
    }
