"""What the study trains and compares, as data.

The trainings to be compared cost the same: their epochs follow from a counted cost
(ofa_tf.training.curriculum), and what they took is in the results.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Sequence

import numpy as np

from ofa_tf.data import Augmentation
from ofa_tf.errors import UsageError
from ofa_tf.spaces import Arch, SearchSpace, get_space
from ofa_tf.training.curriculum import Curriculum, Work
from ofa_tf.training.phases import FINETUNE, GROWING, SINGLE, Phase
from ofa_tf.training.recipe import Recipe
from study_parts.results import ARCHS, HOUR

NUM_CLASSES = 10

_RATE, _CROPS = 0.18, 0.65  # for 64 images; the least share of the image
_WARMUP = 0.02  # of the epochs
_STEPS_PER_EPOCH = 316  # of the 40,500 images: what a cost is counted for
_GROWTH = {
    "low_resolution_first": True,
    "small_subnets_first": True,
    "coupling": 0.5,
    "zero_last_gamma": True,
}
_OPEN = {name: type(value)() for name, value in _GROWTH.items()}
# What each part is left out by.
_LEFT_OUT = {
    "no-low-resolution": {"low_resolution_first": False},
    "no-small-subnets": {"small_subnets_first": False},
    "no-coupling": {"coupling": 0.0},
    "no-zero-gamma": {"zero_last_gamma": False},
    "small-crops": {"crops": 0.4},
    "low-rate": {"rate": _RATE / 3},
}
_PHASES = {  # of progressive shrinking: share of the epochs, share of the rate, subnets a step
    "largest": (12, 1, 1),
    "kernel": (2, 1 / 3, 1),
    "depth1": (1, 1 / 6, 2),
    "depth2": (2, 1 / 3, 2),
    "expand1": (1, 1 / 6, 4),
    "expand2": (2.5, 1 / 3, 4),
}
# Of ofa-finetune: a minute where the supernet takes 63.
_FINETUNE_SHARE, _FINETUNE_RATE, _FINETUNE_KD_RATIO = 63, 0.02, 0.0


@dataclasses.dataclass(frozen=True)
class Training:
    """A run of ofa-train or ofa-finetune.

    Attributes:
        name: of its folder and of its rows, without the seed.
        recipe: what it computes, with seed 0.
        seeds: how often it is trained at most.
        kind: "schedule", "hour", "alone", "finetuned" or "part".
        subnet: the name of the one arch that it trains; "" for a supernet.
        start: the training that it begins with; "" for new weights.
    """

    name: str
    recipe: Recipe
    seeds: int
    kind: str
    subnet: str = ""
    start: str = ""

    @property
    def epochs(self) -> float:
        """Of all phases."""
        return sum(phase.epochs for phase in self.recipe.phases)

    @property
    def flags(self) -> list[str]:
        """What its command is told of the recipe; ofa-finetune has the rest from `start`."""
        recipe = self.recipe
        columns = ["epochs", "warmup_epochs", "base_lr"] + ["subnets_per_step"] * (not self.start)
        flags = {
            name: ",".join(str(getattr(phase, name)) for phase in recipe.phases) for name in columns
        }
        flags["kd_ratio"] = recipe.kd_ratio
        if not self.start:
            fields = ("batch_size", "weight_decay", "label_smoothing", *_GROWTH)
            flags |= {name: getattr(recipe, name) for name in fields}
            flags |= {
                "phases": ",".join(phase.name for phase in recipe.phases),
                "crop_scale_min": recipe.augmentation.crop_scale_min,
                "brightness": 0,
                "saturation": 0,
            }
        return [f"--{name}={value}" for name, value in flags.items()]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The study.

    Attributes:
        space: all trainings are of it.
        epochs: of the schedule that grows: a quarter of an hour on a core with AVX-512.
        hour_epochs: of the same, for an hour.
        shares: an arch alone is trained at the cost of the hour, over each of these.
        seeds: of the schedules; of the hour and of the parts.
        batch_size: images a step.
        calibration_images: for batch norm.
        eval_flags: of trainings: how much they evaluate meanwhile.
        predictor_flags: of ofa-predictor and ofa-search, how the predictor is made.
        latency_flags: of ofa-latency.
        num_budgets: for which is searched.
        num_random: archs that each searched one is compared with.
        rounds: in which all files are measured.
        attempts: how often a file is measured at most, until its rounds agree.
        quiet_minutes: how long a measurement waits at most for other processes to end.
    """

    space: SearchSpace = dataclasses.field(default_factory=lambda: get_space("ofa_mbv3_cifar"))
    epochs: float = 30
    hour_epochs: float = 105
    shares: tuple[int, ...] = (4, 10, 40)
    seeds: tuple[int, int] = (3, 2)
    batch_size: int = 128
    calibration_images: int = 2000
    eval_flags: tuple[str, ...] = ("--eval_images=500", "--eval_epochs=100")
    predictor_flags: tuple[str, ...] = ("--num_archs=300", "--arch_images=2000", "--ensemble=3")
    latency_flags: tuple[str, ...] = ()
    num_budgets: int = 6
    num_random: int = 4
    rounds: int = 6
    attempts: int = 10
    quiet_minutes: float = 15

    @property
    def resolution(self) -> int:
        """Pixels of the corner subnets."""
        return self.space.resolutions[-1]

    def flags(self, training: Training) -> list[str]:
        """Of its command, besides the seed, the images, the arch and the workdir."""
        flags = [*self.eval_flags, *training.flags]
        if not training.start:
            flags += [f"--space={self.space.name}", "--eval_crop=1.0"]
            flags.append(f"--calibration_images={self.calibration_images}")
        if not training.subnet:  # the corners at one resolution, to spend less time on them
            flags.append(f"--eval_resolutions={self.resolution}")
        return flags

    @functools.cached_property
    def trainings(self) -> tuple[Training, ...]:
        """All of them, in the order in which they begin."""
        growing = self._growing("growing", self.epochs, "schedule", **_GROWTH)
        hour = self._growing(HOUR, self.hour_epochs, "hour", **_GROWTH)
        quarter, whole = self._cost(growing.recipe), self._cost(hour.recipe)
        opened = self._growing("open", 1, "schedule", quarter, **_OPEN)
        alone = [
            self._alone(share, name, arch, whole / share)
            for share in self.shares
            for name, arch in self.archs.items()
        ]
        finetuned = [
            self._finetuned(name, arch, whole / _FINETUNE_SHARE)
            for name, arch in self.archs.items()
        ]
        parts = [
            self._growing(name, self.epochs, "part", quarter, **(_GROWTH | changes))
            for name, changes in _LEFT_OUT.items()
        ]
        schedules = (growing, opened, self._in_phases(quarter))
        return (*schedules, hour, *alone, *finetuned, *parts)

    def chosen(self, patterns: Sequence[str]) -> list[Training]:
        """The trainings with these names, which may have wildcards.

        Raises:
            UsageError: there is none of a name.
        """
        names = [training.name for training in self.trainings]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise UsageError(
                    f"There is no training {pattern!r}; known: {', '.join(names)}, and patterns "
                    "such as 'alone*'."
                )
        return [
            training
            for training in self.trainings
            if any(fnmatch.fnmatch(training.name, pattern) for pattern in patterns)
        ]

    @functools.cached_property
    def archs(self) -> dict[str, Arch]:
        """Five archs by name: four at equal distances in the logarithm of MACs, and the largest.

        The four are of 400 random ones, drawn before anything is trained: no supernet has been
        asked which it likes.
        """
        archs = self.space.decode(self.space.sample_codes(400, np.random.default_rng(0)))
        macs = self._log_macs(archs)
        wanted = np.linspace(*self._log_macs([self.space.min(), self.space.max()]), 6)[1:-1]
        found = [*(archs[np.argmin(abs(macs - value))] for value in wanted), self.space.max()]
        return dict(zip(ARCHS, found, strict=True))

    def _log_macs(self, archs: Sequence[Arch]) -> np.ndarray:
        return np.log([self.space.blueprint(arch, NUM_CLASSES).macs for arch in archs])

    def _growing(
        self,
        name: str,
        epochs: float,
        kind: str,
        cost: float | None = None,
        *,
        rate: float = _RATE,
        crops: float = _CROPS,
        **growth: float,
    ) -> Training:
        """All choices in one phase; of a cost, if one is given, in place of the epochs."""
        phases = [Phase(GROWING, epochs, rate)]
        recipe = self._recipe(phases, self.space.resolutions, crops=crops, **growth)
        seeds = self.seeds[0] if kind == "schedule" else self.seeds[1]
        return Training(name, self._sized(recipe, cost or self._cost(recipe)), seeds, kind)

    def _in_phases(self, cost: float) -> Training:
        """Progressive shrinking."""
        phases = [
            Phase(name, epochs, round(rate * _RATE, 4), subnets_per_step=subnets)
            for name, (epochs, rate, subnets) in _PHASES.items()
        ]
        recipe = self._recipe(phases, self.space.resolutions, zero_last_gamma=True)
        return Training("progressive", self._sized(recipe, cost), self.seeds[0], "schedule")

    def _alone(self, share: int, subnet: str, arch: Arch, cost: float) -> Training:
        """An arch from new weights."""
        tricks = {"low_resolution_first": True, "zero_last_gamma": True}
        phases = [Phase(SINGLE, 1, _RATE)]
        recipe = self._recipe(phases, (arch.resolution,), arch=arch, **tricks)
        return Training(f"alone{share}-{subnet}", self._sized(recipe, cost), 1, "alone", subnet)

    def _finetuned(self, subnet: str, arch: Arch, cost: float) -> Training:
        """An arch from the supernet's weights."""
        phases = [Phase(FINETUNE, 1, _FINETUNE_RATE)]
        recipe = self._recipe(phases, (arch.resolution,), arch=arch, kd_ratio=_FINETUNE_KD_RATIO)
        return Training(
            f"finetuned-{subnet}", self._sized(recipe, cost), 1, "finetuned", subnet, HOUR
        )

    def _recipe(
        self,
        phases: Sequence[Phase],
        resolutions: Sequence[int],
        crops: float = _CROPS,
        **settings: float | Arch,
    ) -> Recipe:
        return Recipe(
            tuple(phases),
            self.batch_size,
            tuple(resolutions),
            weight_decay=1e-4,
            label_smoothing=0.1,
            augmentation=Augmentation(crops, brightness=0, saturation=0),
            **settings,
        )

    def _sized(self, recipe: Recipe, cost: float) -> Recipe:
        """With as many epochs as cost so much, and their warm-up."""
        scale = cost / self._cost(recipe)
        phases = []
        for number, phase in enumerate(recipe.phases):
            epochs = round(scale * phase.epochs, 3)
            warmup = 0.0 if number else round(_WARMUP * epochs, 4)
            phases.append(dataclasses.replace(phase, epochs=epochs, warmup_epochs=warmup))
        return dataclasses.replace(recipe, phases=tuple(phases))

    def _cost(self, recipe: Recipe) -> float:
        return sum(self._work(recipe, phase).cost for phase in recipe.phases)

    def flops(self, training: Training, phase: str, images: int) -> float:
        """What a phase takes for so many images, each counted as often as it is seen."""
        recipe = training.recipe
        of = next(each for each in recipe.phases if each.name == phase)
        counted = of.num_steps(_STEPS_PER_EPOCH) * recipe.batch_size
        return self._work(recipe, of).flops * images / counted

    def _work(self, recipe: Recipe, phase: Phase) -> Work:
        return Curriculum(phase, recipe, self.space, NUM_CLASSES, _STEPS_PER_EPOCH).work()


FULL = Plan()
# A few steps of everything, to see that it runs.
QUICK = Plan(
    get_space("ofa_mbv3_tiny"),
    epochs=4,
    hour_epochs=8,
    shares=(4, 10),
    batch_size=16,
    calibration_images=20,
    eval_flags=("--eval_images=10", "--eval_epochs=100"),
    predictor_flags=("--num_archs=30", "--arch_images=10", "--ensemble=1"),
    latency_flags=(
        *("--latency_rounds=1", "--fit_subnets=2", "--check_subnets=2"),
        "--latency_resolutions=24,32",
    ),
    num_budgets=2,
    num_random=2,
    rounds=2,
    attempts=2,
    quiet_minutes=0,
)
