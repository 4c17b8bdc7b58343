"""Workdir: the folder of one job, where every command finds what the one before it left."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import re
from typing import Any

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.fields import Fields, read_fields
from ofa_tf.files import write_bytes, write_json
from ofa_tf.locks import lock
from ofa_tf.spaces import (
    SearchSpace,
    SpaceFile,
    built_in_space,
    is_built_in,
    own_space,
    source_hash,
)
from ofa_tf.spaces.checks import difference

_log = logging.getLogger("ofa_tf")

_NUM_NAMED = 8  # settings that an error names

SEARCH_REMEDY = "Remove it and run ofa-search again."  # for what is damaged of ofa-search
CONFIG_REMEDY = "Restore it from a copy."

_SPACE_HASH = "space_file"  # in config.json: of the copy of the user's file, if there is one

# What ofa-train and ofa-import record of a job.
_SETTINGS = {"space", "data", "class_names", "eval_crop", "calibration_images", "recipe"}

_TEXTS_OF_IMAGES = ("dataset", "data_dir", "train_split", "test_split", "tfds_dir")
_OF_IMAGES = {*_TEXTS_OF_IMAGES, "num_validation", "flip", "seed", "splits"}
_OF_PLACES_AND_SPLITS = ("data_dir", "tfds_dir", "splits")


class Workdir:
    """The files of a job, by name. Nothing is read or written until it is asked for.

    Args:
        path: the folder.
        trust_space_file: run the job's copy of the file that defines its search space, though it
            changed since the job was begun.
    """

    _NO_JOB = "holds no job. Run ofa-train or ofa-import with this --workdir first"
    _GO_ON = (
        "Give another --workdir, or the same settings to go on with it; in ofa-train the "
        "recipe may change with --allow_recipe_change"
    )
    _CONFIG_REMEDY = CONFIG_REMEDY

    def __init__(self, path: str | os.PathLike, trust_space_file: bool = False):
        self.path = pathlib.Path(path)
        self.trust_space_file = trust_space_file
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
        return self.path / ("_".join(map(_part_of_name, parts)) + ".json")

    def finetuned(self, name: str) -> Workdir:
        """The folder in which a subnet of this job is fine-tuned."""
        return _FinetunedWorkdir(self.path / "finetuned" / name, self.trust_space_file)

    def lock(self, *, shared: bool = False) -> contextlib.AbstractContextManager[None]:
        """Keeps the files of the job to this process within the block; reading them stays free.

        Args:
            shared: together with others that ask so: each writes files of its own.

        Raises:
            FailureError: another process writes here; names it and its host.
        """
        return lock(self.path / ".lock", f"{self.path} is in use", shared=shared)

    def latency_lock(self, target: str) -> contextlib.AbstractContextManager[None]:
        """As `lock`, for the measuring of one target: other devices may be measured meanwhile."""
        name = f".latency_{_part_of_name(target)}.lock"
        return lock(self.path / name, f"{target} is being measured for {self.path}")

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
        config.pop(_SPACE_HASH, None)  # of the job that a fine-tuned subnet is of
        if (recorded := self._recorded_space()) is not None:
            config[_SPACE_HASH] = recorded
        if not self.config_file.exists() or self.config() != config:
            write_json(self.config_file, config)

    def check(self, config: dict[str, Any], allow_recipe_change: bool = False) -> None:
        """Raises what `start` does where there is a job with other settings; writes nothing."""
        if not self.config_file.exists():
            return
        recipe, others = _recipe_and_others(json.loads(json.dumps(config)))
        recipe_there, others_there = _recipe_and_others(self.config())
        for each in (others, others_there):
            each.pop(_SPACE_HASH, None)
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

        Only that runs the copy, which is told before.

        Raises:
            UsageError: nothing was trained here, or the copy is another file than it was and is
                not trusted, or it is wrong.
            FailureError: the settings are damaged, or the copy is missing.
        """
        name = self.config()["space"]
        if is_built_in(name):
            return built_in_space(name)
        if not self.space_file.exists():
            raise FailureError(
                f"The search space {name:.200} of the job in {self.path} is not a built-in one, "
                f"and {self.space_file}, the copy of the file that defines it, is missing. Put "
                f"that file there."
            )
        return own_space(SpaceFile(self.space_file, name), self._before_running)

    def _before_running(self, source: str) -> None:
        """Tells that the copy is run, or refuses to. Who gave the job may have written it."""
        recorded = self.config().get(_SPACE_HASH)
        if recorded not in (None, source_hash(source)) and not self.trust_space_file:
            raise UsageError(
                f"{self.space_file}, which defines the search space of the job, is not the file "
                f"with which the job was begun, and would be run. Put that file back; or look at "
                f"this one, and give --trust_space_file to run it."
            )
        _log.warning("Running %s, which defines the search space of this job.", self.space_file)

    def _recorded_space(self) -> str | None:
        """The hash of the job's own file of a space, as it was when the job was begun."""
        if self.config_file.exists():
            return self.config().get(_SPACE_HASH)
        if not self.space_file.exists():
            return None
        return source_hash(self.space_file.read_text(encoding="utf-8-sig"))

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
        config = read_fields(self.config_file, self._CONFIG_REMEDY)
        _check_config(config)
        return dict(config.items())


class _FinetunedWorkdir(Workdir):
    """The folder of a fine-tuned subnet, within that of its job."""

    _NO_JOB = "holds no fine-tuned subnet. Run ofa-finetune first"
    _CONFIG_REMEDY = "Remove the folder and run ofa-finetune again."
    _GO_ON = (
        "Give the same settings to go on with it, remove the folder to begin anew, or let the "
        "recipe change with --allow_recipe_change"
    )


def _part_of_name(text: str) -> str:
    """A text, such as the serial or address of a phone, as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", text)


def _check_config(config: Fields) -> None:
    """Raises FailureError where a setting is missing, or is nothing that the commands can use."""
    missing = config.missing(_SETTINGS)
    if missing:
        raise config.error(f"{', '.join(missing)} are missing")
    config.text("space")
    if not config.texts("class_names"):
        raise config.error("class_names is empty")
    config.number("eval_crop", 0, 1)
    config.whole("calibration_images", 1)
    config.text_or_none("init")
    config.text_or_none(_SPACE_HASH)
    if "data" in config:
        data = config.fields("data")
        unknown = sorted({name for name, _ in data.items()} - _OF_IMAGES)
        if unknown:
            raise data.error(f"data.{unknown[0]:.50} is no setting that this version knows")
        for name in _TEXTS_OF_IMAGES:
            data.text_or_none(name)
        if not data.missing(["splits"]):
            data.whole("splits", 1)
        if "num_validation" in data:
            data.whole("num_validation")
        if "flip" in data:
            data.truth("flip")
        data.whole("seed")
    recipe = config.fields("recipe")
    recipe.fields_or_empty("augmentation")
    recipe.fields_or_empty("arch")
    phases = [] if recipe.missing(["phases"]) else recipe.several("phases")
    if not phases and not recipe.missing(["phases"]):
        raise recipe.error("recipe.phases is empty")
    for phase in phases:
        phase.text("name")
        missing = phase.missing(name for name, _ in phases[0].items())
        if missing:
            raise phase.error(f"a phase lacks {', '.join(missing)}, which the first one has")


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
    found: dict[str, Any] = {}
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
