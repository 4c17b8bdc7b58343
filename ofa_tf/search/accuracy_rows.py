"""Accuracies of archs, collected in files by one process or by several at once.

Each worker appends to a file of its own and reads all of them: no line can be torn by another
writer, even on NFS, where neither O_APPEND nor a lock shared by all could be relied on.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.search.codes import ArchSampler
from ofa_tf.search.evolution import Candidate
from ofa_tf.search.rows import RowFile, read_rows
from ofa_tf.spaces import Arch, SearchSpace


def collect_accuracies(
    space: SearchSpace,
    evaluate: Callable[[Arch], float],
    path: str | os.PathLike,
    count: int,
    *,
    seed: int = 0,
    fingerprint: str = "",
    worker: int = 0,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Arch], np.ndarray]:
    """Evaluates archs of a space, each appended to a file at once; goes on where it was.

    Half of the archs are drawn uniformly and half spread over MACs, the largest and the smallest
    arch included; which arch an index stands for depends on the seed and the index only. Worker w
    of n evaluates the indices w, w + n, w + 2 n, ... as far as no file has them; a later run may
    have another number of workers. While it evaluates, its file is locked.

        job = load_job("runs/quickstart")
        evaluator = job.evaluator("validation", 2000)
        archs, accuracies = collect_accuracies(
            job.space, evaluator.accuracy, "rows.jsonl", 400, fingerprint=job.fingerprint
        )
        predictor = AccuracyPredictor.fit(job.space, archs, accuracies)

    Args:
        space: the space.
        evaluate: accuracy (0..1) of an arch.
        path: JSON lines of worker 0; worker 3 has `rows.3.jsonl` beside `rows.jsonl`.
        count: how many archs, over all workers.
        seed: of the draws.
        fingerprint: of the supernet's weights and the images that `evaluate` uses.
        worker: which share to evaluate.
        num_workers: how many shares there are.
        progress: called as (archs done, archs in all) of the share, before each evaluation and at
            the end.

    Returns: the archs and their accuracies, float64, in the order of their index: `count` of them,
        or fewer as long as other workers have not evaluated theirs.

    Raises:
        UsageError: no such worker, another process has its file, or a file has rows of another
            space, seed or fingerprint, or damaged ones.
        FailureError: the file cannot be written, an accuracy is not between 0 and 1, or there
            are archs to evaluate on a system without file locks.
    """
    if not 0 <= worker < num_workers:
        raise UsageError(
            f"With {num_workers} workers, the worker is one of 0 to {num_workers - 1}, "
            f"not {worker}."
        )
    identity = {"space": space.name, "seed": seed, "fingerprint": fingerprint}
    share, path = range(worker, count, num_workers), pathlib.Path(path)
    known = _read_all(space, path, identity)
    if not known.keys() >= set(share):
        own = _file_of(path, worker)
        with _locked([own] if num_workers > 1 else [own, *_files(path)]):
            known = _read_all(space, path, identity)
            file, sampler = RowFile(own, identity), ArchSampler(space, seed)
            missing = [index for index in share if index not in known]
            for done, index in enumerate(missing, start=len(share) - len(missing)):
                if progress is not None:
                    progress(done, len(share))
                arch = space.decode(sampler.code(index)[None])[0]
                accuracy = _fraction(arch, evaluate(arch))
                file.append({"index": index, "arch": arch.to_dict(), "accuracy": accuracy})
        known = _read_all(space, path, identity)
    if progress is not None:
        progress(len(share), len(share))
    found = [known[index] for index in range(count) if index in known]
    return [arch for arch, _ in found], np.array([accuracy for _, accuracy in found])


def _fraction(arch: Arch, accuracy: float) -> float:
    if not 0 <= accuracy <= 1:
        raise FailureError(
            f"The accuracy of {arch.to_json()} came out as {accuracy}, not between 0 and 1: "
            f"look at the supernet's training."
        )
    return float(accuracy)


def _file_of(path: pathlib.Path, worker: int) -> pathlib.Path:
    return path.with_suffix(f".{worker}{path.suffix}") if worker else path


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    """The files of all workers that there are."""
    name = re.compile(rf"{re.escape(path.stem)}(\.\d+)?{re.escape(path.suffix)}")
    if not path.parent.is_dir():
        return []
    return sorted(each for each in path.parent.iterdir() if name.fullmatch(each.name))


@contextlib.contextmanager
def _locked(paths: list[pathlib.Path]) -> Iterator[None]:
    """Keeps files for this process, so that nobody evaluates the same archs meanwhile."""
    try:
        import fcntl  # not on Windows, where all else of this module works
    except ImportError as error:
        raise FailureError(
            "Evaluating archs takes file locks (fcntl), which this system does not have: "
            "evaluate them on Linux or macOS; their rows can be used here."
        ) from error
    with contextlib.ExitStack() as stack:
        for path in dict.fromkeys(paths):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open(path, "ab"))
            except OSError as error:
                raise FailureError(f"{path} could not be written: {error.strerror}.") from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"{path} is being filled by another process: wait until it ends, or let "
                    f"several work at once, each as another worker."
                ) from error
            except OSError:
                pass  # A file system without locks: one worker is then not to be started twice.
        yield


def _read_all(
    space: SearchSpace, path: pathlib.Path, identity: dict[str, Any]
) -> dict[int, tuple[Arch, float]]:
    """The arch and accuracy of each index that is in the file of any worker."""
    found, places = {}, {}
    for each in _files(path):
        for number, row in enumerate(read_rows(each, identity), start=1):
            place = f"{each}, line {number}"
            index, *value = _checked(space, row, place)
            if found.setdefault(index, tuple(value)) != tuple(value):
                raise UsageError(
                    f"{place}: the arch with index {index} is also in {places[index]}, but not "
                    f"with the same values; remove one of the two lines."
                )
            places.setdefault(index, place)
    return found


def _checked(space: SearchSpace, row: dict[str, Any], place: str) -> tuple[int, Arch, float]:
    """Index, arch and accuracy of a row. Raises UsageError naming the place."""
    index, accuracy = row.get("index"), row.get("accuracy")
    if type(index) is not int or index < 0 or not isinstance(row.get("arch"), dict):
        raise UsageError(f"{place}: this is no index with an arch; remove the line.")
    if type(accuracy) not in (int, float) or not 0 <= accuracy <= 1:
        raise UsageError(
            f"{place}: an accuracy is a number between 0 and 1, not {accuracy!r:.80}; remove the "
            "line."
        )
    try:
        return index, space.arch(row["arch"]), float(accuracy)
    except UsageError as error:
        raise UsageError(f"{place}: {error} Remove the line.") from error


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
