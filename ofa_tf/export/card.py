"""card.json: what an exported subnet is, and which files of its folder are up to date."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export.formats import FORMS
from ofa_tf.export.interface import Interface
from ofa_tf.fields import Fields
from ofa_tf.files import read_json, write_json
from ofa_tf.names import check_name
from ofa_tf.spaces import Arch, Blueprint, SearchSpace

CARD = "card.json"

# What tables and checks take of a file's entry, where it is there.
_NUMBERS = {
    "accuracy",
    "accuracy_drop",
    "arena_bytes",
    "bytes",
    "delegate_partitions",
    "keras_agreement",
    "num_images",
    "ops",
    "relative_deviation",
    "supernet_agreement",
}


@dataclasses.dataclass(frozen=True)
class SubnetSpec:
    """Which subnet is exported; where two are equal, so are their files.

    Args:
        name: what to call it; the Keras model has the `scope_name` of it.
        plan: the network.
        class_names: one per output, in order.
        interface: what goes into the exported models and what comes out.
        fingerprint: stands for all else that decides the card: the supernet's weights, and the
            images of the batch-norm recalibration, the int8 calibration and the evaluation.
        space_name: id of the search space that it comes from; None for a network of its own.
        arch: its arch in that space.
        form: of the TFLite files, one of FORMS.
        batch_size: of the TFLite files.

    Raises:
        UsageError: that can be no name of a folder, there is not one class name per output, or
            the form is unknown, or the batch empty.
    """

    name: str
    plan: Blueprint
    class_names: tuple[str, ...]
    interface: Interface
    fingerprint: str
    space_name: str | None = None
    arch: Arch | None = None
    form: str = "cpu"
    batch_size: int = 1

    @classmethod
    def of_arch(
        cls,
        name: str,
        space: SearchSpace,
        arch: Arch | dict,
        class_names: Sequence[str],
        interface: Interface,
        fingerprint: str,
        **options: Any,
    ) -> SubnetSpec:
        """A subnet of a space. Raises UsageError too where the arch is not in the space."""
        arch, class_names = space.arch(arch), tuple(class_names)
        plan, origin = space.blueprint(arch, len(class_names)), space.root.name
        return cls(name, plan, class_names, interface, fingerprint, origin, arch, **options)

    def __post_init__(self):
        check_name(self.name, "A subnet")
        if len(self.class_names) != self.plan.num_classes:
            raise UsageError(
                f"{self.name} has {self.plan.num_classes} outputs, but there are "
                f"{len(self.class_names)} class names."
            )
        if self.form not in FORMS:
            raise UsageError(f"form is one of {', '.join(FORMS)}, not {self.form!r}.")
        if self.batch_size < 1:
            raise UsageError(f"batch_size is at least 1, not {self.batch_size}.")
        object.__setattr__(self, "class_names", tuple(self.class_names))

    def describe(self) -> dict[str, Any]:
        """The part of the card that does not depend on the files, ready for JSON."""
        plan, interface = self.plan, self.interface
        return {
            "name": self.name,
            "space": self.space_name,
            "arch": self.arch and self.arch.to_dict(),
            "fingerprint": self.fingerprint,
            "resolution": plan.resolution,
            "macs": plan.macs,
            "params": plan.params,
            "classes": list(self.class_names),
            "form": self.form,
            "input": {
                "name": "image",
                "shape": [self.batch_size, plan.resolution, plan.resolution, 3],
                "dtype": interface.dtype,
                "channels": "RGB",
                **_pixels(interface),
            },
            "output": {
                "name": interface.output_name,
                "shape": [self.batch_size, plan.num_classes],
                "dtype": "float32",
                "meaning": f"{interface.output_name}, one per class in the order of labels.txt",
            },
        }


def _pixels(interface: Interface) -> dict[str, Any]:
    """How pixels from 0 to 255 are normalized: inside the models, or before."""
    mean, std = (list(values) for values in interface.normalization)
    if interface.input == "float32":
        return {"normalization": {"inside_model": False, "mean": mean, "std": std}}
    return {
        "value_range": [0, 255],
        "normalization": {"inside_model": True, "mean": mean, "std": std},
    }


def load_card(folder: pathlib.Path, spec: SubnetSpec) -> dict[str, Any]:
    """The folder's card, if it is one of this spec, else a fresh one without files.

    A file that is missing or has other bytes than the card says is left out of it.
    """
    fresh = spec.describe()
    card = fresh | {"versions": versions(), "date": now(), "files": {}}
    with contextlib.suppress(FailureError):  # no card or a damaged one: everything is made anew
        found = read_json(folder / CARD)
        if isinstance(found, dict) and {key: found.get(key) for key in fresh} == fresh:
            card = found
    files = card.get("files")
    entries = files.items() if isinstance(files, dict) else ()
    return card | {"files": {key: entry for key, entry in entries if _is_intact(folder, entry)}}


def save_card(folder: pathlib.Path, card: dict[str, Any]) -> None:
    """Writes the card as of this moment. Raises FailureError where the disk refuses."""
    write_json(folder / CARD, card | {"versions": versions(), "date": now()})


def describe_file(path: pathlib.Path) -> dict[str, Any]:
    """Name, size and hash of a file, or of a folder with all its files.

    Raises OSError where one cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        content = file.read_bytes()
        size += len(content)
        if file != path:
            digest.update(f"{file.relative_to(path).as_posix()} {len(content)} ".encode())
        digest.update(content)
    return {"file": path.name, "bytes": size, "sha256": digest.hexdigest()}


def versions() -> dict[str, str]:
    """What made the files."""
    try:
        ofa_tf = importlib.metadata.version("ofa_tf")
    except importlib.metadata.PackageNotFoundError:
        ofa_tf = "not installed"
    return {"ofa_tf": ofa_tf, "tensorflow": tf.__version__}


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _is_intact(folder: pathlib.Path, entry: Any) -> bool:
    """Whether a file is as its entry says; no other of whoever wrote the card is looked at."""
    try:
        fields = Fields(entry, folder / CARD, "")
        file = folder / fields.name("file")
        for key in _NUMBERS & entry.keys():
            fields.number_or_none(key)
        fields.named_numbers("ops_outside")
        return entry.items() >= describe_file(file).items()
    except (OSError, FailureError):
        return False
