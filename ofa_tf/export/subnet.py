"""export_subnet: the folder of one subnet, with its models, labels and card."""

from __future__ import annotations

import json
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export.card import SubnetSpec, describe_file, load_card, save_card
from ofa_tf.export.evaluation import Batches, classify, top1
from ofa_tf.export.quantization import spanning_all_pixels
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.export.tflite import convert
from ofa_tf.files import write_bytes
from ofa_tf.interop import to_net_config

# The file that each format makes.
FORMATS = {
    "keras": "model.keras",
    "tflite_float32": "model_float32.tflite",
    "tflite_int8": "model_int8.tflite",
}


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats in the order of FORMATS, each once.

    Raises:
        UsageError: there is none, or an unknown one; lists the known ones.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(
            f"formats are some of {', '.join(FORMATS)}; unknown: {', '.join(unknown) or 'none'}, "
            f"given: {len(formats)}."
        )
    return tuple(name for name in FORMATS if name in formats)


def is_up_to_date(
    spec: SubnetSpec, folder: str | os.PathLike, formats: Sequence[str], *, evaluated: bool = False
) -> bool:
    """Whether the folder has intact files of this very subnet in all formats.

    Args:
        spec: the subnet.
        folder: as for `export_subnet`.
        formats: keys of FORMATS.
        evaluated: whether their accuracy must be known as well.

    Raises:
        UsageError: as `check_formats`.
    """
    folder = pathlib.Path(folder)
    files = load_card(folder, spec)["files"]
    return all(
        name in files and (not evaluated or "accuracy" in files[name])
        for name in check_formats(formats)
    ) and all(_holds(folder / file, text) for file, text in _texts(spec).items())


def export_subnet(
    make_model: Callable[[], keras.Model],
    spec: SubnetSpec,
    folder: str | os.PathLike,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    calibration_images: np.ndarray | None = None,
    test_batches: Batches | None = None,
    num_threads: int = 1,
) -> dict[str, Any]:
    """Writes a subnet's folder: a file for each format, card.json, and what describes it.

    These are labels.txt, net.config and run.config, and arch.json where it is a space's arch.

    Every model takes RGB pixels from 0 to 255, normalizes them inside, and gives logits. Files
    that are there already for this very spec, whole, are kept; what is missing is made from
    the folder's model.keras, if that is kept, so that all files hold the same weights. Files of
    another subnet are replaced, or removed where their format is not asked for.

    Args:
        make_model: gives the plain network, with weights and batch-norm statistics, the spec's
            normalization as its first layer and the spec's name; called where no file has them.
        spec: the subnet.
        folder: made if need be.
        formats: keys of FORMATS.
        calibration_images: for int8, (n, resolution, resolution, 3) training images, raw pixels.
        test_batches: what the files are evaluated on, at the subnet's resolution; must give the
            same images each time it is iterated. None leaves them unevaluated.
        num_threads: threads of the TFLite runtime in the evaluation.

    Returns: the card. `card["files"][format]` has file, bytes, sha256, dtype, input, output, and,
        where evaluated, accuracy, num_images and keras_agreement (each share from 0 to 1).

    Raises:
        UsageError: an unknown format, a model that does not fit the spec, or unfit images.
        FailureError: the converter fails, or the disk refuses; no half file is left.
    """
    formats, folder = check_formats(formats), pathlib.Path(folder)
    card = load_card(folder, spec)
    files = card["files"]
    if is_up_to_date(spec, folder, formats, evaluated=test_batches is not None):
        return card

    for file, text in _texts(spec).items():
        write_bytes(folder / file, text.encode())
    if "keras" in files:
        model = keras.models.load_model(folder / FORMATS["keras"], compile=False)
    else:
        model = make_model()
        _check_model(model, spec)
    for name in formats:
        if name not in files:
            files[name] = _write_model(model, name, folder, calibration_images)
            save_card(folder, card)
    _remove_others(folder, files)
    if test_batches is not None:
        reference, labels = classify(model.predict_on_batch, test_batches)
        for name in formats:
            if "accuracy" not in files[name]:
                files[name] |= _evaluate(folder, name, reference, labels, test_batches, num_threads)
                save_card(folder, card)
    return load_card(folder, spec)


def _check_model(model: keras.Model, spec: SubnetSpec) -> None:
    wanted = {
        "input": (spec.plan.resolution, spec.plan.resolution, 3),
        "output": (spec.plan.num_classes,),
        "parameters": spec.plan.params,
    }
    given = {
        "input": tuple(model.input_shape[1:]),
        "output": tuple(model.output_shape[1:]),
        "parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
    }
    for what, value in wanted.items():
        if given[what] != value:
            raise UsageError(
                f"The model that is to be exported as {spec.name} is another network: its {what} "
                f"are {given[what]}, those of {spec.name} are {value}."
            )


def _texts(spec: SubnetSpec) -> dict[str, str]:
    """The text files of the folder."""
    texts = {
        "labels.txt": "".join(f"{name}\n" for name in spec.class_names),
        "net.config": json.dumps(to_net_config(spec.plan), indent=4) + "\n",
        "run.config": json.dumps({"image_size": spec.plan.resolution}) + "\n",
    }
    if spec.arch is not None:
        texts["arch.json"] = spec.arch.to_json() + "\n"
    return texts


def _holds(path: pathlib.Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _write_model(
    model: keras.Model, name: str, folder: pathlib.Path, calibration_images: np.ndarray | None
) -> dict[str, Any]:
    """Writes a model in one format and returns the card's entry for it."""
    path = folder / FORMATS[name]
    if name == "keras":
        write_bytes(path, _keras_file(model))
        tensors = {"input": {"dtype": "float32"}, "output": {"dtype": "float32"}}
        return {**describe_file(path), "dtype": "float32", **tensors}
    precision = name.removeprefix("tflite_")
    if precision == "int8" and calibration_images is not None:
        calibration_images = spanning_all_pixels(calibration_images)
    write_bytes(path, convert(model, precision, calibration_images))
    entry = {**describe_file(path), "dtype": precision, **TFLiteClassifier(path).describe()}
    if precision == "int8":
        entry["num_calibration_images"] = len(calibration_images)
    return entry


def _keras_file(model: keras.Model) -> bytes:
    """The content of a .keras file; Keras itself writes to paths that end so only."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch, FORMATS["keras"])
            model.save(path)
            return path.read_bytes()
    except OSError as error:
        raise FailureError(
            f"{FORMATS['keras']} could not be made in the temporary folder: "
            f"{error.strerror or error}."
        ) from error


def _remove_others(folder: pathlib.Path, files: dict[str, Any]) -> None:
    """Removes models that the card does not know: they are of another subnet."""
    for name, file in FORMATS.items():
        if name in files:
            continue
        try:
            (folder / file).unlink(missing_ok=True)
        except OSError as error:
            raise FailureError(
                f"{folder / file} is of another subnet and could not be removed: {error.strerror}."
            ) from error


def _evaluate(
    folder: pathlib.Path,
    name: str,
    reference: np.ndarray,
    labels: np.ndarray,
    batches: Batches,
    num_threads: int,
) -> dict[str, Any]:
    """Accuracy of one file and its agreement with the Keras model's classes, `reference`."""
    classes = reference
    if name != "keras":
        classifier = TFLiteClassifier(folder / FORMATS[name], num_threads)
        classes, _ = classify(classifier, batches)
    return {
        "accuracy": top1(classes, labels),
        "num_images": len(labels),
        "keras_agreement": top1(classes, reference),
    }
