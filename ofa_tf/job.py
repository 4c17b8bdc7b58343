"""Job: what was trained or imported in a workdir, for the commands and for scripts."""

from __future__ import annotations

import functools
import logging
import os
import shlex
from typing import TYPE_CHECKING, Any

from ofa_tf.errors import UsageError
from ofa_tf.fields import Fields, read_fields
from ofa_tf.quiet import import_tensorflow
from ofa_tf.spaces import read_arch
from ofa_tf.workdir import SEARCH_REMEDY, Workdir

if TYPE_CHECKING:
    from ofa_tf.data import ImageData
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
        """Raises UsageError where the job has no images."""
        return load_data(self.data_config, self.workdir)

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

        return (
            f"{weights_hash(self.supernet)}-{self.config['calibration_images']}"
            f"-{self.config['eval_crop']}"
        )

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


def load_data(config: dict, workdir: Workdir) -> ImageData:
    """The images of a job, by the arguments of `load_dataset`."""
    import_tensorflow()
    from ofa_tf.data import load_dataset

    return load_dataset(**config, cache_dir=str(workdir.path / "data"))


def _read_subnet(subnet: Fields, space: SearchSpace) -> dict[str, Any]:
    """A row of search.json. Raises FailureError where it lacks what the commands read."""
    subnet.name("name")
    subnet.number("predicted_accuracy")
    for key in _NUMBERS_OF_SUBNETS:
        subnet.number_or_none(key)
    return dict(subnet.items()) | {"arch": read_arch(subnet, space).to_dict()}
