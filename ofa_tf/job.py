"""Job: what was trained or imported in a workdir, for the commands and for scripts."""

from __future__ import annotations

import functools
import logging
import os
import re
import shlex
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.fields import Fields, read_fields
from ofa_tf.files import read_json, write_json
from ofa_tf.quiet import import_tensorflow
from ofa_tf.spaces import read_arch
from ofa_tf.workdir import SEARCH_REMEDY, Workdir, chosen_images

if TYPE_CHECKING:
    from ofa_tf.data import ImageData
    from ofa_tf.data.census import Census
    from ofa_tf.models import Supernet
    from ofa_tf.search import LatencyTable
    from ofa_tf.spaces import SearchSpace
    from ofa_tf.training.calibration import SubnetEvaluator

_log = logging.getLogger("ofa_tf")

# What the tables and pictures have of a row of search.json, besides what each row has.
_NUMBERS_OF_SUBNETS = (
    "budget_ms",
    "predicted_latency_ms",
    "evaluated_accuracy",
    "macs",
    "params",
)


_FINGERPRINT = re.compile(
    r"(?P<weights>[0-9a-f]+)-(?P<calibration_images>\d+)-(?P<eval_crop>[\d.]+(?:e-\d+)?)"
    r"(?:-(?P<images>[0-9a-f]{12,}))?(?:-(?P<more>.+))?"
)


def load_job(workdir: str | os.PathLike, trust_space_file: bool = False) -> Job:
    """The job in a workdir of ofa-train, ofa-import or ofa-quickstart.

    Args:
        workdir: the folder.
        trust_space_file: as in `Workdir`.

    Raises:
        UsageError: the workdir holds no job.
    """
    return Job(Workdir(workdir, trust_space_file))


