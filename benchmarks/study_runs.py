"""What the study trains: runs of ofa-train and ofa-finetune, as data.

Trainings that are compared cost the same by a count of multiply-accumulates
(ofa_tf.training.curriculum): their epochs follow from it, and a test holds them to it.
"""

from __future__ import annotations

import functools
import pathlib
from typing import NamedTuple

import numpy as np

from ofa_tf.spaces import Arch, SearchSpace, get_space
from ofa_tf.workdir import Workdir

NUM_CLASSES = 10
HOUR = "growing-hour"  # the supernet that is searched and fine-tuned
SHORT = "growing-short"  # what trainings without a part are compared with
ARCHS = tuple(f"arch{number}" for number in range(1, 6))  # from the smallest to the largest
SEEDS = {"schedule": 3, "hour": 2, "alone": 1, "finetuned": 1, "part": 2}  # of each kind

# Of all but fine-tuning, which has them from the supernet; what a training has in place of one of
# them comes after them.
_GROWING = (
    "--phases=growing --base_lr=0.18 --subnets_per_step=1 --low_resolution_first=True "
    "--small_subnets_first=True --coupling=0.5 --zero_last_gamma=True --weight_decay=0.0001 "
    "--kd_ratio=1.0 --crop_scale_min=0.65 --brightness=0 --saturation=0 --eval_crop=1.0"
)
_OPEN = "--low_resolution_first=False --small_subnets_first=False --coupling=0.0"
_PROGRESSIVE = (
    "--phases=largest,kernel,depth1,depth2,expand1,expand2 "
    "--base_lr=0.18,0.06,0.03,0.06,0.03,0.06 --subnets_per_step=1,1,2,2,4,4"
)
_ALONE = "--phases=single --small_subnets_first=False --coupling=0.0"
_FINETUNED = "--base_lr=0.02 --kd_ratio=0.0"
# Epochs of each arch alone at the cost of the hour, and of its fine-tuning at a sixty-third of it.
_EPOCHS_ALONE = dict(zip(ARCHS, (128.236, 92.299, 67.388, 45.788, 31.252), strict=True))
_EPOCHS_FINETUNED = dict(zip(ARCHS, (1.546, 1.082, 0.738, 0.499, 0.329), strict=True))
# Name: kind, epochs of the phases, and flags. In the order in which they begin.
TRAININGS: dict[str, tuple[str, list[float], str]] = {
    "growing": ("schedule", [30], ""),
    "open": ("schedule", [14.244], f"{_OPEN} --zero_last_gamma=False"),
    "progressive": (
        *("schedule", [3.16, 0.527, 0.263, 0.527, 0.263, 0.658]),
        f"{_OPEN} {_PROGRESSIVE}",
    ),
    HOUR: ("hour", [105], ""),
    **{
        f"alone{share}-{arch}": ("alone", [epochs / share], _ALONE)
        for share in (4, 10, 40)
        for arch, epochs in _EPOCHS_ALONE.items()
    },
    **{
        f"finetuned-{arch}": ("finetuned", [epochs], _FINETUNED)
        for arch, epochs in _EPOCHS_FINETUNED.items()
    },
    SHORT: ("part", [10], ""),
    "no-low-resolution": ("part", [5.985], "--low_resolution_first=False"),
    "no-small-subnets": ("part", [8.024], "--small_subnets_first=False"),
    "no-coupling": ("part", [10], "--coupling=0.0"),
    "no-zero-gamma": ("part", [10], "--zero_last_gamma=False"),
    "small-crops": ("part", [10], "--crop_scale_min=0.4"),
    "low-rate": ("part", [10], "--base_lr=0.06"),
}


@functools.cache
def archs_of(space: SearchSpace) -> dict[str, Arch]:
    """Five archs by name: four at equal distances in the logarithm of MACs, and the largest.

    The four are of 400 random ones, drawn before anything is trained: no supernet has been asked
    which it likes.
    """
    drawn = space.decode(space.sample_codes(400, np.random.default_rng(0)))
    archs = [*drawn, space.min(), space.max()]
    *macs, least, most = np.log([space.blueprint(arch, NUM_CLASSES).macs for arch in archs])
    wanted = np.linspace(least, most, 6)[1:-1]
    found = [*(drawn[np.argmin(abs(macs - value))] for value in wanted), space.max()]
    return dict(zip(ARCHS, found, strict=True))


