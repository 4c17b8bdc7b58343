"""What was trained, and how accurate the corners of the space were, phase by phase."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ofa_tf.fields import Fields, read_fields, read_lines
from ofa_tf.report.page.reading import Missing, Source, changed
from ofa_tf.spaces import SearchSpace
from ofa_tf.workdir import CONFIG_REMEDY, Workdir

Facts = tuple[tuple[str, str], ...]

_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_METRICS_REMEDY = "Restore it from a copy, or remove the line."


@dataclasses.dataclass(frozen=True)
class PhaseRecord:
    """A phase of the recipe, and how far it came.

    Args:
        name: of the phase.
        epochs: passes over the training images.
        base_lr: peak learning rate for 64 images a step.
        warmup_epochs: of them, with a rising rate.
        subnets_per_step: whose gradients are summed.
        state: "done", "begun" or "to come".
        loss: of its last epoch; None before the first ends.
        images_per_second: median over its epochs.
        skipped_steps: steps without finite gradients.
    """

    name: str
    epochs: float
    base_lr: float
    warmup_epochs: float
    subnets_per_step: float
    state: str
    loss: float | None
    images_per_second: float | None
    skipped_steps: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Accuracies (0..1) of some subnets, by name, at a step of the training."""

    step: int
    phase: str
    when: str
    accuracies: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Training:
    """What was trained.

    Args:
        space: facts of the search space.
        images: facts of the images.
        recipe: facts of the recipe.
        class_names: one per output.
        phases: of the recipe; none of an imported job.
        evaluations: in the order of training.
        config_source: where the settings are from.
        metrics_source: where the accuracies are from; None before there are any.
        missing: what to do where there is no accuracy yet.
    """

    space: Facts
    images: Facts
    recipe: Facts
    class_names: tuple[str, ...]
    phases: tuple[PhaseRecord, ...]
    evaluations: tuple[Evaluation, ...]
    config_source: Source
    metrics_source: Source | None
    missing: Missing | None

    @property
    def corners(self) -> tuple[str, ...]:
        """The names of all subnets that were evaluated, those of the last evaluation first."""
        names = [name for one in reversed(self.evaluations) for name in one.accuracies]
        return tuple(dict.fromkeys(names))

    @property
    def last_corners(self) -> tuple[str, ...]:
        """Those of the last evaluation, from the smallest to the largest."""
        return tuple(self.evaluations[-1].accuracies) if self.evaluations else ()

    @property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """(step, accuracy in 0..1) of each subnet, by name."""
        return {
            name: [
                (one.step, one.accuracies[name])
                for one in self.evaluations
                if name in one.accuracies
            ]
            for name in self.corners
        }

    @property
    def phase_starts(self) -> dict[str, int]:
        """The step at which each phase begins: where the one before it was evaluated last."""
        starts: dict[str, int] = {}
        begins = [0, *(one.step for one in self.evaluations[:-1])]
        for one, begin in zip(self.evaluations, begins, strict=False):
            starts.setdefault(one.phase, begin)
        return starts

    def around(self, phase: str) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Accuracies before a phase and after it; empty where they are not known."""
        found = {one.when: one.accuracies for one in self.evaluations if one.phase == phase}
        return found.get("before", {}), found.get("after", {})


def read_training(workdir: Workdir, space: SearchSpace, command: str) -> Training:
    """Reads config.json and metrics.jsonl.

    Args:
        workdir: of the job.
        space: of the job.
        command: the command line of ofa-train without its settings.

    Raises:
        FailureError: a file is damaged.
    """
    config = read_fields(workdir.config_file, CONFIG_REMEDY)
    classes = config.texts("class_names")
    recipe = config.fields("recipe")
    imported = "checkpoint" in recipe
    rows = [] if imported else read_lines(workdir.metrics, _METRICS_REMEDY)
    evaluations = tuple(_evaluations(rows))
    missing = None
    if imported:
        missing = Missing("The weights were imported, so there is no training to show.", "")
    elif not evaluations:
        missing = Missing("No accuracy is known yet: the training has only begun.", command)
    source = Source(
        workdir.config_file.name,
        command.replace("ofa-train", "ofa-import", 1) if imported else f"{command} …",
        (("last written", changed(workdir.config_file)),),
    )
    return Training(
        space=_space_facts(space, len(classes)),
        images=_image_facts(config, len(classes)),
        recipe=tuple(_imported_facts(recipe) if imported else _recipe_facts(recipe, config)),
        class_names=classes,
        phases=() if imported else tuple(_phases(recipe, rows, evaluations)),
        evaluations=evaluations,
        config_source=source,
        metrics_source=_metrics_source(workdir, config, command, rows) if evaluations else None,
        missing=missing,
    )


def _space_facts(space: SearchSpace, num_classes: int) -> Facts:
    smallest, largest = (space.blueprint(arch, num_classes) for arch in (space.min(), space.max()))
    mantissa, exponent = f"{space.num_subnets:.1e}".split("e")
    return (
        ("search space", space.name),
        ("subnets", f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}"),
        ("resolutions", f"{_span(space.resolutions)} px"),
        ("depths of a stage", _listed(space.depths)),
        ("kernels", _listed(space.kernel_sizes)),
        ("expand ratios", _listed(space.expand_ratios)),
        ("computations", f"{smallest.macs / 1e6:.1f} to {largest.macs / 1e6:.1f} M MACs"),
        ("parameters", f"{smallest.params / 1e6:.2f} to {largest.params / 1e6:.2f} M"),
    )


def _image_facts(config: Fields, num_classes: int) -> Facts:
    if "data" not in config:
        return (("images", "none: the job was imported without"), ("classes", str(num_classes)))
    data = config.fields("data")
    facts = [
        ("images", data.text_or_none("dataset") or data.text_or_none("data_dir") or "not told"),
        ("classes", str(num_classes)),
        ("held out of training", _held_out(data)),
        ("evaluated on", f"the middle {100 * config.number('eval_crop'):.3g} % of an image"),
        ("batch norm recalibrated on", f"{config.number('calibration_images'):g} training images"),
    ]
    splits = [data.text_or_none(name) for name in ("train_split", "test_split")]
    if any(splits):
        facts.insert(1, ("splits", ", ".join(split or "default" for split in splits)))
    return tuple(facts)


def _held_out(data: Fields) -> str:
    count = data.number_or_none("num_validation")
    if data.text_or_none("data_dir") and "splits" in data:  # chosen by their names
        share = "about 10 % of the training images, at most 10,000, or those of val/"
        return share if count is None else f"{count:g} images"
    share = "10 % of the training images, at most 10,000" if count is None else f"{count:g} images"
    return f"{share}, drawn with seed {data.number('seed'):g}"


def _imported_facts(recipe: Fields) -> Iterator[tuple[str, str]]:
    yield "imported from", f"the PyTorch checkpoint with SHA-256 {recipe.text('checkpoint')}"
    head = "new, to be trained" if ("new_head", True) in recipe.items() else "that of the file"
    yield "classifier", head


# What the page calls the settings of a recipe, in its order.
_RECIPE_NAMES = {
    "batch_size": "images a step",
    "resolutions": "resolutions (px)",
    "precision": "computed in",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "label_smoothing": "label smoothing",
    "kd_ratio": "distillation ratio",
    "kd_loss": "distillation loss",
    "clip_norm": "gradient norm at most",
    "accumulation_steps": "micro-batches a step",
    "ema_decay": "moving average of weights",
    "mixup_alpha": "mixup alpha",
    "seed": "seed",
}
_OFF = {"clip_norm": 0, "accumulation_steps": 1, "ema_decay": 0, "mixup_alpha": 0}


def _recipe_facts(recipe: Fields, config: Fields) -> Iterator[tuple[str, str]]:
    """All settings but those that are off."""
    if "init" in config:
        yield "begun with", config.text("init")
    values = dict(recipe.items())
    for key, name in _RECIPE_NAMES.items():
        if key in recipe and values[key] != _OFF.get(key):
            yield name, _said(values[key])
    if "augmentation" in recipe:
        settings = dict(recipe.fields("augmentation").items())
        if not settings.get("randaugment_layers"):
            settings.pop("randaugment_magnitude", None)  # of nothing
        used = [
            f"{key.replace('_', ' ')} {_said(value)}" for key, value in settings.items() if value
        ]
        yield "augmentation", ", ".join(used) or "none"


def _phases(
    recipe: Fields, rows: Sequence[Fields], evaluations: Sequence[Evaluation]
) -> Iterator[PhaseRecord]:
    done = {one.phase for one in evaluations if one.when == "after"}
    for phase in recipe.several("phases"):
        name = phase.text("name")
        epochs = [row for row in rows if "epoch" in row and row.text("phase") == name]
        losses = [row.number("loss") for row in epochs if "loss" in row]
        speeds = sorted(row.number("images_per_second") for row in epochs)
        begun = bool(epochs) or name in {one.phase for one in evaluations}
        yield PhaseRecord(
            name,
            *(phase.number(key) for key in ("epochs", "base_lr", "warmup_epochs")),
            subnets_per_step=phase.number("subnets_per_step"),
            state="done" if name in done else "begun" if begun else "to come",
            loss=losses[-1] if losses else None,
            images_per_second=speeds[len(speeds) // 2] if speeds else None,
            skipped_steps=int(sum(row.number("skipped_steps") for row in epochs)),
        )


def _evaluations(rows: Sequence[Fields]) -> Iterator[Evaluation]:
    for row in rows:
        if "accuracy" in row:
            accuracies = row.fields("accuracy")
            values = zip(dict(accuracies.items()), row.numbers("accuracy"), strict=True)
            step = int(row.number("step"))
            yield Evaluation(step, row.text("phase"), row.text("when"), dict(values))


def _metrics_source(
    workdir: Workdir, config: Fields, command: str, rows: Sequence[Fields]
) -> Source:
    counts = {int(row.number("num_images")) for row in rows if "num_images" in row}
    some = " and ".join(f"{count:,}" for count in sorted(counts)) or "some"  # earlier jobs: unknown
    images = f"{some} of those held out of training ({_held_out(config.fields('data'))})"
    return Source(
        workdir.metrics.name,
        f"{command} …",
        (
            ("images", images),
            (
                "batch norm",
                f"recalibrated for each subnet on {config.number('calibration_images'):g} "
                "training images",
            ),
            ("last written", changed(workdir.metrics)),
        ),
    )


def _span(values: Sequence[float]) -> str:
    if len(values) > 6:
        return f"{values[0]:g} to {values[-1]:g} ({len(values)} of them)"
    return _listed(values)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    return f"{value:g}" if isinstance(value, (int, float)) else str(value).replace("_", " ")
