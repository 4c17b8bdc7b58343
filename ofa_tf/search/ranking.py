"""Candidates of a search, evaluated from the supernet: what a predictor only guesses, known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ofa_tf.errors import UsageError
from ofa_tf.search.evolution import Candidate
from ofa_tf.search.rows import RowFile
from ofa_tf.spaces import Arch


def evaluate_archs(
    archs: Iterable[Arch],
    evaluate: Callable[[Arch], float],
    path: str | os.PathLike,
    *,
    fingerprint: str,
    num_images: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Arch, float]:
    """Evaluates each arch once, ever: accuracies are kept in a file and found there again.

    Args:
        archs: of one space; several may be equal.
        evaluate: accuracy (0..1) of an arch.
        path: JSON lines, read first and appended to.
        fingerprint: of the supernet and of how subnets are evaluated.
        num_images: on which `evaluate` counts; rows of another number stay unused.
        progress: called as (archs done, archs in all).

    Returns: accuracies by arch.

    Raises:
        UsageError: the file has rows of another supernet, or damaged ones.
        FailureError: the file cannot be written.
    """
    file = RowFile(path, {"fingerprint": fingerprint})
    for number, row in enumerate(file.rows, start=1):
        _check(row, f"{file.path}, line {number}")
    kept = {row["arch"]: row["accuracy"] for row in file.rows if row["num_images"] == num_images}
    found: dict[Arch, float] = {}
    distinct = list(dict.fromkeys(archs))
    for done, arch in enumerate(distinct):
        if progress is not None:
            progress(done, len(distinct))
        text = arch.to_json()
        if text not in kept:
            kept[text] = float(evaluate(arch))
            file.append({"num_images": num_images, "arch": text, "accuracy": kept[text]})
        found[arch] = kept[text]
    if progress is not None:
        progress(len(distinct), len(distinct))
    return found


def _check(row: dict[str, Any], place: str) -> None:
    """Raises UsageError, which names the place, where a row is none that `evaluate_archs` wrote."""
    kinds = {"num_images": int, "arch": str, "accuracy": float}
    fits = all(type(row.get(key)) is kind for key, kind in kinds.items())
    if not fits or not 0 <= row["accuracy"] <= 1:
        raise UsageError(f"{place}: this is no evaluated arch; remove the line.")


def ranked(candidates: Sequence[Candidate], accuracies: dict[Arch, float]) -> list[Candidate]:
    """The candidates by falling evaluated accuracy; of equal ones the better predicted first."""
    return sorted(candidates, key=lambda c: (-accuracies[c.arch], -c.accuracy))
