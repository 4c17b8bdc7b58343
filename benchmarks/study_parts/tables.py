"""The tables of docs/RESULTS.md, as Markdown, from the rows of docs/results/."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from study_parts.results import Results, Row, total

# As the tables say it.
TITLES = {
    "progressive": "progressive shrinking",
    "open": "all choices open from the start",
    "sandwich": "sandwich",
    "no-teacher": "without distillation",
    "unsorted": "without channel sorting",
    "open-short": "all open, as many epochs as progressive shrinking",
}
SCHEDULES = ("progressive", "open", "sandwich")  # in equal time
_BUDGETS = (1, 4, 10, 40)


def trainings(results: Results) -> str:
    """What each training took, a row for each phase."""
    heads = (
        *("training", "seed", "begins with", "phase", "epochs", "images", "subnets a step"),
        *("lr for 64 images", "CPU minutes"),
    )
    rows = [
        (
            row["training"],
            row["seed"],
            row["start"] or "new weights",
            row["phase"],
            f"{float(row['epochs']):g}",
            f"{int(row['images']):,}",
            row["subnets_per_step"],
            row["base_lr"],
            _minutes(float(row["cpu_seconds"])),
        )
        for row in results.trainings
    ]
    return table(heads, rows)


def schedules(results: Results) -> str:
    """The corner subnets of the supernets that were trained in equal time."""
    return _of_corners(results, [*SCHEDULES, "open-short"])


def schedules_longer(results: Results) -> str:
    """The same at three times the time, of those that were trained for so long."""
    return f"{schedules(results.longer)}\n{origin(results.longer)}"


def left_out(results: Results) -> str:
    """The corner subnets where a part of progressive shrinking was left out."""
    return _of_corners(results, ["progressive", "no-teacher", "unsorted"])


def _of_corners(results: Results, names: Sequence[str]) -> str:
    """A row for each corner; every seed of a training has a column of its own."""
    # Trainings that are not done yet have no seeds.
    columns = [(name, seed) for name in names for seed in results.seeds(name)]
    found = [results.corner_accuracies(name, seed) for name, seed in columns]
    first = found[0]
    heads = ["subnet", "M MACs"]
    for name, seed in columns:
        heads.append(TITLES[name] + (f", seed {seed}" if len(results.seeds(name)) > 1 else ""))
    rows = []
    for subnet in first:
        cells = [_percent(first[subnet])]
        cells += [_compared(each[subnet], first[subnet]) for each in found[1:]]
        rows.append((_corner(subnet), _millions(results.macs(subnet)), *cells))
    means = [statistics.mean(each.values()) for each in found]
    cells = [_percent(means[0]), *(_compared(mean, means[0]) for mean in means[1:])]
    rows.append(("mean", "", *cells))
    told = {
        "CPU minutes": lambda *run: _minutes(results.cpu_seconds(*run)),
        "epochs": lambda *run: f"{results.epochs(*run):g}",
        "images seen": lambda *run: f"{results.images(*run):,.0f}",
    }
    for what, of_run in told.items():
        rows.append((what, "", *(of_run(*column) for column in columns)))
    return table(heads, rows)


def recalibration(results: Results) -> str:
    """The corner subnets as they come out of the supernet, and recalibrated."""
    recalibrated = results.corner_accuracies("progressive", 0)
    as_is = results.corner_accuracies("progressive", 0, recalibrated=False)
    rows = [
        (_corner(name), _percent(value), _compared(as_is[name], value))
        for name, value in recalibrated.items()
    ]
    means = [statistics.mean(each.values()) for each in (recalibrated, as_is)]
    rows.append(("mean", _percent(means[0]), _compared(means[1], means[0])))
    return table(("subnet", "recalibrated", "with the supernet's statistics"), rows)


def alone(results: Results) -> str:
    """Archs cut out of the supernets against the same archs trained alone."""
    supernets = [name for name in SCHEDULES if results.seeds(name)]
    heads = (
        *("arch", "px", "M MACs", "trained alone"),
        *(f"cut out: {TITLES[name]}" for name in supernets),
        *("epochs alone", "images seen", "CPU minutes"),
    )
    rows = []
    for name in results.alone_names():
        cut_out = [results.accuracy(supernet, name) for supernet in supernets]
        rows.append(_alone_row(results.alone(name), cut_out, results.phases(name)))
    corners = [results.corner_accuracies(name, 0) for name in supernets]
    largest = [list(accuracies.values())[-1] for accuracies in corners]
    rows.append(_alone_row(results.largest(), largest, results.phases("progressive")[:1]))
    return table(heads, rows)


def _alone_row(row: Row, cut_out: Sequence[float], phases: Sequence[Row]) -> tuple[str, ...]:
    arch = json.loads(row["arch"])
    parts = {"k": arch["ks"], "e": arch["e"], "d": arch["d"]}
    text = " ".join(name + "".join(f"{value:g}" for value in of) for name, of in parts.items())
    accuracy = float(row["accuracy"])
    return (
        f"`{text}`" + (" (the largest)" if row["subnet"] == "largest" else ""),
        row["resolution"],
        _millions(int(row["macs"])),
        _percent(accuracy),
        *(_compared(each, accuracy) for each in cut_out),
        f"{total(phases, 'epochs'):g}",
        f"{total(phases, 'images'):,.0f}",
        _minutes(total(phases, "cpu_seconds")),
    )


def cost(results: Results) -> str:
    """CPU hours for so many budgets, from the measured parts."""
    parts = results.costs()
    rows = [
        (
            str(count),
            f"{parts.ours(count) / 3600:.2f}",
            f"{parts.one_by_one(count) / 3600:.2f}",
            f"{parts.one_by_one(count) / parts.ours(count):.1f}",
        )
        for count in _BUDGETS
    ]
    return table(("budgets", "ours, CPU hours", "a training each, CPU hours", "ratio"), rows)


def cost_parts(results: Results) -> str:
    """The measured parts of `cost`."""
    parts = results.costs()
    rows = [(what, f"{seconds / 60:.2f}", how_often) for what, seconds, how_often in parts.rows()]
    return table(("part", "CPU minutes", "how often"), rows)


def searched(results: Results) -> str:
    """For each budget the searched subnet, the random ones, and the best uniform one."""
    heads = (
        *("budget, ms", "searched: measured ms", "accuracy", "predicted"),
        *("random of that latency: mean accuracy", "least to most"),
        *("best uniform that is as fast", "accuracy"),
    )
    rows = []
    for subnet in results.of_group("searched"):
        randoms = [float(row["accuracy"]) for row in results.randoms_of(subnet)]
        uniform = results.best_uniform(subnet)
        mine = float(subnet["accuracy"])
        rows.append(
            (
                subnet["budget_ms"],
                _measured(subnet),
                _percent(mine),
                _percent(float(subnet["predicted_accuracy"])),
                _compared(statistics.mean(randoms), mine) if randoms else "none",
                f"{_percent(min(randoms))} to {_percent(max(randoms))}" if randoms else "",
                f"{uniform['name']}, {_measured(uniform, ' ms')}" if uniform else "none",
                _compared(float(uniform["accuracy"]), mine) if uniform else "",
            )
        )
    return table(heads, rows)


def _measured(row: Row, unit: str = "") -> str:
    return f"{float(row['measured_ms']):.3f}{unit}" + " (not valid)" * (row["valid"] == "False")


def predictors(results: Results) -> str:
    """How good both predictors are on what they were not fitted on."""
    accuracy, latency = results.quality["accuracy"], results.quality["latency"]
    rows = [
        (
            "accuracy",
            f"{accuracy['n_held_out']} of {accuracy['n_fitted'] + accuracy['n_held_out']} archs",
            f"RMSE {100 * accuracy['rmse']:.2f}, MAE {100 * accuracy['mae']:.2f} points",
            f"{accuracy['kendall']:.3f}",
        ),
        (
            "latency",
            f"{latency['n']} subnets",
            f"mean error {100 * latency['mape']:.1f} %, worst {100 * latency['worst']:.1f} %",
            f"{latency['kendall']:.3f}",
        ),
    ]
    return table(("predictor", "held out", "error", "Kendall"), rows)


def origin(results: Results) -> str:
    """Where and with what all of it was measured."""
    of = results.machine
    packages = ("python", "tensorflow", "keras", "ai-edge-litert", "numpy", "ofa_tf")
    versions = ", ".join(f"{name} {of[name]}" for name in packages if of.get(name))
    flags = of["cpu_flags"].replace(" ", ", ")
    return f"{of['cores']} cores of {of['cpu']} ({flags}); {versions}.\n"


class Section(NamedTuple):
    """A table of the page.

    Attributes:
        make: the table.
        needs: whether its results are there.
        picture: the name of the picture below it, as in pictures.py, and what it shows; or none.
    """

    make: Callable[[Results], str]
    needs: Callable[[Results], bool] = lambda _: True
    picture: tuple[str, str] | None = None

    def text(self, results: Results) -> str:
        if not self.needs(results):
            return "_Not measured yet._\n"
        picture = ""
        if self.picture:
            name, shows = self.picture
            picture = f"\n![{shows}](pictures/study_{name}.png)\n"
        return self.make(results) + picture


def _has_longer(results: Results) -> bool:
    return results.longer is not None


def _is_searched(results: Results) -> bool:
    return bool(results.search)


def _has_costs(results: Results) -> bool:
    return results.has_costs


SECTIONS = {
    "trainings": Section(trainings),
    "schedules": Section(
        schedules, picture=("schedules", "Accuracy of the corner subnets by schedule")
    ),
    "schedules longer": Section(schedules_longer, _has_longer),
    "left out": Section(left_out),
    "recalibration": Section(recalibration),
    "alone": Section(alone),
    "cost": Section(cost, _has_costs, ("cost", "CPU hours against the number of budgets")),
    "cost parts": Section(cost_parts, _has_costs),
    "searched": Section(
        searched,
        _is_searched,
        ("pareto", "Accuracy against measured latency of searched, random and uniform subnets"),
    ),
    "predictors": Section(
        predictors, _is_searched, ("predictors", "Predicted against measured accuracy and latency")
    ),
    "origin": Section(origin),
}


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _compared(fraction: float, base: float) -> str:
    """In percent, with the difference from a base in points."""
    return f"{_percent(fraction)} ({100 * (fraction - base):+.1f})"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def _corner(name: str) -> str:
    """ "r32_d1_e2_k3" as "D1 E2 K3"."""
    return " ".join(part.upper() for part in name.split("_")[1:])
