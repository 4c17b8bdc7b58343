"""The tables of docs/RESULTS.md, as Markdown, from the rows of docs/results/."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from study_parts.results import ARCHS, HOUR, SHORT, Results, Row

# As the tables say it.
TITLES = {
    "growing": "growing",
    "open": "all open from the start",
    "progressive": "progressive shrinking",
    HOUR: "growing, for an hour",
    SHORT: "nothing",
    "no-low-resolution": "low resolution first",
    "no-small-subnets": "small subnets first",
    "no-coupling": "coupled choices",
    "no-zero-gamma": "zero gammas",
    "small-crops": "mild crops (0.4 in place of 0.65 of the image)",
    "low-rate": "high rate (0.06 in place of 0.18)",
}
SUPERNETS = ("growing", "open", "progressive", HOUR)
BUDGETS = (1, 4, 10, 40)
_OPPOSITE = {"": "", "over ": "under ", "under ": "over "}  # of a difference from a bound
_SPENT = {  # what a training takes, as the tables print it
    "CPU minutes": ("cpu_seconds", lambda value: f"{value / 60:.1f}"),
    "PFLOPs": ("pflops", lambda value: f"{value:.3g}"),
    "epochs": ("epochs", lambda value: f"{value:.4g}"),
    "images seen": ("images", lambda value: f"{value:,.0f}"),
}


def trainings(results: Results) -> str:
    """What each training took, a row for each phase."""
    phases = {(row["training"], row["phase"]): row for row in results.trainings}
    rows = [
        (
            *(name, len({each["seed"] for each in results.trainings if each["training"] == name})),
            *(row["start"] or "new weights", phase, row["subnets_per_step"], row["base_lr"]),
            *_spent(results, name, phase),
        )
        for (name, phase), row in phases.items()
    ]
    heads = ("training", "seeds", "begins with", "phase", "subnets a step", "lr for 64 images")
    return table((*heads, *_SPENT), rows)


def _spent(results: Results, training: str, phase: str = "") -> list[str]:
    return [show(results.spent(training, column, phase)) for column, show in _SPENT.values()]


def schedules(results: Results) -> str:
    """The corner subnets of the supernets."""
    names = [name for name in SUPERNETS if results.seeds(name)]
    rows = []
    for corner in results.corners:
        cells = _side_by_side(results.of_subnet(name, corner) for name in names)
        rows.append((corner_title(corner), _millions(results.subnets[corner]), *cells))
    rows.append(("mean", "", *_side_by_side(map(results.of_corners, names))))
    rows.append(("seeds", "", *(len(results.seeds(name)) for name in names)))
    spent = zip(*(_spent(results, name) for name in names), strict=True)
    rows += [(what, "", *values) for what, values in zip(_SPENT, spent, strict=True)]
    return table(("subnet", "M MACs", *(TITLES[name] for name in names)), rows)


def _side_by_side(columns: Iterable[Sequence[float]]) -> list[str]:
    """The mean over seeds of each, ± half their range, and its difference from the first's."""
    cells, base = [], None
    for seeds in columns:
        mean = statistics.mean(seeds)
        spread = f" ± {50 * (max(seeds) - min(seeds)):.1f}" * (len(seeds) > 1)
        change = "" if base is None else f" ({100 * (mean - base):+.1f})"
        cells.append(_percent(mean) + spread + change)
        base = mean if base is None else base
    return cells


def left_out(results: Results) -> str:
    """The mean of the corner subnets where a part of the schedule was left out."""
    base, rows = results.of_corners(SHORT), []
    for name in results.names("part"):
        means = results.of_corners(name)
        # As many seeds of both.
        change = statistics.mean(means) - statistics.mean(base[: len(means)])
        cells = (", ".join(map(_percent, means)), "" if name == SHORT else f"{100 * change:+.1f}")
        rows.append((TITLES[name], *cells, *_spent(results, name)))
    return table(("left out", "mean of the corners, each seed", "difference", *_SPENT), rows)


def recalibration(results: Results) -> str:
    """The corner subnets as they come out of the supernet, and recalibrated."""
    pairs = {
        corner_title(name): [results.of_subnet("growing", name, each)[0] for each in (True, False)]
        for name in results.corners
    }
    pairs["mean"] = list(map(statistics.mean, zip(*pairs.values(), strict=True)))
    rows = [(name, _percent(one), _compared(two, one)) for name, (one, two) in pairs.items()]
    return table(("subnet", "recalibrated", "with the supernet's statistics"), rows)


def alone(results: Results) -> str:
    """Archs cut out of the supernets, fine-tuned, and trained alone."""
    titles = {name: f"cut out: {TITLES[name]}" for name in (HOUR, *SUPERNETS[:-1])}
    titles["finetuned"] = f"fine-tuned, {TITLES[HOUR]}"
    titles |= {name: f"alone, 1/{name[5:]} of that" for name in reversed(results.alone_shares())}
    found = {name: results.of_archs(name) for name in titles}
    found = {name: values for name, values in found.items() if values}
    rows = []
    for arch, values in zip(ARCHS, zip(*found.values(), strict=True), strict=True):
        row = results.subnets[arch]
        cells = _side_by_side([value] for value in values)
        rows.append((_arch(row), row["resolution"], _millions(row), *cells))
    means = _side_by_side([statistics.mean(values)] for values in found.values())
    rows.append(("mean", "", "", *means))
    for what in ("CPU minutes", "PFLOPs"):
        column, show = _SPENT[what]
        spent = [show(results.spent_mean(name, column)) for name in found]
        rows.append((f"{what} of a training", "", "", *spent))
    return table(("arch", "px", "M MACs", *(titles[name] for name in found)), rows)


