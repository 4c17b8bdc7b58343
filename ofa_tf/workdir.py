"""Workdir: the folder of one job, where every command finds what the one before it left."""

from __future__ import annotations

import json
import os
import pathlib
import re
from typing import Any

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import read_json, write_bytes, write_json
from ofa_tf.spaces import SearchSpace, built_in_space, get_space
from ofa_tf.spaces.checks import difference

_NUM_NAMED = 8  # settings that an error names

# What ofa-train and ofa-import record of a job.
_SETTINGS = {"space", "data", "class_names", "eval_crop", "calibration_images", "recipe"}

_OF_PLACES_AND_SPLITS = ("data_dir", "tfds_dir", "splits")


class Workdir:
    """The files of a job, by name. Nothing is read or written until it is asked for.

    Args:
        path: the folder.
    """

    _NO_JOB = "holds no job. Run ofa-train or ofa-import with this --workdir first"
    _GO_ON = (
        "Give another --workdir, or the same settings to go on with it; in ofa-train the "
        "recipe may change with --allow_recipe_change"
    )

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self.config_file = self.path / "config.json"
        self.space_file = self.path / "space.py"
        self.images = self.path / "images.json"
        self.checkpoints = self.path / "checkpoints"
        self.teacher = self.phase("largest")
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.accuracy_rows = self.path / "accuracy_rows.jsonl"
        self.accuracy_predictor = self.path / "accuracy_predictor.npz"
        self.accuracy_report = self.path / "accuracy_report.json"
        self.accuracy_tuning = self.path / "accuracy_tuning"
        self.search_result = self.path / "search.json"
        self.evaluated_rows = self.path / "evaluated_rows.jsonl"
        self.subnets = self.path / "subnets"
        self.measurements = self.path / "measurements.jsonl"
        self.results = self.path / "results.json"
        self.pictures = self.path / "pictures"

    def front(self, measure: str) -> pathlib.Path:
        """The front of accuracy against a measure."""
        return self.path / f"front_{measure}.json"

    def phase(self, name: str) -> pathlib.Path:
        """The weights that a phase of training left."""
        return self.checkpoints / f"phase_{name}.npz"

    def latency_table(
        self,
        target: str,
        threads: int,
        precision: str,
        form: str = "cpu",
        cpus: str = "",
        delegate: str = "xnnpack",
    ) -> pathlib.Path:
        """The latency table of a target, run so: `form`, `cpus` and `delegate` if not as usual."""
        unusual = [
            form * (form != "cpu"),
            f"cpus-{cpus}" * bool(cpus),
            delegate * (delegate != "xnnpack"),
        ]
        parts = ["latency", target, precision, *filter(None, unusual), f"{threads}t"]
        return self.path / ("_".join(re.sub(r"[^\w.-]+", "-", part) for part in parts) + ".json")

    def finetuned(self, name: str) -> Workdir:
        """The folder in which a subnet of this job is fine-tuned."""
        return _FinetunedWorkdir(self.path / "finetuned" / name)

    def start(self, config: dict[str, Any], allow_recipe_change: bool = False) -> None:
        """Records the settings of a job, or checks that they are those of the job that is here.

        Args:
            config: the settings.
            allow_recipe_change: go on with another recipe, which is then the job's.

        Raises:
            UsageError: the folder holds a job with other settings; they are named.
            FailureError: the folder cannot be written.
        """
        # As JSON has it, so that tuples and lists compare equal.
        config = json.loads(json.dumps(config))
        self.check(config, allow_recipe_change)
        if not self.config_file.exists() or self.config() != config:
            write_json(self.config_file, config)

    def check(self, config: dict[str, Any], allow_recipe_change: bool = False) -> None:
        """Raises what `start` does where there is a job with other settings; writes nothing."""
        if not self.config_file.exists():
            return
        recipe, others = _recipe_and_others(json.loads(json.dumps(config)))
        recipe_there, others_there = _recipe_and_others(self.config())
        # A flag that also decides which images there are is more than the recipe.
        here, there = recipe | others, recipe_there | others_there
        may_differ = set(recipe) - set(others) if allow_recipe_change else set()
        different = [
            f"--{name} was {_short(there.get(name))}, is {_short(here.get(name))}"
            for name in sorted(set(there) | set(here))
            if there.get(name) != here.get(name) and name not in may_differ
        ]
        if not different:
            return
        named = different[:_NUM_NAMED]
        if len(different) > len(named):
            named.append(f"{len(different) - len(named)} more")
        raise UsageError(
            f"{self.path} holds a job with other settings: {'; '.join(named)}. {self._GO_ON}."
        )

    def space(self) -> SearchSpace:
        """The search space of the job; one of the user's own from the copy of its file.

        Raises:
            UsageError: nothing was trained here, or the copy was changed so that it is wrong.
            FailureError: the settings are damaged, or the copy is missing.
        """
        name = self.config()["space"]
        if self.space_file.exists():
            return get_space(f"{self.space_file}:{name}")
        try:
            return built_in_space(name)
        except UsageError as error:
            raise FailureError(
                f"The search space {name} of the job in {self.path} is not a built-in one, and "
                f"{self.space_file}, the copy of the file that defines it, is missing. Put that "
                f"file there."
            ) from error

    def keep_space(self, space: SearchSpace) -> None:
        """Keeps a copy of the file that defines the space of a job which begins here.

        Raises:
            FailureError: the folder cannot be written.
        """
        if not self.config_file.exists():
            if space.source:
                write_bytes(self.space_file, space.source.encode())
            elif self.space_file.exists():  # of a job whose config.json was removed
                self.space_file.unlink()

    def check_space(self, space: SearchSpace) -> None:
        """Checks that a space is still what it was where there is a job of one of this name.

        Raises:
            UsageError: its networks are others; tells the first difference.
        """
        if not self.config_file.exists() or self.config()["space"] != space.name:
            return  # `check` tells of another name
        changed = difference(self.space(), space)
        if changed:
            raise UsageError(
                f"{space.name} is not what it was when the job in {self.path} was begun: "
                f"{changed}. Give another --workdir, or the file as it was; a copy is "
                f"{self.space_file}."
            )

    def config(self) -> dict[str, Any]:
        """The settings of the job.

        Raises:
            UsageError: nothing was trained here.
            FailureError: the settings are damaged.
        """
        if not self.config_file.exists():
            raise UsageError(f"{self.path} {self._NO_JOB}.")
        config = read_json(self.config_file)
        missing = _SETTINGS - set(config)
        if missing:
            raise FailureError(
                f"{self.config_file} is damaged: {', '.join(sorted(missing))} are missing. "
                "Restore it from a copy."
            )
        return config


