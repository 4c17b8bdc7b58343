"""What docs/results/ holds, read for tables and pictures."""

from __future__ import annotations

import pathlib
import statistics
from typing import NamedTuple

import records

from ofa_tf.errors import UsageError
from ofa_tf.files import read_json

Row = dict[str, str]


class Costs(NamedTuple):
    """CPU seconds of the parts of both ways to a subnet for each budget."""

    supernet: float
    predictor: float
    latency_table: float
    search: float  # of a budget
    alone: float  # of a budget: the mean of the archs that were trained alone

    def ours(self, budgets: int) -> float:
        return self.supernet + self.predictor + self.latency_table + budgets * self.search

    def one_by_one(self, budgets: int) -> float:
        """A training for each budget; that someone has already found the arch costs nothing."""
        return budgets * self.alone

    def rows(self) -> list[tuple[str, float, str]]:
        """What, CPU seconds, how often."""
        return [
            ("the supernet, by progressive shrinking", self.supernet, "once"),
            ("archs evaluated for the accuracy predictor, and its fit", self.predictor, "once"),
            ("latency table", self.latency_table, "once for a device"),
            ("search", self.search, "for each budget"),
            ("an arch trained alone, mean", self.alone, "for each budget"),
        ]


def phases_of(
    trainings: list[dict], training: str, seed: int, last: str | None = None
) -> list[dict]:
    """The rows of a training's phases, after those of another that it began with.

    Args:
        trainings: rows of trainings.csv.
        training: its name.
        seed: its seed.
        last: the phase after which to stop; the last one by default.
    """
    rows = [row for row in trainings if (row["training"], int(row["seed"])) == (training, seed)]
    if last is not None:
        rows = rows[: [row["phase"] for row in rows].index(last) + 1]
    if rows[0]["start"]:
        name, before = rows[0]["start"].split("/")
        rows = phases_of(trainings, name, seed, before) + rows
    return rows


def total(rows: list[dict], column: str) -> float:
    return sum(float(row[column]) for row in rows)


class Results:
    """The files of the study; of what is not done yet there are no rows.

    Args:
        folder: docs/results.

    Raises:
        UsageError: progressive shrinking was not trained and evaluated yet.
        FailureError: a JSON file cannot be read.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self.trainings = self._csv("trainings")
        self.accuracies = self._csv("accuracies")
        if not self.accuracies:
            raise UsageError(f"{folder} has no accuracies.csv: run benchmarks/study.py first.")
        if 0 not in self.seeds("progressive"):  # with which all else is compared
            raise UsageError(
                f"{folder} has no accuracies of progressive shrinking yet: run benchmarks/study.py "
                "on."
            )
        self.search = self._csv("search")
        self.predictions = self._csv("predictors")
        self.steps = {row["step"]: row for row in self._csv("steps")}
        self.quality = read_json(folder / "predictors.json") if self.predictions else {}
        self.machine = read_json(folder / "machine.json")

    def _csv(self, name: str) -> list[Row]:
        path = self._folder / f"{name}.csv"
        return records.read_csv(path) if path.exists() else []

    # -- trainings and their accuracies ---------------------------------------------------------

    def seeds(self, training: str) -> list[int]:
        return sorted({int(row["seed"]) for row in self.accuracies if row["training"] == training})

    def phases(self, training: str, seed: int = 0) -> list[Row]:
        """The phases of a training, after those of another that it began with."""
        return phases_of(self.trainings, training, seed)

    def cpu_seconds(self, training: str, seed: int = 0) -> float:
        return total(self.phases(training, seed), "cpu_seconds")

    def epochs(self, training: str, seed: int = 0) -> float:
        return total(self.phases(training, seed), "epochs")

    def images(self, training: str, seed: int = 0) -> float:
        """That were seen, each as often as it was."""
        return total(self.phases(training, seed), "images")

    def corner_accuracies(
        self, training: str, seed: int, recalibrated: bool = True
    ) -> dict[str, float]:
        """Of the corner subnets by name, from the smallest to the largest."""
        return {
            row["subnet"]: float(row["accuracy"])
            for row in self.accuracies
            if (row["training"], int(row["seed"])) == (training, seed)
            and row["recalibrated"] == str(recalibrated)
            and row["subnet"].startswith("r")
        }

    def accuracy(self, training: str, subnet: str) -> float:
        """Of one of the four archs, cut out of a supernet with seed 0."""
        return next(
            float(row["accuracy"])
            for row in self.accuracies
            if (row["training"], row["subnet"], row["seed"]) == (training, subnet, "0")
        )

    def macs(self, subnet: str) -> int:
        return next(int(row["macs"]) for row in self.accuracies if row["subnet"] == subnet)

    def alone_names(self) -> list[str]:
        names = dict.fromkeys(row["training"] for row in self.accuracies)
        return [name for name in names if name.startswith("alone")]

    def alone(self, training: str) -> Row:
        """The row of an arch that was trained alone."""
        return next(row for row in self.accuracies if row["training"] == training)

    def largest(self) -> Row:
        """The row of the largest net before progressive shrinking: it was alone until then."""
        return next(
            row for row in self.accuracies if (row["subnet"], row["seed"]) == ("largest", "0")
        )

    @property
    def longer(self) -> Results | None:
        """The study at another scale, as far as it was done: `--scale=1 --results=.../longer`."""
        folder = self._folder / "longer"
        return Results(folder) if folder.exists() else None

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

    @property
    def has_costs(self) -> bool:
        """Whether all is measured that `costs` adds up."""
        return bool(self.search and self.alone_names())

    def costs(self) -> Costs:
        spent = {name: float(row["cpu_seconds"]) for name, row in self.steps.items()}
        return Costs(
            supernet=self.cpu_seconds("progressive"),
            predictor=spent["predictor"],
            latency_table=spent["latency"],
            search=spent["search"] / len(self.of_group("searched")),
            alone=statistics.mean(self.cpu_seconds(name) for name in self.alone_names()),
        )
