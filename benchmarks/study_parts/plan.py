"""What the study trains and compares, as data.

The trainings to be compared cost the same: their epochs follow from a counted cost
(ofa_tf.training.curriculum), and what they took is in the results.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from ofa_tf.data import Augmentation
from ofa_tf.errors import UsageError
from ofa_tf.spaces import Arch, SearchSpace, get_space
from ofa_tf.training.curriculum import Curriculum, Work
from ofa_tf.training.phases import FINETUNE, GROWING, GROWTH, SINGLE, Phase
from ofa_tf.training.recipe import Recipe
from study_parts.results import ARCHS, HOUR, SHORT

NUM_CLASSES = 10

_RATE, _CROPS = 0.18, 0.65  # for 64 images; the least share of the image
_WARMUP = 0.02  # of the epochs
_STEPS_PER_EPOCH = 316  # of the 40,500 images: what a cost is counted for
# What each part is left out by; the first is what the others are compared with.
_LEFT_OUT = {
    SHORT: {},
    "no-low-resolution": {"low_resolution_first": False},
    "no-small-subnets": {"small_subnets_first": False},
    "no-coupling": {"coupling": 0.0},
    "no-zero-gamma": {"zero_last_gamma": False},
    "small-crops": {"crops": 0.4},
    "low-rate": {"rate": _RATE / 3},
}
_SEEDS = {"schedule": 3, "hour": 2, "part": 2, "alone": 1, "finetuned": 1}
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
    """A run of ofa-train or, with what another left, of ofa-finetune.

    Attributes:
        name: of its folder and of its rows, without the seed.
        kind: one of _SEEDS.
        recipe: what it computes, with seed 0.
        subnet: the name of the one arch that it trains; "" for a supernet.
        start: the training that it begins with; "" for new weights.
    """

    name: str
    kind: str
    recipe: Recipe
    subnet: str = ""
    start: str = ""

    @property
    def seeds(self) -> int:
        return _SEEDS[self.kind]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The study.

    Attributes:
        space: all trainings are of it.
        epochs: of the schedule that grows: a quarter of an hour on a core with AVX-512.
        hour_epochs: of the same, for an hour.
        shares: an arch alone is trained at the cost of the hour, over each of these.
        part_share: a training without a part costs this share of the quarter of an hour.
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
    part_share: float = 1 / 3
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
        recipe = training.recipe
        columns = ["epochs", "warmup_epochs", "base_lr"]
        fields = ["kd_ratio"]
        flags = {}
        if not training.start:  # ofa-finetune has the rest from there
            columns.append("subnets_per_step")
            fields += ["batch_size", "weight_decay", *GROWTH]
            flags |= {"space": self.space.name, "calibration_images": self.calibration_images}
            flags |= {"phases": ",".join(phase.name for phase in recipe.phases), "eval_crop": 1.0}
            flags |= {"crop_scale_min": recipe.augmentation.crop_scale_min}
            flags |= {"brightness": 0, "saturation": 0}
        if not training.subnet:  # the corners at one resolution, to spend less time on them
            flags["eval_resolutions"] = self.resolution
        flags |= {name: getattr(recipe, name) for name in fields}
        for name in columns:
            flags[name] = ",".join(str(getattr(phase, name)) for phase in recipe.phases)
        return [*self.eval_flags, *(f"--{name}={value}" for name, value in flags.items())]

    @functools.cached_property
    def trainings(self) -> tuple[Training, ...]:
        """All of them, in the order in which they begin."""
        growing = self._recipe([Phase(GROWING, self.epochs, _RATE)], **GROWTH)
        hour = self._recipe([Phase(GROWING, self.hour_epochs, _RATE)], **GROWTH)
        quarter, whole = self._cost(growing), self._cost(hour)
        phases = [
            Phase(name, epochs, round(rate * _RATE, 4), subnets_per_step=subnets)
            for name, (epochs, rate, subnets) in _PHASES.items()
        ]
        of_name = {
            "growing": growing,
            "open": self._recipe(growing.phases, quarter),
            "progressive": self._recipe(phases, quarter, zero_last_gamma=True),
        }
        found = [Training(name, "schedule", recipe) for name, recipe in of_name.items()]
        found.append(Training(HOUR, "hour", hour))
        single = [Phase(SINGLE, 1, _RATE)]
        tricks = {"low_resolution_first": True, "zero_last_gamma": True}
        for share, (name, arch) in itertools.product(self.shares, self.archs.items()):
            recipe = self._recipe(single, whole / share, arch=arch, **tricks)
            found.append(Training(f"alone{share}-{name}", "alone", recipe, name))
        tuning, cost = [Phase(FINETUNE, 1, _FINETUNE_RATE)], whole / _FINETUNE_SHARE
        for name, arch in self.archs.items():
            recipe = self._recipe(tuning, cost, arch=arch, kd_ratio=_FINETUNE_KD_RATIO)
            found.append(Training(f"finetuned-{name}", "finetuned", recipe, name, HOUR))
        for name, changes in _LEFT_OUT.items():
            settings = {"rate": _RATE} | GROWTH | changes
            phase = Phase(GROWING, self.epochs, settings.pop("rate"))
            recipe = self._recipe([phase], self.part_share * quarter, **settings)
            found.append(Training(name, "part", recipe))
        return tuple(found)

    def chosen(self, patterns: Sequence[str]) -> list[Training]:
        """The trainings with these names, which may have wildcards.

        Raises:
            UsageError: there is none of a name.
        """
        names = [training.name for training in self.trainings]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise UsageError(f"There is no training {pattern!r}; known: {', '.join(names)}.")
        chosen = {name for pattern in patterns for name in fnmatch.filter(names, pattern)}
        return [training for training in self.trainings if training.name in chosen]

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

    def _recipe(
        self,
        phases: Sequence[Phase],
        cost: float | None = None,
        crops: float = _CROPS,
        arch: Arch | None = None,
        **settings: float,
    ) -> Recipe:
        """With as many epochs as cost so much, if that is given, and their warm-up."""
        recipe = Recipe(
            tuple(phases),
            self.batch_size,
            (arch.resolution,) if arch else self.space.resolutions,
            weight_decay=1e-4,
            augmentation=Augmentation(crops, brightness=0, saturation=0),
            arch=arch,
            **settings,
        )
        scale = cost / self._cost(recipe) if cost else 1
        sized = [
            dataclasses.replace(phase, epochs=round(scale * phase.epochs, 3)) for phase in phases
        ]
        sized[0] = dataclasses.replace(sized[0], warmup_epochs=round(_WARMUP * sized[0].epochs, 4))
        return dataclasses.replace(recipe, phases=tuple(sized))

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
    shares=(10,),
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
