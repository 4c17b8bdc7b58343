"""What the study trains and compares, as data.

The epochs of the schedules are chosen so that each takes the same CPU time (an hour at a scale of
1), and those of the four archs so that each takes as much as the phase of the largest net, on a
core with AVX-512. What they took is in the results.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.files import read_json, write_json
from ofa_tf.spaces import Arch, SearchSpace, get_space

NUM_CLASSES = 10

# Flags of ofa-train that all trainings share.
_RECIPE = (
    *("--weight_decay=1e-4", "--label_smoothing=0.1"),
    *("--crop_scale_min=0.4", "--brightness=0", "--saturation=0", "--eval_crop=1.0"),
)
_PHASES = {  # of progressive shrinking: epochs, base_lr, subnets a step
    "largest": (12, 0.06, 1),
    "kernel": (2, 0.02, 1),
    "depth1": (1, 0.01, 2),
    "depth2": (2, 0.02, 2),
    "expand1": (1, 0.01, 4),
    "expand2": (2.5, 0.02, 4),
}
_SHRINKING, _WIDENING = list(_PHASES)[1:], ["expand1", "expand2"]
_OPEN_EPOCHS, _SANDWICH_EPOCHS = 50, 11.5
_ALONE_EPOCHS = (39, 26, 18.5, 13)
SCALE = 1 / 3


@dataclasses.dataclass(frozen=True)
class Training:
    """A run of ofa-train.

    Attributes:
        name: of its folder and of its rows, without the seed.
        flags: besides those that all share, the seed, the images and the workdir.
        epochs: of all phases.
        start: the training and the phase that it begins with, as "progressive/largest"; "" for
            new weights.
        arch: what it trains, where that is a single subnet.
    """

    name: str
    flags: tuple[str, ...]
    epochs: float
    start: str = ""
    arch: Arch | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """The study.

    Attributes:
        space: all trainings are of it.
        scale: all epochs are multiplied by it.
        batch_size: images a step.
        eval_flags: of ofa-train, on how many images it evaluates.
        predictor_flags: of ofa-predictor and ofa-search, how the predictor is made.
        latency_flags: of ofa-latency.
        num_budgets: for which is searched.
        num_random: archs that each searched one is compared with.
        rounds: in which all files are measured.
    """

    space: SearchSpace = dataclasses.field(default_factory=lambda: get_space("ofa_mbv3_cifar"))
    scale: float = SCALE
    batch_size: int = 128
    eval_flags: tuple[str, ...] = (
        *("--calibration_images=2000", "--eval_images=500", "--eval_epochs=100"),
    )
    predictor_flags: tuple[str, ...] = ("--num_archs=300", "--arch_images=2000", "--ensemble=3")
    latency_flags: tuple[str, ...] = ()
    num_budgets: int = 6
    num_random: int = 4
    rounds: int = 5

    def keep(self, path: pathlib.Path) -> None:
        """Writes down what is trained, or checks that it is what was begun.

        Raises:
            UsageError: a study of another plan was begun there.
            FailureError: the file cannot be written or read.
        """
        flags = {each.name: [*self.recipe, *each.flags] for each in self.trainings}
        if not path.exists():
            write_json(path, flags)
        elif read_json(path) != flags:
            raise UsageError(
                f"{path.parent} holds a study of another plan, see {path}: give another --workdir."
            )

    @property
    def resolution(self) -> int:
        """Pixels of the archs of the ablation."""
        return self.space.resolutions[-1]

    @property
    def recipe(self) -> tuple[str, ...]:
        """Flags of ofa-train that all trainings share."""
        own = (f"--space={self.space.name}", f"--batch_size={self.batch_size}")
        return (*own, *_RECIPE, *self.eval_flags)

    @property
    def trainings(self) -> tuple[Training, ...]:
        """All of them, in the order in which they begin."""
        return (*self.schedules, *self.alone, *self.left_out, *self.equal_epochs)

    @functools.cached_property
    def schedules(self) -> tuple[Training, ...]:
        """Supernets, each by another schedule, in equal time."""
        return (
            self._in_phases("progressive", list(_PHASES)),
            self._at_once("open", "expand2", _OPEN_EPOCHS, 1, "--kd_ratio=0"),
            self._at_once("sandwich", "sandwich", _SANDWICH_EPOCHS, 4, "--schedule=sandwich"),
        )

    @functools.cached_property
    def left_out(self) -> tuple[Training, ...]:
        """Progressive shrinking without a part of it, from the phase on in which it counts."""
        return (
            self._in_phases("no-teacher", _SHRINKING, "--kd_ratio=0", start="progressive/largest"),
            self._in_phases("unsorted", _WIDENING, "--nosort_channels", start="progressive/depth2"),
        )

    @functools.cached_property
    def equal_epochs(self) -> tuple[Training, ...]:
        """All choices open for as many epochs as progressive shrinking has, in less time.

        It tells what of a difference in equal time is due to the number of steps.
        """
        epochs = sum(row[0] for row in _PHASES.values())
        return (self._at_once("open-short", "expand2", epochs, 1, "--kd_ratio=0"),)

    @functools.cached_property
    def alone(self) -> tuple[Training, ...]:
        """The four archs, each trained from new weights."""
        made = []
        for number, (arch, epochs) in enumerate(zip(self.archs, _ALONE_EPOCHS, strict=True), 1):
            epochs, warmup = self._scaled(epochs), self._scaled(1)
            flags = ("--schedule=single", f"--epochs={epochs}", f"--warmup_epochs={warmup}")
            name = f"alone{number}"
            made.append(Training(name, (*flags, "--base_lr=0.06"), epochs, arch=arch))
        return tuple(made)

    @functools.cached_property
    def archs(self) -> tuple[Arch, ...]:
        """Four archs at equal distances in the logarithm of MACs, from 400 random ones.

        They are drawn before anything is trained: no supernet has been asked which it likes.
        """
        archs = self.space.decode(self.space.sample_codes(400, np.random.default_rng(0)))
        macs = self._log_macs(archs)
        wanted = np.linspace(*self._log_macs([self.space.min(), self.space.max()]), 6)[1:-1]
        return tuple(archs[np.argmin(abs(macs - value))] for value in wanted)

    def _log_macs(self, archs: Sequence[Arch]) -> np.ndarray:
        return np.log([self.space.blueprint(arch, NUM_CLASSES).macs for arch in archs])

    def _in_phases(self, name: str, phases: list[str], *flags: str, start: str = "") -> Training:
        """Progressive shrinking, in some of its phases."""
        rows = [_PHASES[phase] for phase in phases]
        epochs = [self._scaled(row[0]) for row in rows]
        columns = {
            "phases": phases,
            "epochs": epochs,
            "warmup_epochs": [self._scaled(int(phase == "largest")) for phase in phases],
            "base_lr": [row[1] for row in rows],
            "subnets_per_step": [row[2] for row in rows],
        }
        lists = [f"--{flag}={','.join(map(str, values))}" for flag, values in columns.items()]
        return Training(name, (*lists, self._at_one, *flags), sum(epochs), start)

    def _at_once(self, name: str, phase: str, epochs: float, subnets: int, *flags) -> Training:
        """All choices open from the start, in one phase."""
        epochs, warmup = self._scaled(epochs), self._scaled(1)
        lists = (f"--phases={phase}", f"--epochs={epochs}", f"--warmup_epochs={warmup}")
        rest = ("--base_lr=0.06", f"--subnets_per_step={subnets}", self._at_one)
        return Training(name, (*lists, *rest, *flags), epochs)

    def _scaled(self, epochs: float) -> float:
        return round(self.scale * epochs, 3)

    @property
    def _at_one(self) -> str:
        """A supernet's corners are watched at one resolution, to spend less time on it."""
        return f"--eval_resolutions={self.resolution}"


FULL = Plan()
# A few steps of everything, to see that it runs.
QUICK = Plan(
    get_space("ofa_mbv3_tiny"),
    0.1,
    16,
    ("--calibration_images=20", "--eval_images=10", "--eval_epochs=100"),
    ("--num_archs=30", "--arch_images=10", "--ensemble=1"),
    ("--latency_rounds=1", "--fit_subnets=2", "--check_subnets=2", "--latency_resolutions=24,32"),
    num_budgets=2,
    num_random=2,
    rounds=2,
)