class _FinetunedWorkdir(Workdir):
    """The folder of a fine-tuned subnet, within that of its job."""

    _NO_JOB = "holds no fine-tuned subnet. Run ofa-finetune first"
    _GO_ON = (
        "Give the same settings to go on with it, remove the folder to begin anew, or let the "
        "recipe change with --allow_recipe_change"
    )


def _recipe_and_others(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The flags of a job's recipe, and those of its other settings but where its images are."""
    others = {name: value for name, value in config.items() if name != "recipe"}
    return _as_flags(config["recipe"]), _as_flags(others | {"data": chosen_images(others["data"])})


def chosen_images(data: dict[str, Any] | None) -> dict[str, Any] | None:
    """The settings that choose a job's images, wherever these are; None where it has none.

    Which images are in a folder is compared by what images.json tells of them.
    """
    if data is None:
        return None
    chosen = {name: value for name, value in data.items() if name not in _OF_PLACES_AND_SPLITS}
    return chosen | {"data_dir": "a folder" if data.get("data_dir") else None}


def _as_flags(settings: dict[str, Any]) -> dict[str, Any]:
    """Nested settings as the flags that they come from; a column of values for the phases."""
    found = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= _as_flags(value)
        elif name == "phases":
            columns = {field: [phase[field] for phase in value] for field in value[0]}
            found |= {"phases": columns.pop("name"), **columns}
        else:
            found[name] = value
    return found


def _short(value: Any) -> str:
    """A setting as one would type it."""
    if isinstance(value, list):
        text = ",".join(map(_short, value))
    elif isinstance(value, float) and value.is_integer():
        text = str(int(value))
    else:
        text = "not given" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
