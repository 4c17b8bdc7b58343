"""What docs/results/ holds, read for tables and pictures."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import records

from ofa_tf.files import read_json

Row = dict[str, str]
HOUR = "growing-hour"  # the supernet that is searched and fine-tuned
SHORT = "growing-short"  # what trainings without a part are compared with
ARCHS = tuple(f"arch{number}" for number in range(1, 6))  # from the smallest to the largest


class Costs(NamedTuple):
    """CPU seconds of both ways to a subnet for each budget, and how good the subnets are."""

    supernet: float
    predictor: float
    latency_table: float
    search: float  # of a budget
    finetuning: float  # of a budget
    accuracies: Sequence[float]  # of the fine-tuned archs
    alone_seconds: Sequence[float]  # of an arch alone, for each share of the supernet's cost
    alone_accuracies: Sequence[Sequence[float]]  # of the archs, for each of them

    def ours(self, budgets: int) -> float:
        each = self.search + self.finetuning
        return self.supernet + self.predictor + self.latency_table + budgets * each

    def alone(self, seconds: float) -> tuple[list[float], str]:
        """What archs reach alone in so long, each, and _bound of the time."""
        times = np.log(self.alone_seconds)
        columns = np.transpose(self.alone_accuracies)
        reached = [float(np.interp(np.log(seconds), times, column)) for column in columns]
        return reached, _bound(seconds, self.alone_seconds)

    def seconds_alone(self, accuracy: float) -> tuple[float, str]:
        """How long an arch takes alone to such a mean, and _bound of the mean."""
        means = np.maximum.accumulate(np.mean(self.alone_accuracies, axis=1))
        seconds = float(np.exp(np.interp(accuracy, means, np.log(self.alone_seconds))))
        return seconds, _bound(accuracy, means)


def _bound(value: float, tried: Sequence[float]) -> str:
    """Beyond what was tried, nothing is known but a bound."""
    return "over " if value > max(tried) else "under " if value < min(tried) else ""


class Results:
    """The files of the study; of what is not done yet there are no rows.

    Args:
        folder: docs/results.

    Raises:
        FailureError: a JSON file cannot be read.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self.trainings = self._csv("trainings")
        self.accuracies = self._csv("accuracies")
        self.search = self._csv("search")
        self.steps = self._csv("steps")
        self.predictors = self._json("predictors")
        self.machine = self._json("machine")

    def _csv(self, name: str) -> list[Row]:
        path = self._folder / f"{name}.csv"
        return records.read_csv(path) if path.exists() else []

    def _json(self, name: str) -> dict[str, Any]:
        path = self._folder / f"{name}.json"
        return read_json(path) if path.exists() else {}

    # -- trainings and their accuracies ---------------------------------------------------------

    def names(self, kind: str) -> list[str]:
        """The trainings of a kind, in the order of the plan."""
        return list(dict.fromkeys(row["training"] for row in self.trainings if row["kind"] == kind))

    def seeds(self, training: str) -> list[int]:
        return sorted({int(row["seed"]) for row in self.accuracies if row["training"] == training})

    def spent(self, training: str, column: str, phase: str = "") -> float:
        """What a seed of a training took of "cpu_seconds", "pflops", ...: the mean over seeds."""
        rows = [row for row in self.trainings if row["training"] == training]
        rows = [row for row in rows if phase in ("", row["phase"])]
        return sum(float(row[column]) for row in rows) / len({row["seed"] for row in rows})

    def of_subnet(self, training: str, subnet: str, recalibrated: bool = True) -> list[float]:
        """The accuracies of a subnet of a training, one of each seed."""
        key = (training, subnet, str(recalibrated))
        return [
            float(row["accuracy"])
            for row in self.accuracies
            if (row["training"], row["subnet"], row["recalibrated"]) == key
        ]

    def of_corners(self, training: str) -> list[float]:
        """The means over the corner subnets, one of each seed."""
        each = [self.of_subnet(training, corner) for corner in self.corners]
        return [statistics.mean(values) for values in zip(*each, strict=True)]

    @property
    def corners(self) -> list[str]:
        """Names of the corner subnets, from the smallest to the largest."""
        return [name for name in self.subnets if name.startswith("r")]

    @property
    def subnets(self) -> dict[str, Row]:
        """A row of each evaluated subnet, by name."""
        return {row["subnet"]: row for row in self.accuracies}

    # -- search and cost ------------------------------------------------------------------------

    def of_group(self, group: str) -> list[Row]:
        return [row for row in self.search if row["group"] == group]

    def randoms_of(self, searched: Row) -> list[Row]:
        """The random subnets of a searched one's budget."""
        return [row for row in self.of_group("random") if row["budget_ms"] == searched["budget_ms"]]

    def best_uniform(self, searched: Row) -> Row | None:
        """The most accurate uniform subnet that is measured to be as fast; None where none is."""
        limit = float(searched["measured_ms"])
        fits = [row for row in self.of_group("uniform") if float(row["measured_ms"]) <= limit]
        return max(fits, key=lambda row: float(row["accuracy"]), default=None)

    def of_archs(self, group: str) -> list[float]:
        """Of the five archs: of a supernet, or of the trainings of each; [] unless of all."""
        each = [
            self.of_subnet(group, arch) or self.of_subnet(f"{group}-{arch}", arch) for arch in ARCHS
        ]
        return [statistics.mean(seeds) for seeds in each] if all(each) else []

    def spent_mean(self, group: str, column: str) -> float:
        """As `spent`: of a supernet, or of the trainings of each of the five archs on the mean."""
        names = [group] if self.seeds(group) else [f"{group}-{arch}" for arch in ARCHS]
        return statistics.mean(self.spent(name, column) for name in names)

    def alone_shares(self) -> list[str]:
        """Names of the trainings alone, "alone40" and so on, as far as done; the shortest first."""
        groups = dict.fromkeys(name.partition("-")[0] for name in self.names("alone"))
        shares = [group for group in groups if self.of_archs(group)]
        return sorted(shares, key=lambda share: self.spent_mean(share, "cpu_seconds"))

    @property
    def has_costs(self) -> bool:
        """Whether all is measured that `costs` adds up."""
        return bool(self.search and self.of_archs("finetuned") and self.alone_shares())

    def costs(self) -> Costs:
        spent = dict.fromkeys(("predictor", "latency", "search"), 0.0)
        for row in self.steps:  # of each sitting
            spent[row["step"]] += float(row["cpu_seconds"])
        shares = self.alone_shares()
        return Costs(
            supernet=self.spent(HOUR, "cpu_seconds"),
            predictor=spent["predictor"],
            latency_table=spent["latency"],
            search=spent["search"] / len(self.of_group("searched")),
            finetuning=self.spent_mean("finetuned", "cpu_seconds"),
            accuracies=self.of_archs("finetuned"),
            alone_seconds=[self.spent_mean(share, "cpu_seconds") for share in shares],
            alone_accuracies=[self.of_archs(share) for share in shares],
        )