class Plan(NamedTuple):
    """How much of everything the study does."""

    space: SearchSpace = get_space("ofa_mbv3_cifar")
    scale: float = 1  # of the epochs
    train: str = "--batch_size=128 --calibration_images=2000"
    evaluate: str = "--eval_images=500 --eval_epochs=100"  # while training
    latency: str = ""
    predictor: str = "--num_archs=300 --arch_images=2000 --ensemble=3"
    budgets: int = 6  # for which is searched
    randoms: int = 4  # that each searched subnet is compared with
    uniforms: int | None = None  # that are compared with those, too; None for all
    attempts: int = 10  # at measuring a file, until its rounds agree
    rounds: int = 6
    seconds: float = 0.3  # of a round

    def runs(self, folder: pathlib.Path) -> list[Run]:
        """All of one seed before further seeds."""
        runs: dict[tuple[str, int], Run] = {}
        for seed in range(max(SEEDS.values())):
            for name, (kind, *_) in TRAININGS.items():
                if seed < SEEDS[kind]:
                    job = Workdir(folder / "arms" / f"{name}-{seed}")
                    origin = runs[HOUR, seed] if kind == "finetuned" else None
                    runs[name, seed] = Run(self, name, kind, seed, job, origin)
        return list(runs.values())


# A few steps of everything, to see that it runs.
QUICK = Plan(
    get_space("ofa_mbv3_tiny"),
    scale=0.1,
    train="--batch_size=16 --calibration_images=20",
    evaluate="--eval_images=10 --eval_epochs=100",
    latency="--latency_rounds=1 --latency_min_secs=0.002 --fit_subnets=2 --check_subnets=2 "
    "--latency_resolutions=24,32",
    predictor="--num_archs=15 --arch_images=10 --ensemble=1",
    **{"budgets": 2, "randoms": 1, "uniforms": 4, "attempts": 1, "rounds": 2, "seconds": 0.01},
)


class Run(NamedTuple):
    """A training with a seed, the workdir of its command, and what it begins with, if anything."""

    plan: Plan
    name: str
    kind: str
    seed: int
    job: Workdir
    origin: Run | None = None

    @property
    def subnet(self) -> str:
        """The name of the one arch that it trains; "" for a supernet."""
        return self.name.rpartition("-")[2] if self.kind in ("alone", "finetuned") else ""

    @property
    def arch(self) -> Arch | None:
        return archs_of(self.plan.space)[self.subnet] if self.subnet else None

    @property
    def is_finished(self) -> bool:
        from ofa_tf.training import finetuning  # imports TensorFlow

        return finetuning.is_finished(self.workdir)

    @property
    def workdir(self) -> Workdir:
        """Where its weights and metrics are."""
        return self.job.finetuned(self.subnet) if self.origin else self.job

    @property
    def checkpoint(self) -> pathlib.Path:
        """The weights that a finished one left: those of its last phase."""
        last = {"alone": "single", "finetuned": "finetune"}.get(self.kind, "growing")
        return self.workdir.phase("expand2" if self.name == "progressive" else last)

    @property
    def flags(self) -> list[str]:
        """Of its command, besides the seed, the images and the arch."""
        _, epochs, own = TRAININGS[self.name]
        epochs = [round(self.plan.scale * each, 3) for each in epochs]
        warmup = [round(0.02 * epochs[0], 4), *(0.0 for _ in epochs[1:])]
        columns = {"epochs": epochs, "warmup_epochs": warmup}
        flags = [f"--{name}={','.join(map(str, each))}" for name, each in columns.items()]
        flags += [f"--workdir={self.job.path}", "--cores=1", *self.plan.evaluate.split()]
        if not self.origin:
            flags += [f"--space={self.plan.space.name}", *self.plan.train.split()]
            flags += _GROWING.split()
        if not self.subnet:  # the corners at one resolution, to spend less time on them
            flags.append(f"--eval_resolutions={self.plan.space.resolutions[-1]}")
        return [*flags, *own.split()]
