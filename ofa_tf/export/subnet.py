"""export_subnet: the folder of one subnet, with its models, labels and card."""

from __future__ import annotations

import math
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export.card import SubnetSpec, load_card, save_card
from ofa_tf.export.evaluation import Batches, random_batches
from ofa_tf.export.formats import FORMATS, check_formats
from ofa_tf.export.keras_file import load_keras_file
from ofa_tf.export.plan_file import BLUEPRINT, NET_CONFIG, RUN_CONFIG, plan_texts
from ofa_tf.export.verification import Thresholds, UnfitError, Verifier
from ofa_tf.export.writing import Qat, Source, write_format
from ofa_tf.files import atomic_path, write_bytes
from ofa_tf.names import labels_text


def is_up_to_date(
    spec: SubnetSpec,
    folder: str | os.PathLike,
    formats: Sequence[str],
    *,
    evaluated: bool = False,
    thresholds: Thresholds | None = None,
    qat_settings: dict[str, Any] | None = None,
) -> bool:
    """Whether the folder has intact, verified files of this very subnet in all formats.

    Args:
        spec: the subnet.
        folder: as for `export_subnet`.
        formats: keys of FORMATS.
        evaluated: whether their accuracy must be known as well.
        thresholds: what the files must reach, by default what they had to reach at the least.
        qat_settings: that tflite_qat must have been trained with.

    Raises:
        UsageError: as `check_formats`.
    """
    folder, thresholds = pathlib.Path(folder), thresholds or Thresholds()
    files = load_card(folder, spec)["files"]
    return all(
        _is_made(name, files, qat_settings)
        and _is_verified(name, files[name], evaluated, thresholds)
        for name in check_formats(formats)
    ) and all(_holds(folder / file, text) for file, text in _texts(spec).items())


