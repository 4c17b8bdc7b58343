"""The subnets of a job: what each is, its files, and how fast they are on what was measured."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping

import mobile_bench
from ofa_tf.errors import FailureError
from ofa_tf.fields import Fields, read_fields, read_lines
from ofa_tf.report.page.reading import Missing, Source, said_date
from ofa_tf.report.page.searched import Chosen, SearchRecord
from ofa_tf.report.page.timing import OpProfile, Timings, op_profile
from ofa_tf.report.result_rows import file_sha256
from ofa_tf.spaces import Blueprint, SearchSpace, read_arch
from ofa_tf.workdir import Workdir

_REMEDY = "Run ofa-export again."


@dataclasses.dataclass(frozen=True)
class File:
    """An exported file, as its card has it; None where the card does not tell.

    Args:
        format: such as "tflite_int8".
        name: of the file in the subnet's folder.
        num_bytes: its size.
        accuracy: on the test images, 0..1.
        num_images: how many these were.
        accuracy_drop: against the Keras model, 0..1.
        agreement: share of images that it classifies as the Keras model does.
        ops: operations of a TFLite file.
        ops_outside: those that XNNPACK does not take, counted by name.
        partitions: pieces of the graph that it takes.
        arena_bytes: of the activations.
        sha256: of a TFLite file, by which its measurements are found.
    """

    format: str
    name: str
    num_bytes: float
    accuracy: float | None
    num_images: float | None
    accuracy_drop: float | None
    agreement: float | None
    ops: float | None
    ops_outside: Mapping[str, float] | None
    partitions: float | None
    arena_bytes: float | None
    sha256: str | None


@dataclasses.dataclass(frozen=True)
class Timing:
    """A file on a device; and where there is a latency table of this: its file, and what it says.

    `predicted_ms` is None where there is none.
    """

    file: File
    summary: mobile_bench.Summary
    table: str
    predicted_ms: float | None


@dataclasses.dataclass(frozen=True)
class Profile:
    """A file's op profile on a device."""

    file: File
    summary: mobile_bench.Summary
    ops: OpProfile


@dataclasses.dataclass(frozen=True)
class Subnet:
    """A subnet.

    Args:
        name: of it and of its folder.
        chosen: as ofa-search has it; None for a network that it did not choose.
        plan: its blueprint; None for a network that is in no search space.
        facts: what it is.
        weights: whose they are; "" where nothing is exported.
        files: that are exported.
        timings: of these.
        profiles: of these.
        export_source: where files and accuracies are from; None where nothing is exported.
        missing: what it lacks.
    """

    name: str
    chosen: Chosen | None
    plan: Blueprint | None
    facts: tuple[tuple[str, str], ...]
    weights: str
    files: tuple[File, ...]
    timings: tuple[Timing, ...]
    profiles: tuple[Profile, ...]
    export_source: Source | None
    missing: tuple[Missing, ...]


