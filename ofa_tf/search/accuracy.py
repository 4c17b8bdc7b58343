"""The accuracy predictor: archs and their accuracies collected, an MLP fitted, archs predicted."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import atomic_path
from ofa_tf.search.ranks import kendall, spearman
from ofa_tf.search.rows import RowFile
from ofa_tf.search.sampling import ArchSampler
from ofa_tf.spaces import Arch, SearchSpace, get_space

_FORMAT = "ofa_tf accuracy predictor 1"
_CHUNK = 1024  # archs predicted at once; their hidden layers stay in the processor's cache
_FEWEST = 10
_ENOUGH = 50
_TRUSTED_KENDALL = 0.5


def collect_accuracies(
    space: SearchSpace,
    evaluate: Callable[[Arch], float],
    path: str | os.PathLike,
    count: int,
    *,
    seed: int = 0,
    fingerprint: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Arch], np.ndarray]:
    """Evaluates archs of a space, each appended to a file at once; goes on where it was.

    Half of the archs are drawn uniformly and half spread over MACs, the largest and the smallest
    arch included; which arch an index stands for depends on the seed and the index only.

    Args:
        space: the space.
        evaluate: accuracy (0..1) of an arch.
        path: JSON lines, read first; archs that it has are not evaluated again.
        count: how many archs.
        seed: of the draws.
        fingerprint: of the supernet's weights and the images that `evaluate` uses.
        progress: called as (archs done, archs in all) before each evaluation and at the end.

    Returns: the archs and their accuracies, float64 (count,).

    Raises:
        UsageError: the file has rows of another space, seed or fingerprint, or damaged ones.
        FailureError: the file cannot be written, or an accuracy is not between 0 and 1.
    """
    identity = {"space": space.name, "seed": seed, "fingerprint": fingerprint}
    file = RowFile(path, identity)
    archs = space.decode(ArchSampler(space, seed).codes(count))
    known = {row["index"]: row for row in file.rows if _is_row(row)}
    for index, arch in enumerate(archs):
        if index in known and known[index]["arch"] == arch.to_dict():
            continue
        if progress is not None:
            progress(index, count)
        accuracy = float(evaluate(arch))
        if not 0 <= accuracy <= 1:
            raise FailureError(
                f"The accuracy of {arch.to_json()} came out as {accuracy}, not between 0 and 1: "
                f"look at the supernet's training."
            )
        known[index] = {"index": index, "arch": arch.to_dict(), "accuracy": accuracy}
        file.append(known[index])
    if progress is not None:
        progress(count, count)
    return archs, np.array([known[index]["accuracy"] for index in range(count)])


def _is_row(row: dict[str, Any]) -> bool:
    accuracy = row.get("accuracy")
    return {"index", "arch"} <= row.keys() and isinstance(accuracy, float) and 0 <= accuracy <= 1


@dataclasses.dataclass(frozen=True)
class AccuracyPredictor:
    """A small dense network from an arch to its accuracy, run in NumPy.

    Args:
        space: the space whose codes it takes.
        layers: (kernel, bias) of each layer; ReLU between them.
        report: how well it predicts archs that it was not fitted on (see `fit`), or where it
            comes from (see `load`).
    """

    space: SearchSpace
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    report: dict[str, Any]

    @classmethod
    def fit(
        cls,
        space: SearchSpace,
        archs: Sequence[Arch],
        accuracies: np.ndarray,
        *,
        hidden: Sequence[int] = (400, 400, 400),
        epochs: int = 300,
        patience: int = 30,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        held_out: float = 0.2,
        seed: int = 0,
    ) -> AccuracyPredictor:
        """Fits the published network (arXiv 1908.09791) with Adam and stops it early.

        A part of the archs is held out and only reported on: `report` has rmse, mae, kendall,
        spearman, n_fitted, n_held_out, the held-out `accuracies` and `predictions`, and
        `warning`, which is None or says why the predictor is not to be trusted. Early stopping
        looks at a tenth of the other archs.

        Args:
            space: the space.
            archs: the archs.
            accuracies: theirs, (n,), as fractions.
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
        order = np.random.default_rng(seed).permutation(len(codes))
        num_test = max(2, round(held_out * len(codes)))
        test, rest = order[:num_test], order[num_test:]
        layers = _fit_layers(
            space.one_hot(codes[rest]),
            targets[rest],
            hidden,
            epochs=epochs,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            seed=seed,
        )
        fitted = cls(space, layers, {})
        report = _report(targets[test], fitted.predict(codes[test]), len(rest))
        return dataclasses.replace(fitted, report=report)

    def predict(self, codes: np.ndarray) -> np.ndarray:
        """Accuracies of encoded archs: int (n, code length) -> float64 (n,).

        NaN at resolutions that the space does not have.
        """
        values = np.empty(len(codes))
        for start in range(0, len(codes), _CHUNK):
            part = slice(start, start + _CHUNK)
            hidden = self.space.one_hot(codes[part])
            for kernel, bias in self.layers[:-1]:
                hidden = hidden @ kernel
                hidden += bias
                np.maximum(hidden, 0, out=hidden)
            kernel, bias = self.layers[-1]
            values[part] = (hidden @ kernel + bias)[:, 0]
        resolutions = codes[:, self.space.columns["resolution"]][:, 0]
        values[~np.isin(resolutions, self.space.allowed("resolution"))] = np.nan
        return values

    __call__ = predict

    def save(self, path: str | os.PathLike) -> None:
        """Writes an .npz file of the weights and the report. Raises FailureError if it cannot."""
        head = json.dumps({"format": _FORMAT, "space": self.space.name, "report": self.report})
        arrays = {}
        for index, (kernel, bias) in enumerate(self.layers):
            arrays[f"kernel{index}"], arrays[f"bias{index}"] = kernel, bias
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, head=np.array(head), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike, space: SearchSpace | None = None) -> AccuracyPredictor:
        """Reads what `save` wrote, or a published .pth (or .pt) file of PyTorch.

        Of a published file, `report` has its `source` only: how well it predicts is not in it.
        Which resolutions it answers for: see `ofa_tf.interop.predictors`.

        Args:
            path: the file.
            space: the space, or a restriction of it, to answer for; None for the file's own.

        Raises:
            UsageError: the file is missing, damaged, or of another space; names it.
        """
        if pathlib.Path(path).suffix in (".pth", ".pt"):
            return cls._load_published(path, space)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                head = json.loads(str(arrays["head"]))
                pairs = range((len(arrays.files) - 1) // 2)
                layers = tuple((arrays[f"kernel{i}"], arrays[f"bias{i}"]) for i in pairs)
                name, report, known = head["space"], head["report"], head["format"] == _FORMAT
        except Exception as error:  # NumPy and zipfile raise many kinds for damaged files
            raise UsageError(f"{path} is no accuracy predictor: {error}.") from error
        if space is not None and name != space.name:
            raise UsageError(f"{path} is the accuracy predictor of {name}, not of {space.name}.")
        space = space or get_space(name)
        if not known or not _fit_together(layers, space):
            raise UsageError(f"{path} is damaged, or the accuracy predictor of another version.")
        return cls(space, layers, report)

    @classmethod
    def _load_published(cls, path: str | os.PathLike, space: SearchSpace | None):
        from ofa_tf.interop.predictors import read_accuracy_predictor  # torch, only where needed

        space, layers = read_accuracy_predictor(path, space)
        if not _fit_together(layers, space):
            raise UsageError(f"{path} is damaged: not all of its numbers are finite.")
        return cls(space, layers, {"source": f"published file {pathlib.Path(path).name}"})


def _fit_layers(
    features: np.ndarray,
    targets: np.ndarray,
    hidden: Sequence[int],
    *,
    epochs: int,
    patience: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Trains the network on standardized accuracies and takes the scale into the last layer."""
    import keras
    import tensorflow as tf

    mean, scale = targets.mean(), targets.std()
    standardized = ((targets - mean) / (scale or 1.0)).astype(np.float32)[:, None]
    network = keras.Sequential([keras.Input(features.shape[1:])])
    for index, width in enumerate((*hidden, 1)):
        network.add(
            keras.layers.Dense(
                width,
                activation="relu" if index < len(hidden) else None,
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed + index),
            )
        )
    optimizer = keras.optimizers.Adam(learning_rate, weight_decay=weight_decay)
    network.compile(optimizer, "mse", jit_compile=False)  # XLA compiles longer than this trains
    num_stop = max(1, len(features) // 10)
    fitted = tf.data.Dataset.from_tensor_slices((features[num_stop:], standardized[num_stop:]))
    network.fit(
        fitted.shuffle(len(features), seed=seed).batch(batch_size),
        validation_data=(features[:num_stop], standardized[:num_stop]),
        epochs=epochs,
        callbacks=[keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)],
        shuffle=False,  # the data set does it, from the seed
        verbose=0,
    )
    weights = [(layer.kernel.numpy(), layer.bias.numpy()) for layer in network.layers]
    kernel, bias = weights.pop()
    return (*weights, (np.float32(kernel * scale), np.float32(bias * scale + mean)))


def _report(truth: np.ndarray, predictions: np.ndarray, num_fitted: int) -> dict[str, Any]:
    errors, tau = predictions - truth, kendall(truth, predictions)
    warnings = []
    if num_fitted + len(truth) < _ENOUGH:
        warnings.append(f"only {num_fitted + len(truth)} archs were evaluated; take 50 or more")
    if not tau >= _TRUSTED_KENDALL:
        warnings.append(
            f"Kendall's tau on {len(truth)} held-out archs is {tau:.2f}, below 0.5: the order of "
            f"archs is hardly predicted; evaluate more archs, each on more images"
        )
    return {
        "rmse": float(np.sqrt((errors**2).mean())),
        "mae": float(np.abs(errors).mean()),
        "kendall": tau if np.isfinite(tau) else None,
        "spearman": spearman(truth, predictions) if np.isfinite(tau) else None,
        "n_fitted": num_fitted,
        "n_held_out": len(truth),
        "accuracies": truth.tolist(),
        "predictions": predictions.tolist(),
        "warning": "; ".join(warnings) or None,
    }


def _fit_together(layers: Sequence[tuple[np.ndarray, np.ndarray]], space: SearchSpace) -> bool:
    """Whether the layers lead from the features of a code to one number, all finite."""
    width = space.one_hot(space.encode([space.max()])).shape[1]
    for kernel, bias in layers:
        if kernel.ndim != 2 or len(kernel) != width or bias.shape != kernel.shape[1:]:
            return False
        if not np.isfinite(kernel).all() or not np.isfinite(bias).all():
            return False
        width = kernel.shape[1]
    return bool(layers) and width == 1