class Job:
    """A job that was begun by ofa-train or ofa-import: its space, images and newest weights.

    Each is loaded when it is first asked for.

    Attributes:
        workdir: where it is.
        config: the settings with which it was begun.

    Raises:
        UsageError: the workdir holds no job.
    """

    def __init__(self, workdir: Workdir):
        self.workdir = workdir
        self.config = workdir.config()

    @functools.cached_property
    def space(self) -> SearchSpace:
        """As `Workdir.space`."""
        return self.workdir.space()

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.config["class_names"])

    @functools.cached_property
    def data(self) -> ImageData:
        """Its images as they are now; where others are there than at its start, a warning says so.

        Raises:
            UsageError: the job has no images, they are not where they were, or their classes are
                others.
        """
        folder = self.data_config.get("data_dir")
        if folder and not os.path.exists(os.path.expanduser(folder)):
            where = "" if os.path.isabs(folder) else f" in {os.getcwd()}"
            raise UsageError(
                f"The images of the job in {self.workdir.path} are no longer in {folder}{where}. "
                "Give --data_dir=PATH to say where they are now."
            )
        data = self._load_data(self.data_config)
        changes = self._changes(data)
        if changes:
            _log.warning(
                "The images of the job in %s are not those that it was begun with: %s. What is "
                "evaluated from now on is of the images as they are. To learn from them, train "
                "with another --workdir.",
                self.workdir.path,
                changes,
            )
        return data

    def move_images(self, data_dir: str | os.PathLike) -> None:
        """Records where the folder of the images is now, if the same ones are in it.

        Raises:
            UsageError: others are in it, or the images of the job are in no folder.
            FailureError: another process writes to the job.
        """
        settings, data_dir = self.data_config, _absolute(data_dir)
        if settings.get("data_dir") is None:
            raise UsageError(
                f"--data_dir={data_dir}: the images of the job in {self.workdir.path} are the TFDS "
                f"set {settings['dataset']}. Leave it out."
            )
        if settings["data_dir"] == data_dir:
            return
        moved = {**settings, "data_dir": data_dir}
        data = self._load_data(moved)
        changes = self._changes(data)
        if changes is None:  # begun without a record
            if os.path.isdir(settings["data_dir"]):
                changes = self._load_data(settings).census.changes(data.census)
            else:
                _log.warning(
                    "The job in %s keeps no record of its images: whether those in %s are the same "
                    "cannot be told, but their classes are.",
                    self.workdir.path,
                    data_dir,
                )
        if changes:
            raise UsageError(
                f"--data_dir={data_dir} does not hold the images of the job in "
                f"{self.workdir.path}; others are: {changes}. Give the folder that does, or "
                "another --workdir to train on these."
            )
        self.config = {**self.config, "data": moved}
        if self.workdir.config() != self.config:  # another worker of the same command was here
            with self.workdir.lock():
                write_json(self.workdir.config_file, self.config)
        self.__dict__["data"] = data

    @functools.cached_property
    def census(self) -> Census | None:
        """What images the job was begun with; None where it keeps no record of that."""
        from ofa_tf.data.census import Census

        if not self.workdir.images.exists() or "splits" not in self.data_config:
            return None
        remedy = "Remove it to go on without."
        try:
            return Census.from_dict(read_json(self.workdir.images, remedy))
        except ValueError as error:
            raise FailureError(f"{self.workdir.images} is damaged: {error}. {remedy}") from error

    @property
    def images_fingerprint(self) -> str:
        """Stands for the images as they are now; empty where the job keeps no record of them.

        Where no folder of images is there, nothing can be evaluated, and it stands for those that
        the job was begun with. So it does for a TFDS set, which does not change.
        """
        if self.config["data"] is None or self.census is None:
            return ""
        folder = self.data_config.get("data_dir")
        found = self.data.census if folder and os.path.isdir(folder) else None
        return (found or self.census).fingerprint

    def _load_data(self, settings: dict[str, Any]) -> ImageData:
        data = load_data(settings, self.workdir)
        _check_classes(self, data)
        return data

    def _changes(self, data: ImageData) -> str | None:
        """How images differ from the job's; None where the job keeps no record."""
        if self.census is None or data.census is None:
            return None
        return self.census.changes(data.census)

    @property
    def data_config(self) -> dict[str, Any]:
        """The settings of the images. Raises UsageError where the job has none."""
        if self.config["data"] is None:
            raise UsageError(
                f"The job in {self.workdir.path} has no images, which this command needs: give "
                "--data_dir or --dataset to ofa-import, with another --workdir."
            )
        return self.config["data"]

    @functools.cached_property
    def supernet(self) -> Supernet:
        """Raises UsageError where there is no checkpoint, FailureError where none can be read."""
        import_tensorflow()
        from ofa_tf.models import Supernet

        supernet = Supernet(self.space, len(self.class_names))
        self.load_weights(supernet)
        return supernet

    def load_weights(self, supernet: Supernet) -> None:
        """Takes over the newest weights, into a supernet that was made elsewhere.

        Raises:
            UsageError: there is no checkpoint.
            FailureError: none can be read, or they are of another network.
        """
        from ofa_tf.training.checkpoints import CheckpointFolder

        state = CheckpointFolder(self.workdir.checkpoints).load_newest(weights=supernet.variables)
        if state is None:
            raise UsageError(
                f"{self.workdir.checkpoints} has no checkpoint. Run ofa-train or ofa-import first."
            )
        if not state.get("finished"):
            _log.warning("The training in %s is not finished.", self.workdir.path)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Stands for the weights, and for what recalibration and evaluation see."""
        import_tensorflow()
        from ofa_tf.training.checkpoints import weights_hash

        seen = (self.config["calibration_images"], self.config["eval_crop"])
        parts = (weights_hash(self.supernet), *map(str, seen), self.images_fingerprint)
        return "-".join(filter(None, parts))

    @staticmethod
    def fingerprint_parts(fingerprint: str) -> dict[str, str]:
        """What a `fingerprint` is made of, by name, and as `more` what others put behind it.

        Empty where it is none.
        """
        found = _FINGERPRINT.fullmatch(fingerprint)
        return {name: text for name, text in found.groupdict().items() if text} if found else {}

    def evaluator(self, split: str, limit: int | None = None) -> SubnetEvaluator:
        """Accuracies of subnets, batch norm recalibrated.

        Args:
            split: "validation" or "test".
            limit: on so many of its images; None for all.
        """
        import_tensorflow()
        from ofa_tf.training.calibration import SubnetEvaluator

        return SubnetEvaluator(
            self.supernet,
            self.data,
            split,
            limit=limit,
            calibration_images=self.config["calibration_images"],
            eval_crop=self.config["eval_crop"],
        )

    def chosen_subnets(self) -> list[dict]:
        """What ofa-search chose: name, limits, arch, predictions and costs of each.

        Raises:
            UsageError: nothing was searched.
            FailureError: the file is damaged, or a subnet lacks what the commands read.
        """
        path = self.workdir.search_result
        if not path.exists():
            raise UsageError(f"{path} is missing. Run ofa-search first.")
        fields = read_fields(path, SEARCH_REMEDY)
        subnets = [_read_subnet(subnet, self.space) for subnet in fields.several("subnets")]
        if len({subnet["name"] for subnet in subnets}) < len(subnets):
            raise fields.error("it has two subnets of one name")
        return subnets

    def chosen_subnet(self, name: str) -> dict:
        """The one of `chosen_subnets` that has this name. Raises UsageError where none has."""
        subnets = {row["name"]: row for row in self.chosen_subnets()}
        if name not in subnets:
            raise UsageError(
                f"{self.workdir.search_result} has no subnet {name!r}; it has "
                f"{', '.join(subnets) or 'none'}."
            )
        return subnets[name]

    def finetuned(self, name: str) -> Job:
        """A chosen subnet as ofa-finetune left it: a job of its own, with this one's images.

        Its supernet has the shapes of this one's, but was trained for this subnet alone.

        Raises:
            UsageError: the subnet was not chosen, or not fine-tuned to the end, or since then the
                supernet was trained on or another arch was chosen.
        """
        arch = self.space.arch(self.chosen_subnet(name)["arch"])
        tuned = _FinetunedJob(self, name)
        import_tensorflow()
        from ofa_tf.training.finetuning import check_origin, is_finished

        check_origin(tuned.workdir, self.supernet, arch)
        if not is_finished(tuned.workdir):
            raise UsageError(
                f"The fine-tuning in {tuned.workdir.path} is not finished. Run ofa-finetune again."
            )
        return tuned

    def latency_table(
        self,
        target: str = "host",
        threads: int = 1,
        precision: str = "float32",
        form: str = "cpu",
        cpus: str = "",
        delegate: str = "xnnpack",
    ) -> LatencyTable:
        """The table that ofa-latency measured. Raises UsageError where there is none."""
        from ofa_tf.search import LatencyTable

        path = self.workdir.latency_table(target, threads, precision, form, cpus, delegate)
        if not path.exists():
            command = latency_command(
                self.workdir, target, threads, precision, form, cpus, delegate
            )
            raise UsageError(f"{path} is missing. Run this first: {command}")
        return LatencyTable.load(path, self.space, precision, form)


class _FinetunedJob(Job):
    """A fine-tuned subnet of a job, whose images it shares."""

    def __init__(self, job: Job, name: str):
        super().__init__(job.workdir.finetuned(name))
        self._job = job

    @property
    def space(self) -> SearchSpace:
        return self._job.space

    @property
    def data(self) -> ImageData:
        return self._job.data

    @property
    def images_fingerprint(self) -> str:
        return self._job.images_fingerprint


def latency_command(
    workdir: Workdir,
    target: str = "host",
    threads: int = 1,
    precision: str = "float32",
    form: str = "cpu",
    cpus: str = "",
    delegate: str = "xnnpack",
) -> str:
    """The command that measures a latency table, as one types it."""
    binary = "" if target == "host" else "FOLDER_OF_BENCHMARK_MODEL"
    flags = {
        "workdir": (workdir.path, None),
        "target": (target, None),
        "threads": (threads, 1),
        "tflite_precision": (precision, "float32"),
        "form": (form, "cpu"),
        "cpus": (cpus, ""),
        "delegate": (delegate, "xnnpack"),
        "benchmark_binary": (binary, ""),
    }
    given = (f"--{name}={value}" for name, (value, usual) in flags.items() if value != usual)
    return shlex.join(["ofa-latency", *given])


class OpenedImages(NamedTuple):
    """The images of a job that begins or goes on, and what the job records of them."""

    data: ImageData
    settings: dict[str, Any]
    class_names: tuple[str, ...]


def open_images(settings: dict[str, Any], workdir: Workdir) -> OpenedImages:
    """Opens the images for ofa-train or ofa-import, those of the job that is there if one is.

    Args:
        settings: by the arguments of `load_dataset`.
        workdir: of the job. A folder of images that was moved is recorded there.

    Raises:
        UsageError: the images or their classes are not those of the job that is there. Other
            settings than its own are for `Workdir.check` to tell.
    """
    import_tensorflow()
    from ofa_tf.data.splits import NEWEST_SPLITS

    settings = {
        name: _absolute(value) if value and name in ("data_dir", "tfds_dir") else value
        for name, value in settings.items()
    }
    job = Job(workdir) if workdir.config_file.exists() else None
    if job is None or job.config["data"] is None:
        settings["splits"] = NEWEST_SPLITS
    elif "splits" in job.config["data"]:
        settings["splits"] = job.config["data"]["splits"]
    if job is None or chosen_images(job.config["data"]) != chosen_images(settings):
        data = load_data(settings, workdir)
        return OpenedImages(data, settings, data.class_names)
    if settings.get("data_dir"):
        job.move_images(settings["data_dir"])
    return OpenedImages(job.data, job.data_config, job.class_names)


def keep_images(workdir: Workdir, data: ImageData) -> None:
    """Keeps a record of the images of a job which begins here. Raises FailureError."""
    if not workdir.config_file.exists():
        write_json(workdir.images, data.census.to_dict())


def load_data(settings: dict[str, Any], workdir: Workdir) -> ImageData:
    """The images of a job, by the arguments of `load_dataset`; split as they were at its start."""
    import_tensorflow()
    from ofa_tf.data import load_dataset
    from ofa_tf.data.splits import OLD_SPLITS

    cache_dir = str(workdir.path / "data")
    return load_dataset(**{"splits": OLD_SPLITS, **settings}, cache_dir=cache_dir)


def _check_classes(job: Job, data: ImageData) -> None:
    """Raises UsageError where the classes of images are not the job's, in its order."""
    was, now = (
        [unicodedata.normalize("NFC", name) for name in names]
        for names in (job.class_names, data.class_names)
    )
    if was == now:
        return
    from ofa_tf.data.listing import some

    changes = {"added": set(now) - set(was), "missing": set(was) - set(now)}
    told = [f"{what}: {some(names)}" for what, names in changes.items() if names]
    raise UsageError(
        f"The classes of {data.name} are not those of the job in {job.workdir.path}; "
        f"{'; '.join(told) or 'their order is another'}. Its network knows {len(was)} classes: put "
        "the folders right, or give another --workdir to train for these."
    )


def _absolute(path: str | os.PathLike) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _read_subnet(subnet: Fields, space: SearchSpace) -> dict[str, Any]:
    """A row of search.json. Raises FailureError where it lacks what the commands read."""
    subnet.name("name")
    subnet.number("predicted_accuracy")
    for key in _NUMBERS_OF_SUBNETS:
        subnet.number_or_none(key)
    return dict(subnet.items()) | {"arch": read_arch(subnet, space).to_dict()}
