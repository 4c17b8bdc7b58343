"""The two predictors: how well they answered for subnets that they had never seen."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

from ofa_tf.fields import Fields, read_fields
from ofa_tf.report.page.reading import Source, changed, said_date
from ofa_tf.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class AccuracyPrediction:
    """How well the accuracy predictor does on held-out archs.

    Args:
        accuracies: the true ones, 0..1.
        predictions: theirs.
        num_fitted: archs that it was fitted on.
        rmse: root mean square error, 0..1.
        mae: mean absolute error, 0..1.
        kendall: rank correlation; None where it is not defined.
        spearman: likewise.
        warning: why it is not to be trusted; None where it is.
    """

    accuracies: tuple[float, ...]
    predictions: tuple[float, ...]
    num_fitted: int
    rmse: float
    mae: float
    kendall: float | None
    spearman: float | None
    warning: str | None
    source: Source


@dataclasses.dataclass(frozen=True)
class Errors:
    """How far latencies are off, relative: of `count` subnets or blocks."""

    what: str
    count: int
    mean: float
    bias: float
    worst: float
    kendall: float | None


@dataclasses.dataclass(frozen=True)
class LatencyPrediction:
    """A latency table, and how well it does.

    Args:
        file: its name, which also tells it from others.
        precision: of the models that were measured.
        form: of their files.
        device: as mobile_bench has it: target, model, cpu, and so on.
        settings: likewise.
        seen: (measured, predicted) ms of the subnets that its correction was fitted on.
        unseen: the same of others.
        errors: on these, and on interpolated blocks; none where it does not tell.
        round_spread: median difference of the rounds of a model, relative; None likewise.
        num_blocks: blocks that were measured.
        resolutions: in pixels, at which they were.
        doubtful: models that had no valid round.
    """

    file: str
    precision: str
    form: str
    device: Mapping[str, object]
    settings: Mapping[str, object]
    seen: tuple[tuple[float, float], ...]
    unseen: tuple[tuple[float, float], ...]
    errors: tuple[Errors, ...]
    round_spread: float | None
    num_blocks: int
    resolutions: tuple[float, ...]
    doubtful: tuple[str, ...]
    source: Source

    @property
    def where(self) -> str:
        """The device, as short as it can be told."""
        return str(self.device.get("model") or self.device.get("target") or self.file)

    @property
    def title(self) -> str:
        """Device, precision and settings in a line."""
        threads = self.settings.get("threads")
        parts = [
            self.where,
            self.precision,
            f"{threads} thread{'s' * (threads != 1)}" if threads else "",
            f"cores {self.settings['cpus']}" if self.settings.get("cpus") else "",
            str(self.settings.get("delegate") or ""),
            f"{self.form} form" if self.form != "cpu" else "",
        ]
        return ", ".join(filter(None, parts))


def read_accuracy_prediction(workdir: Workdir, command: str) -> AccuracyPrediction | None:
    """Reads accuracy_report.json; None where there is none. Raises FailureError."""
    path = workdir.accuracy_report
    if not path.exists():
        return None
    fields = read_fields(path, "Remove it and accuracy_predictor.npz, and run ofa-predictor again.")
    accuracies, predictions = fields.numbers("accuracies"), fields.numbers("predictions")
    if len(accuracies) != len(predictions) or not accuracies:
        raise fields.error("it has not one prediction for each accuracy")
    facts = [("last written", changed(path))]
    if "made_from" in fields:
        facts = _made_from(fields.fields("made_from")) + facts
    return AccuracyPrediction(
        accuracies,
        predictions,
        int(fields.number("n_fitted")),
        fields.number("rmse"),
        fields.number("mae"),
        fields.number_or_none("kendall"),
        fields.number_or_none("spearman"),
        fields.text_or_none("warning"),
        Source(path.name, command, tuple(facts)),
    )


def _made_from(made: Fields) -> list[tuple[str, str]]:
    """What the predictor was made from, as far as it is told."""
    known = {
        "archs": ("num_archs", "{:g} subnets, each evaluated from the supernet"),
        "images": ("arch_images", "up to {:g} held out of training, for each of them"),
        "networks": ("ensemble", "{:g}"),
        "seed": ("predictor_seed", "{:g}"),
        "tuning": ("tune_trials", "{:g} trials of keras-tuner"),
    }
    found = {name: (made.number_or_none(key), text) for name, (key, text) in known.items()}
    return [(name, text.format(value)) for name, (value, text) in found.items() if value]


def latency_files(workdir: Workdir) -> list[pathlib.Path]:
    """The latency tables of a job, by name."""
    return sorted(workdir.path.glob("latency_*.json"))


def read_latency_prediction(path: pathlib.Path, command: str) -> LatencyPrediction:
    """Reads a latency table.

    Args:
        path: of the table.
        command: what makes tables, without the flags that tell which.

    Raises:
        FailureError: the file is damaged, or of an older version.
    """
    table = read_fields(path, "Measure it again, or move it out of the workdir.")
    report, setup = table.fields("report"), table.fields("setup")
    measured = "device" in setup  # unlike a table that was made of other numbers
    return LatencyPrediction(
        file=path.name,
        precision=table.text("precision"),
        form=table.text("form"),
        device=dict(setup.fields("device").items()) if measured else {},
        settings=dict(setup.fields("settings").items()) if measured else {},
        seen=_pairs(report.fields("fitted")) if "fitted" in report else (),
        unseen=_pairs(report) if "subnets" in report else (),
        errors=tuple(_all_errors(report)) if "fitted" in report else (),
        round_spread=report.number_or_none("round_spread"),
        num_blocks=len(table.fields("block_ms").items()),
        resolutions=table.numbers("resolutions"),
        doubtful=tuple(dict(report.fields("doubtful").items())) if "doubtful" in report else (),
        source=_latency_source(path, table, setup if measured else None, command),
    )


def _all_errors(report: Fields) -> Iterator[Errors]:
    yield _errors("subnets that it was fitted on", report.fields("fitted"))
    yield _errors("subnets that it never saw", report)
    between = report.fields("interpolation")
    if between.number("n"):
        yield _errors("blocks between its resolutions", between)


def _pairs(report: Fields) -> tuple[tuple[float, float], ...]:
    return tuple(
        (row.number("measured_ms"), row.number("predicted_ms")) for row in report.several("subnets")
    )


def _errors(what: str, report: Fields) -> Errors:
    return Errors(
        what,
        int(report.number("n")),
        *(report.number(key) for key in ("mape", "bias", "worst")),
        kendall=report.number_or_none("kendall"),
    )


def _latency_source(
    path: pathlib.Path, table: Fields, setup: Fields | None, command: str
) -> Source:
    """Where a table is from; `setup` is None where it was not measured."""
    if setup is None:
        return Source(path.name, "not measured by ofa-latency", ())
    settings, device = setup.fields("settings"), setup.fields("device")
    flags = {
        "target": (device.text("target"), "host"),
        "threads": (f"{settings.number('threads'):g}", "1"),
        "cpus": (settings.text_or_none("cpus") or "", ""),
        "delegate": (settings.text("delegate"), "xnnpack"),
        "tflite_precision": (table.text("precision"), "float32"),
        "form": (table.text("form"), "cpu"),
    }
    given = [f"--{name}={value}" for name, (value, default) in flags.items() if value != default]
    return Source(path.name, " ".join([command, *given]), _setup_facts(setup))


def _setup_facts(setup: Fields) -> tuple[tuple[str, str], ...]:
    device, tool = setup.fields("device"), setup.fields("tool")
    settings = setup.fields("settings")
    machine = [device.text_or_none(key) for key in ("maker", "model", "cpu", "os", "build")]
    versions = [f"{tool.text('name')} {tool.text('version')}"]
    if "versions" in setup:
        versions += [f"{name} {value}" for name, value in setup.fields("versions").items()]
    return (
        ("machine", ", ".join(filter(None, [device.text("target"), *machine]))),
        (
            "runs",
            f"each model at least {settings.number('num_runs'):g} inferences and "
            f"{settings.number('min_secs'):g} s a round, one image at a time",
        ),
        ("date", said_date(setup.text("date"))),
        ("versions", ", ".join(dict.fromkeys(versions))),
    )
