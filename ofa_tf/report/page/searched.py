"""What ofa-search found: the chosen subnets, and whole fronts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ofa_tf.fields import Fields, read_fields
from ofa_tf.report.measures import MEASURES, measure_name
from ofa_tf.report.page.reading import Source, changed
from ofa_tf.spaces import Arch, SearchSpace, read_arch
from ofa_tf.workdir import SEARCH_REMEDY, Workdir


@dataclasses.dataclass(frozen=True)
class ScoredSubnet:
    """A subnet that came into question for a scenario; accuracies are 0..1."""

    arch: Arch
    predicted_accuracy: float
    evaluated_accuracy: float | None
    measures: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The subnet of a scenario.

    Args:
        name: of the scenario and of the subnet's folder.
        limits: by the name of a measure.
        best: the subnet.
        candidates: all that were ranked, the best first; none where it was taken as found.
    """

    name: str
    limits: Mapping[str, float]
    best: ScoredSubnet
    candidates: tuple[ScoredSubnet, ...]


@dataclasses.dataclass(frozen=True)
class SearchRecord:
    """search.json.

    Args:
        chosen: the subnets.
        own_predictor: False where it was given the accuracy predictor.
        weights: the hash of the supernet's; None where it does not tell.
    """

    chosen: tuple[Chosen, ...]
    own_predictor: bool
    weights: str | None
    source: Source


@dataclasses.dataclass(frozen=True)
class Front:
    """A front of predicted accuracy against a measure, by rising cost: (cost, accuracy 0..1)."""

    measure: str
    points: tuple[tuple[float, float], ...]
    source: Source


def read_search(workdir: Workdir, space: SearchSpace, command: str) -> SearchRecord | None:
    """Reads search.json; None where there is none. Raises FailureError where it is damaged."""
    path = workdir.search_result
    if not path.exists():
        return None
    fields = read_fields(path, SEARCH_REMEDY)
    settings = fields.fields("settings")
    return SearchRecord(
        chosen=tuple(_chosen(row, space) for row in fields.several("subnets")),
        own_predictor="accuracy_predictor" not in settings,
        weights=(settings.text_or_none("fingerprint") or "").split("-")[0] or None,
        source=Source(path.name, command, (*_facts(settings), ("last written", changed(path)))),
    )


def read_fronts(workdir: Workdir, command: str) -> tuple[Front, ...]:
    """Reads all front_MEASURE.json that there are. Raises FailureError where one is damaged."""
    fronts = []
    for measure in MEASURES:
        path = workdir.front(measure)
        if not path.exists():
            continue
        fields = read_fields(path, SEARCH_REMEDY)
        facts = (*_facts(fields.fields("settings")), ("last written", changed(path)))
        rows = fields.several("subnets")
        if not rows:
            raise fields.error("subnets is empty")
        points = tuple((row.number(measure), row.number("predicted_accuracy")) for row in rows)
        source = Source(path.name, f"{command} --pareto={measure}", facts)
        fronts.append(Front(measure, points, source))
    return tuple(fronts)


def _chosen(row: Fields, space: SearchSpace) -> Chosen:
    candidates = row.several("candidates") if "candidates" in row else ()
    return Chosen(
        row.name("name"),
        row.named_numbers("limits"),
        _candidate(row, space),
        tuple(_candidate(candidate, space) for candidate in candidates),
    )


def _candidate(row: Fields, space: SearchSpace) -> ScoredSubnet:
    return ScoredSubnet(
        read_arch(row, space),
        row.number("predicted_accuracy"),
        row.number_or_none("evaluated_accuracy"),
        row.named_numbers("measures"),
    )


def _facts(settings: Fields) -> list[tuple[str, str]]:
    """What the search went by, as far as it is told."""
    facts = []
    if "accuracy_predictor" in settings:
        files = _files(settings.fields("accuracy_predictor"))
        facts.append(("accuracy", f"predicted by {files}, which was given"))
    elif "num_archs" in settings:
        archs, images = settings.number("num_archs"), settings.number("arch_images")
        told = f"predicted, from {archs:g} subnets evaluated on up to {images:g} held-out images"
        facts.append(("accuracy", told))
    if "tables" in settings:
        tables = settings.fields("tables")
        for measure, _ in tables.items():
            name, unit = measure_name(measure)
            facts.append((f"{name} ({unit})", f"predicted by {_files(tables.fields(measure))}"))
    if "top" in settings:
        images = settings.number_or_none("rank_images")
        told = "all held-out images" if images is None else f"up to {images:g} held-out images"
        facts.append(
            ("ranking", f"up to {settings.number('top'):g} candidates each, evaluated on {told}")
        )
    effort = settings.text_or_none("effort")
    if effort:
        facts.append(("evolution", f"{effort} effort, seed {settings.number('seed'):g}"))
    return facts


def _files(hashes: Fields) -> str:
    return ", ".join(f"{name} (SHA-256 {hashes.text(name)[:12]}…)" for name, _ in hashes.items())
