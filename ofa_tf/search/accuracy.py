"""The accuracy predictor: an MLP, or several, from archs to accuracies."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ofa_tf.errors import UsageError, first_line
from ofa_tf.fields import Fields
from ofa_tf.files import atomic_path, parse_json
from ofa_tf.interop import is_published_predictor
from ofa_tf.search.accuracy_fitting import fit_network, report_on, split
from ofa_tf.search.dense_network import DenseNetwork, Layers
from ofa_tf.spaces import Arch, SearchSpace, built_in_space

_FORMATS = ("ofa_tf accuracy predictor 1", "ofa_tf accuracy predictor 2")
_FEWEST = 10


@dataclasses.dataclass(frozen=True)
class AccuracyPredictor:
    """Small dense networks from an arch to its accuracy, run in NumPy.

    Args:
        space: the space whose codes it takes.
        members: the layers of each network, one or an ensemble: (kernel, bias) of each layer, with
            ReLU between them.
        report: how well it predicts archs that it was not fitted on (see `fit`), or where it
            comes from (see `load`).
    """

    space: SearchSpace
    members: tuple[Layers, ...]
    report: dict[str, Any]

    @classmethod
    def fit(
        cls,
        space: SearchSpace,
        archs: Sequence[Arch],
        accuracies: np.ndarray,
        *,
        ensemble: int = 1,
        hidden: Sequence[int] = (400, 400, 400),
        epochs: int = 300,
        patience: int = 30,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        held_out: float = 0.2,
        seed: int = 0,
    ) -> AccuracyPredictor:
        """Fits networks with Adam and stops them early; they begin as a linear predictor.

        The defaults are the published network (arXiv 1908.09791), but for one unit in each hidden
        layer that carries the linear part (see `ofa_tf.search.accuracy_fitting`).

        A part of the archs is held out and only reported on: `report` has rmse, mae, kendall,
        spearman, n_fitted, n_held_out, the held-out `accuracies`, `predictions` and (of an
        ensemble) `spreads`, and `warning`, which is None or says why the predictor is not to be
        trusted. Of the other archs, each network leaves a tenth out, on which it is stopped early.

        Args:
            space: the space.
            archs: the archs.
            accuracies: theirs, (n,), as fractions.
            ensemble: how many networks, which differ in their first weights, in the order of the
                archs and in those that each leaves out.
            hidden: widths of the hidden layers.
            epochs: at most so many.
            patience: epochs without a better fit after which it ends.
            batch_size: archs in a step.
            learning_rate: of Adam.
            weight_decay: of Adam, decoupled.
            held_out: fraction that is held out.
            seed: of the split, the first weights and the order of the archs.

        Raises:
            UsageError: fewer than ten archs, or not one finite accuracy for each.
        """
        codes, targets = space.encode(archs), np.asarray(accuracies, np.float64)
        if len(codes) < _FEWEST or targets.shape != (len(codes),) or not np.isfinite(targets).all():
            raise UsageError(
                f"An accuracy predictor is fitted on {_FEWEST} archs or more with a finite "
                f"accuracy each, not on {len(codes)} archs and {targets.size} accuracies."
            )
        rest, test = split(len(codes), held_out, seed)
        members = tuple(
            fit_network(
                space.one_hot(codes[rest]),
                targets[rest],
                hidden,
                epochs=epochs,
                patience=patience,
                batch_size=batch_size,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                seed=(seed, member),
            )
            for member in range(ensemble)
        )
        fitted = cls(space, members, {})
        predictions, spreads = fitted.predict(codes[test]), None
        if ensemble > 1:
            spreads = fitted.spread(codes[test])
        report = report_on(targets[test], predictions, spreads, len(rest))
        return dataclasses.replace(fitted, report=report)

    def predict(self, codes: np.ndarray) -> np.ndarray:
        """Accuracies of encoded archs, the mean over the members: int (n, code length) -> (n,).

        float64; NaN at resolutions that the space does not have.
        """
        return self._each(codes).mean(axis=0)

    __call__ = predict

    def spread(self, codes: np.ndarray) -> np.ndarray:
        """How far the members disagree: their standard deviation, float64 (n,).

        0 where there is one member; NaN as in `predict`.
        """
        return self._each(codes).std(axis=0)

    def _each(self, codes: np.ndarray) -> np.ndarray:
        """The accuracies by each member: float64 (members, n)."""
        return np.stack([network(codes) for network in self._networks])

    @functools.cached_property
    def _networks(self) -> tuple[DenseNetwork, ...]:
        return tuple(DenseNetwork(self.space, layers) for layers in self.members)

    def save(self, path: str | os.PathLike) -> None:
        """Writes an .npz file of the weights and the report. Raises FailureError if it cannot."""
        layers = [len(member) for member in self.members]
        head = {
            "format": _FORMATS[-1],
            "space": self.space.name,
            "layers": layers,
            "report": self.report,
        }
        arrays = {}
        for index, (kernel, bias) in enumerate(layer for m in self.members for layer in m):
            arrays[f"kernel{index}"], arrays[f"bias{index}"] = kernel, bias
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, head=np.array(json.dumps(head)), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike, space: SearchSpace | None = None) -> AccuracyPredictor:
        """Reads what `save` wrote, or a published .pth (or .pt) file of PyTorch.

        Of a published file, `report` has its `source` only: how well it predicts is not in it.
        Which resolutions it answers for: see `ofa_tf.interop.predictors`.

        Args:
            path: the file.
            space: the space, or a restriction of it, to answer for; None for the file's own, if
                that is a built-in one.

        Raises:
            UsageError: the file is missing, damaged, or of another space; names it.
        """
        if is_published_predictor(path):
            return cls._load_published(path, space)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                head = Fields(parse_json(str(arrays["head"])), path, "", "head", ValueError)
                pairs = range((len(arrays.files) - 1) // 2)
                layers = iter([(arrays[f"kernel{i}"], arrays[f"bias{i}"]) for i in pairs])
                # The first format had one member and did not say so.
                counts = head.numbers("layers") if "layers" in head else [len(pairs)]
                members = tuple(tuple(itertools.islice(layers, int(count))) for count in counts)
                name, known = head.text("space"), head.text("format") in _FORMATS
                report = _read_report(head.fields("report"))
        except Exception as error:  # NumPy and zipfile raise many kinds for damaged files
            said = first_line(error).rstrip(".")
            raise UsageError(
                f"{path} is no accuracy predictor: {said}. Make it anew with ofa-predictor, or "
                f"give another file."
            ) from error
        if space is not None and name != space.name:
            raise UsageError(f"{path} is the accuracy predictor of {name}, not of {space.name}.")
        space = space or built_in_space(name)
        if not known or not members or not all(_fit_together(each, space) for each in members):
            raise UsageError(f"{path} is damaged, or the accuracy predictor of another version.")
        return cls(space, members, report)

    @classmethod
    def _load_published(cls, path: str | os.PathLike, space: SearchSpace | None):
        from ofa_tf.interop.predictors import read_accuracy_predictor  # torch, only where needed

        space, layers = read_accuracy_predictor(path, space)
        if not _fit_together(layers, space):
            raise UsageError(f"{path} is damaged: not all of its numbers are finite.")
        return cls(space, (layers,), {"source": f"published file {pathlib.Path(path).name}"})


def _read_report(report: Fields) -> dict[str, Any]:
    """A report as `AccuracyPredictor.fit` made it; one of another origin tells what it tells."""
    for key in ("rmse", "mae", "n_held_out"):
        if "made_from" in report:  # as ofa-predictor has it
            report.number(key)
        report.number_or_none(key)
    for key in ("kendall", "spearman"):
        report.number_or_none(key)
    if "spreads" in report:
        report.numbers("spreads")
    report.text_or_none("warning")
    return dict(report.items())


def _fit_together(layers: Layers, space: SearchSpace) -> bool:
    """Whether the layers lead from the features of a code to one number, all finite."""
    width = space.one_hot(space.encode([space.max()])).shape[1]
    for kernel, bias in layers:
        if not all(each.dtype.kind == "f" for each in (kernel, bias)):
            return False
        if kernel.ndim != 2 or len(kernel) != width or bias.shape != kernel.shape[1:]:
            return False
        if not np.isfinite(kernel).all() or not np.isfinite(bias).all():
            return False
        width = kernel.shape[1]
    return bool(layers) and width == 1