def _arch(row: Row) -> str:
    arch = json.loads(row["arch"])
    parts = {"k": arch["ks"], "e": arch["e"], "d": arch["d"]}
    text = " ".join(name + "".join(f"{value:g}" for value in of) for name, of in parts.items())
    return f"`{text}`" + (" (the largest)" if row["subnet"] == ARCHS[-1] else "")


def cost(results: Results) -> str:
    """For so many budgets: what ours takes, and what as much or as good a training each does."""
    parts, rows = results.costs(), []
    mean = statistics.mean(parts.accuracies)
    each, bound = parts.seconds_alone(mean)
    once, again = (results.spent_mean(name, "pflops") for name in (HOUR, "finetuned"))
    show = _SPENT["PFLOPs"][1]
    for count in BUDGETS:
        ours = parts.ours(count)
        reached, limit = parts.alone(ours / count)
        rows.append(
            (
                *(count, _minutes(ours), show(once + count * again)),
                *(_with_ends(parts.accuracies), _minutes(ours / count)),
                limit + _with_ends(reached),
                f"{_OPPOSITE[limit]}{100 * (mean - statistics.mean(reached)):+.1f}",
                f"{bound}{_minutes(count * each)}",
                f"{bound}{count * each / ours:.2g}",
            )
        )
    heads = (
        *("budgets", "ours: CPU minutes", "PFLOPs of training", "accuracy"),
        "alone for as much: CPU minutes each",
        *("accuracy", "ours against that", "alone to ours: CPU minutes", "times ours"),
    )
    return table(heads, rows)


def _with_ends(accuracies: Sequence[float]) -> str:
    """Their mean, and those of the smallest and the largest arch."""
    ends = f"{_percent(accuracies[0])}, {_percent(accuracies[-1])}"
    return f"{_percent(statistics.mean(accuracies))} ({ends})"


def cost_parts(results: Results) -> str:
    """The measured parts of `cost`."""
    parts, pflops = results.costs(), _SPENT["PFLOPs"][1]
    of = {name: pflops(results.spent_mean(name, "pflops")) for name in (HOUR, "finetuned")}
    rows = [
        ("the supernet", _minutes(parts.supernet), of[HOUR], "once"),
        ("accuracy predictor: archs evaluated, fit", _minutes(parts.predictor), "", "once"),
        ("latency table", _minutes(parts.latency_table), "", "once for a device"),
        ("search", _minutes(parts.search), "", "for each budget"),
        ("fine-tuning", _minutes(parts.finetuning), of["finetuned"], "for each budget"),
    ]
    return table(("part", "CPU minutes", "PFLOPs", "how often"), rows)


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
    accuracy, latency = results.predictors["accuracy"], results.predictors["latency"]
    of = f"{accuracy['n_held_out']} of {accuracy['n_fitted'] + accuracy['n_held_out']} archs"
    error = f"RMSE {100 * accuracy['rmse']:.2f}, MAE {100 * accuracy['mae']:.2f} points"
    rows = [("accuracy", of, error, f"{accuracy['kendall']:.3f}")]
    error = f"mean error {100 * latency['mape']:.1f} %, worst {100 * latency['worst']:.1f} %"
    rows.append(("latency", f"{latency['n']} subnets", error, f"{latency['kendall']:.3f}"))
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
        shows: what the picture below it does, which pictures.py draws; "" for none.
    """

    make: Callable[[Results], str]
    needs: Callable[[Results], bool]
    shows: str = ""

    @property
    def picture(self) -> str:
        """The name of its picture's file."""
        return f"study_{self.make.__name__}.png"

    def text(self, results: Results) -> str:
        if not self.needs(results):
            return "_Not measured yet._\n"
        picture = f"\n![{self.shows}](pictures/{self.picture})\n" if self.shows else ""
        return self.make(results) + picture


def _has_growing(results: Results) -> bool:
    return bool(results.seeds("growing"))


def _is_searched(results: Results) -> bool:
    return bool(results.search)


def _has_costs(results: Results) -> bool:
    return results.has_costs


_PARETO = "Accuracy against measured latency of searched, random and uniform subnets"
SECTIONS = {
    "schedules": Section(schedules, _has_growing, "Accuracy of the corner subnets by schedule"),
    "left out": Section(left_out, lambda results: bool(results.seeds(SHORT))),
    "recalibration": Section(recalibration, _has_growing),
    "alone": Section(alone, lambda results: bool(results.of_archs(HOUR))),
    "cost": Section(cost, _has_costs, "Accuracy for as much CPU time against number of budgets"),
    "cost parts": Section(cost_parts, _has_costs),
    "searched": Section(searched, _is_searched, _PARETO),
    "predictors": Section(
        predictors, _is_searched, "Predicted against measured accuracy and latency"
    ),
    "trainings": Section(trainings, lambda results: bool(results.trainings)),
    "origin": Section(origin, lambda results: bool(results.machine)),
}


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _compared(fraction: float, base: float) -> str:
    """In percent, with the difference from a base in points."""
    return f"{_percent(fraction)} ({100 * (fraction - base):+.1f})"


def _millions(row: Row) -> str:
    return f"{int(row['macs']) / 1e6:.1f}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def corner_title(name: str) -> str:
    """ "r32_d1_e2_k3" as "D1 E2 K3"."""
    return " ".join(part.upper() for part in name.split("_")[1:])