def export_subnet(
    make_model: Callable[[], keras.Model],
    spec: SubnetSpec,
    folder: str | os.PathLike,
    *,
    formats: Sequence[str] = ("keras", "tflite_float32", "tflite_int8"),
    calibration_images: np.ndarray | None = None,
    test_batches: Batches | None = None,
    verify_images: int = 256,
    supernet_classes: np.ndarray | None = None,
    thresholds: Thresholds | None = None,
    qat: Qat | None = None,
    num_threads: int = 1,
    on_file: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Writes a subnet's folder: a file for each format, card.json, and what describes it.

    These are labels.txt, net.config and run.config (blueprint.json in place of both where they
    cannot hold the network), and arch.json where it is a space's arch.

    Each file is held against the Keras model before it gets its name. Files that are there
    already for this very spec, whole, are kept; what is missing is made from the folder's
    model.keras, if that is kept, so that all files hold the same weights. Files of another
    subnet are replaced, or removed where their format is not asked for.

    Args:
        make_model: gives the plain network, with weights and batch-norm statistics, the spec's
            interface and name; called where no file has them.
        spec: the subnet.
        folder: made if need be.
        formats: keys of FORMATS.
        calibration_images: for int8 and int16x8, (n, resolution, resolution, 3) training images,
            raw pixels.
        test_batches: what the files are evaluated on, raw pixels at the subnet's resolution; must
            give the same images each time it is iterated. Without, the files are verified on
            random images, and their accuracies stay unknown.
        verify_images: how many of these images the outputs are compared on.
        supernet_classes: those of the supernet for these images, int (n,); None where there is no
            supernet.
        thresholds: what the files must reach, `Thresholds()` by default.
        qat: for tflite_qat.
        num_threads: threads of the TFLite runtime.
        on_file: called with a format when its file is there and verified, or has failed.

    Returns: the card. `card["files"][format]` has file, bytes, sha256, dtype, input, output, what
        `compare` gives, and for TFLite files what `describe_graph` gives.

    Raises:
        UsageError: an unknown format, a model that does not fit the spec, or unfit images.
        FailureError: a file does not reach the thresholds and is not left, the others are; the
            converter fails, or the disk refuses, and no half file is left.
    """
    formats, folder = check_formats(formats), pathlib.Path(folder)
    thresholds = thresholds or Thresholds()
    card = load_card(folder, spec)
    files, evaluated = card["files"], test_batches is not None
    settings = qat.settings if qat else None
    if is_up_to_date(
        spec,
        folder,
        formats,
        evaluated=evaluated,
        thresholds=thresholds,
        qat_settings=settings,
    ):
        for name in formats:
            on_file(name)
        return card

    texts = _texts(spec)
    for file, text in texts.items():
        write_bytes(folder / file, text.encode())
    for other in {BLUEPRINT, NET_CONFIG, RUN_CONFIG} - texts.keys():
        (folder / other).unlink(missing_ok=True)
    if "keras" in files:
        model = _kept_model(folder, spec)
    else:
        model = make_model()
        _check_model(model, spec)
    source = Source(model, spec, calibration_images, qat)
    if test_batches is None:
        test_batches = random_batches(spec.plan.resolution, verify_images)
    verifier = Verifier(
        *(model, spec.interface, test_batches, verify_images, supernet_classes),
        *(thresholds, num_threads),
    )
    problems = []
    for name in formats:
        made = files.pop(name, None) if _is_made(name, files, settings) else None
        try:
            if made is None:
                files[name] = _make(name, folder, source, verifier)
            elif _is_verified(name, made, evaluated, thresholds):
                files[name] = made
            else:
                files[name] = made | verifier.verify(name, folder / FORMATS[name], folder)
        except UnfitError as error:
            problems.append(str(error))
        save_card(folder, card)
        on_file(name)
    # As the disk has it: another process may have made files meanwhile.
    _remove_others(folder, load_card(folder, spec)["files"])
    if problems:
        raise FailureError(" ".join(problems))
    return load_card(folder, spec)


def _make(name: str, folder: pathlib.Path, source: Source, verifier: Verifier) -> dict[str, Any]:
    """Writes one file, which gets its name once it is verified; what the card says of it."""
    with atomic_path(folder / FORMATS[name]) as path:
        return write_format(source, name, path) | verifier.verify(name, path, folder)


def _is_made(name: str, files: dict[str, Any], qat_settings: dict[str, Any] | None) -> bool:
    if name not in files:
        return False
    return name != "tflite_qat" or files[name].get("qat") == qat_settings


def _is_verified(name: str, entry: dict[str, Any], evaluated: bool, thresholds: Thresholds) -> bool:
    return (
        "keras_agreement" in entry
        and (not evaluated or "accuracy" in entry)
        and thresholds.problem(name, entry) is None
    )


def _kept_model(folder: pathlib.Path, spec: SubnetSpec) -> keras.Model:
    """The folder's own Keras model, from which the other files were made."""
    path = folder / FORMATS["keras"]
    try:
        model = load_keras_file(path)
        _check_model(model, spec)
    except (FailureError, UsageError) as error:
        raise FailureError(
            f"{path} cannot be loaded as the Keras model of {spec.name}. "
            f"{str(error).rstrip('.')}. Remove it, and export the subnet again."
        ) from error
    return model


def _check_model(model: keras.Model, spec: SubnetSpec) -> None:
    wanted = {
        "input": (spec.plan.resolution, spec.plan.resolution, 3),
        "output": (spec.plan.num_classes,),
        "parameters": spec.plan.params,
    }
    given = {
        "input": _size(model.input_shape),
        "output": _size(model.output_shape),
        "parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
    }
    for what, value in wanted.items():
        if given[what] != value:
            raise UsageError(
                f"The model that is to be exported as {spec.name} is another network: its {what} "
                f"are {given[what]}, those of {spec.name} are {value}."
            )


def _size(shape: Any) -> Any:
    """A shape without its batch; the shapes of several inputs or outputs as they are."""
    return shape[1:] if isinstance(shape, tuple) else shape


def _texts(spec: SubnetSpec) -> dict[str, str]:
    """The text files of the folder."""
    texts = {"labels.txt": labels_text(spec.class_names), **plan_texts(spec.plan)}
    if spec.arch is not None:
        texts["arch.json"] = spec.arch.to_json() + "\n"
    return texts


def _holds(path: pathlib.Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _remove_others(folder: pathlib.Path, files: dict[str, Any]) -> None:
    """Removes models that the card does not know: they are of another subnet, or unfit."""
    for name, file in FORMATS.items():
        if name in files:
            continue
        try:
            if (folder / file).is_dir():
                shutil.rmtree(folder / file)
            (folder / file).unlink(missing_ok=True)
        except OSError as error:
            raise FailureError(
                f"{folder / file} is out of date and could not be removed: {error.strerror}."
            ) from error