class SubnetReader:
    """Reads the subnets of a job.

    Args:
        workdir: of the job.
        space: of the job.
        num_classes: of the networks.
        timings: what was measured.
        predict: of a subnet by its name, and a format, a form and a measurement of a file of it:
            the file of the latency table that is for this, and the ms that it predicts.
        export_command: that makes the files.
        measure_command: that measures them.
    """

    def __init__(
        self,
        workdir: Workdir,
        space: SearchSpace,
        num_classes: int,
        timings: Timings,
        predict: Callable[[str, str, str, mobile_bench.Summary], tuple[str, float | None]],
        export_command: str,
        measure_command: str,
    ):
        self._workdir, self._space, self._num_classes = workdir, space, num_classes
        self._timings, self._predict = timings, predict
        self._export_command, self._measure_command = export_command, measure_command

    def read(self, search: SearchRecord | None) -> tuple[Subnet, ...]:
        """The chosen subnets in their order, then what else is exported, by name.

        Raises:
            FailureError: a card is damaged, or a file that it names cannot be read.
        """
        chosen = {one.name: one for one in search.chosen} if search else {}
        cards = sorted(self._workdir.subnets.glob("*/card.json"))
        others = [path.parent.name for path in cards if path.parent.name not in chosen]
        searched = search.weights if search else None
        found = [self._subnet(name, one, searched) for name, one in chosen.items()]
        return (*found, *(self._subnet(name, None, None) for name in others))

    def _subnet(self, name: str, chosen: Chosen | None, searched: str | None) -> Subnet:
        path = self._workdir.subnets / name / "card.json"
        if not path.exists():
            return self._unexported(name, chosen, "It is not exported yet.")
        card = read_fields(path, _REMEDY)
        files, plan = tuple(self._files(card, path.parent)), self._plan(card)
        if chosen and self._space.blueprint(chosen.best.arch, self._num_classes) != plan:
            return self._unexported(
                name, chosen, "Its files are of an arch that an earlier search chose."
            )
        timings, profiles = self._measured(name, files, card)
        return Subnet(
            name,
            chosen,
            plan,
            _facts(chosen, plan, card),
            self._weights(name, card, searched),
            files,
            timings,
            profiles,
            self._source(path, card, files),
            tuple(self._missing(files, timings, profiles)),
        )

    def _missing(
        self, files: tuple[File, ...], timings: tuple[Timing, ...], profiles: tuple[Profile, ...]
    ) -> Iterator[Missing]:
        """What was not measured of exported files."""
        command = self._measure_command
        unmeasured = {file.format for file in files if file.sha256}
        unmeasured -= {one.file.format for one in timings}
        if unmeasured and timings:
            yield Missing(f"Not measured yet: {', '.join(sorted(unmeasured))}.", command)
        elif unmeasured:
            yield Missing("No latency is measured yet.", command)
        if timings and not profiles:
            yield Missing(
                "The time of single operations was not measured; TFLite's benchmark_model does.",
                f"{command} --op_profile --benchmark_binary=FILE",
            )

    def _unexported(self, name: str, chosen: Chosen, why: str) -> Subnet:
        plan = self._space.blueprint(chosen.best.arch, self._num_classes)
        missing = (Missing(why, self._export_command),)
        return Subnet(name, chosen, plan, _facts(chosen, plan), "", (), (), (), None, missing)

    def _plan(self, card: Fields) -> Blueprint | None:
        """The plan of a card's arch; None where it is of another space, or of none."""
        own = self._space.root.name
        if "arch" not in card or card.text_or_none("space") not in (None, own):
            return None
        return self._space.blueprint(read_arch(card, self._space), self._num_classes)

    def _files(self, card: Fields, folder: pathlib.Path) -> Iterator[File]:
        files = card.fields("files")
        for format_name, _ in files.items():
            entry = files.fields(format_name)
            path = folder / entry.name("file")
            if not path.exists():
                raise FailureError(f"{path} is missing. {_REMEDY}")
            outside = entry.fields("ops_outside") if "ops_outside" in entry else None
            yield File(
                format_name,
                path.name,
                entry.number("bytes"),
                accuracy=entry.number_or_none("accuracy"),
                num_images=entry.number_or_none("num_images"),
                accuracy_drop=entry.number_or_none("accuracy_drop"),
                agreement=entry.number_or_none("keras_agreement"),
                ops=entry.number_or_none("ops"),
                ops_outside=outside and {op: outside.number(op) for op, _ in outside.items()},
                partitions=entry.number_or_none("delegate_partitions"),
                arena_bytes=entry.number_or_none("arena_bytes"),
                sha256=file_sha256(path) if format_name.startswith("tflite_") else None,
            )

    def _measured(
        self, name: str, files: tuple[File, ...], card: Fields
    ) -> tuple[tuple[Timing, ...], tuple[Profile, ...]]:
        """Latencies, by device and settings and then by file, and op profiles."""
        form = card.text_or_none("form") or ""
        found = [
            (file, summary)
            for file in files
            for summary in self._timings.by_sha256.get(file.sha256 or "", ())
        ]
        found.sort(key=lambda pair: (pair[1].device.identity, str(pair[1].settings)))
        profiles = [(*pair, op_profile(pair[1])) for pair in found]
        return tuple(
            Timing(file, one, *self._predict(name, file.format, form, one)) for file, one in found
        ), tuple(Profile(file, one, ops) for file, one, ops in profiles if ops)

    def _weights(self, name: str, card: Fields, searched: str | None) -> str:
        """Whose weights the files have: the card's fingerprint begins with their hash.

        `searched` is the hash of those that were searched; None where it is not known.
        """
        tuned = self._workdir.finetuned(name)
        weights = (card.text_or_none("fingerprint") or "").split("-")[0]
        if not tuned.config_file.exists():
            if "arch" not in card:
                return "of its own"
            told = "of the supernet, batch norm recalibrated"
            if weights and searched not in (None, weights):
                told += ", but not those that were searched: the supernet was trained between"
            return told
        config = read_fields(tuned.config_file, "Remove the folder and run ofa-finetune again.")
        told = _finetuned_accuracies(tuned)
        if weights == config.text_or_none("supernet"):
            return f"of the supernet, batch norm recalibrated; fine-tuned ones are there too{told}"
        return f"fine-tuned for this subnet alone{told}"

    def _source(self, path: pathlib.Path, card: Fields, files: tuple[File, ...]) -> Source:
        counts = sorted({f"{file.num_images:g}" for file in files if file.num_images})
        images = f"{' or '.join(counts)} of the test images" if counts else "none"
        facts = [("images", images)]
        if "date" in card:
            facts.append(("date", said_date(card.text("date"))))
        if "versions" in card:
            versions = card.fields("versions").items()
            facts.append(("versions", ", ".join(f"{name} {value}" for name, value in versions)))
        file = path.relative_to(self._workdir.path).as_posix()
        return Source(file, self._export_command, tuple(facts))


def _facts(
    chosen: Chosen | None, plan: Blueprint | None, card: Fields | None = None
) -> tuple[tuple[str, str], ...]:
    """What a subnet is; costs from its plan, or from its card where it has none."""
    facts = []
    if plan is not None:
        side, macs, params = plan.resolution, plan.macs, plan.params
    else:
        side, macs, params = (card.number(key) for key in ("resolution", "macs", "params"))
    facts.append(("input", f"{side:g} × {side:g} px"))
    if chosen and chosen.best.arch.depths:
        facts.append(("depths", ", ".join(map(str, chosen.best.arch.depths))))
    facts += [("computations", f"{macs / 1e6:.1f} M MACs"), ("parameters", f"{params / 1e3:.1f} k")]
    if card is not None and "form" in card:
        facts.append(("form of .tflite files", card.text("form")))
    if card is not None and "input" in card:
        shape = " × ".join(f"{size:g}" for size in card.fields("input").numbers("shape"))
        facts.append(("input of the files", f"{shape}, {card.fields('input').text('dtype')}"))
    return tuple(facts)


def _finetuned_accuracies(tuned: Workdir) -> str:
    """By how much fine-tuning changed the accuracy on held-out images, as far as it is told."""
    remedy = "Remove the folder and run ofa-finetune again."
    found = {
        row.text("when"): row.fields("accuracy").number("subnet")
        for row in read_lines(tuned.metrics, remedy)
        if "accuracy" in row
    }
    if not {"before", "after"} <= found.keys():
        return "; not finished"
    return (
        f": {100 * found['before']:.1f} % before and {100 * found['after']:.1f} % after it on "
        "held-out images"
    )
