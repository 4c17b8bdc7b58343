"""Makes the tables and the pictures of docs/RESULTS.md from docs/results/.

    python benchmarks/study_results.py

A table stands between the lines `<!-- study: NAME -->` and `<!-- end of study -->`; the text around
the tables is written by hand and stays. The pictures are docs/pictures/study_*.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from study_runs import ARCHS, HOUR, SHORT

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import atomic_path, read_json, write_bytes

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
SUPERNETS = {
    "growing": "growing",
    "open": "all open from the start",
    "progressive": "progressive shrinking",
    HOUR: "growing, for an hour",
}
LEFT_OUT = {
    SHORT: "nothing",
    "no-low-resolution": "low resolution first",
    "no-small-subnets": "small subnets first",
    "no-coupling": "coupled choices",
    "no-zero-gamma": "zero gammas",
    "small-crops": "mild crops (0.4 in place of 0.65 of the image)",
    "low-rate": "high rate (0.06 in place of 0.18)",
}
BUDGETS = (1, 4, 10, 40)
_SPENT = {  # what a training takes: column, divisor, format
    "CPU minutes": ("cpu_seconds", 60, ".1f"),
    "PFLOPs": ("pflops", 1, ".3g"),
    "epochs": ("epochs", 1, ".4g"),
    "images seen": ("images", 1, ",.0f"),
}
_OPPOSITE = {"": "", "over ": "under ", "under ": "over "}  # of a difference from a bound
_SECTION = re.compile(r"(<!-- study: (?P<name>[\w ]+) -->\n).*?(<!-- end of study -->)", re.DOTALL)


class Results:
    """The files of docs/results. Of what is not done yet there are no rows."""

    def __init__(self, folder: pathlib.Path):
        self.trainings, self.accuracies, self.search, self.steps = (
            _rows_of(folder / f"{name}.csv")
            for name in ("trainings", "accuracies", "search", "steps")
        )
        self.predictors, self.machine = (
            read_json(path) if path.exists() else {}
            for path in (folder / "predictors.json", folder / "machine.json")
        )
        self.subnets = {row["subnet"]: row for row in self.accuracies}
        self.corners = [name for name in self.subnets if name.startswith("r")]  # the least first

    def percents(
        self, training: str, subnets: Sequence[str], recalibrated: bool = True
    ) -> np.ndarray:
        """Of subnets of a training, or of the trainings of each: (subnets, seeds); or (0,)."""
        found = [
            [
                100 * row["accuracy"]
                for row in self.accuracies
                if row["training"] in (training, f"{training}-{subnet}")
                and (row["subnet"], row["recalibrated"]) == (subnet, str(recalibrated))
            ]
            for subnet in subnets
        ]
        return np.array(found if all(found) else [])

    def of_archs(self, training: str) -> np.ndarray:
        """In percent, of the five archs: (5,), means over seeds; or (0,)."""
        found = self.percents(training, ARCHS)
        return found.mean(axis=1) if found.size else found

    def spent(self, training: str, column: str, phase: str = "") -> float:
        """What a training took: the mean over its seeds, or over the trainings of each arch."""
        names = (training, *(f"{training}-{arch}" for arch in ARCHS))
        rows = [row for row in self.trainings if row["training"] in names]
        count = len({(row["training"], row["seed"]) for row in rows})
        return sum(row[column] for row in rows if phase in ("", row["phase"])) / count

    def told(self, training: str, what: Iterable[str] = _SPENT, phase: str = "") -> list[str]:
        """What it took, as text."""
        columns = (_SPENT[name] for name in what)
        return [f"{self.spent(training, of, phase) / by:{form}}" for of, by, form in columns]

    def of_group(self, group: str) -> list[dict[str, Any]]:
        return [row for row in self.search if row["group"] == group]

    def step(self, name: str) -> float:
        """CPU seconds of a step of the search, over all sittings."""
        return sum(row["cpu_seconds"] for row in self.steps if row["step"] == name)

    def shares_alone(self) -> list[str]:
        """Trainings alone, of which all archs are done, by their cost: "alone40" and so on."""
        alone = [row["training"] for row in self.trainings if row["kind"] == "alone"]
        done = {name.partition("-")[0] for name in alone}
        done = [name for name in done if self.of_archs(name).size]
        return sorted(done, key=lambda name: self.spent(name, "cpu_seconds"))

    def alone(self) -> tuple[np.ndarray, np.ndarray]:
        """CPU seconds of an arch alone: (shares,), ascending; and percents: (shares, archs)."""
        shares = self.shares_alone()
        seconds = np.array([self.spent(name, "cpu_seconds") for name in shares])
        return seconds, np.array([self.of_archs(name) for name in shares])

    def has_costs(self) -> bool:
        return bool(self.search and self.of_archs("finetuned").size and self.shares_alone())

    def each(self) -> float:
        """CPU seconds of the search for one budget."""
        return self.step("search") / len(self.of_group("searched"))

    def total(self, budgets: int, supernet: str = HOUR, finetuned: bool = True) -> float:
        """CPU seconds of a subnet for each of so many budgets, cut out of a supernet."""
        once = self.spent(supernet, "cpu_seconds") + self.step("predictor") + self.step("latency")
        tuning = self.spent("finetuned", "cpu_seconds") if finetuned else 0
        return once + budgets * (self.each() + tuning)


def _rows_of(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, with numbers for what looks like one."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(lines)]


def _value(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


# -- tables: "" where their results are not there yet ---------------------------------------------


def schedules(of: Results) -> str:
    """The corner subnets of the supernets."""
    return _compared(of, of.corners, SUPERNETS) if of.percents("growing", of.corners).size else ""


def alone(of: Results) -> str:
    """Archs cut out of the supernets, fine-tuned, and trained alone."""
    names = {name: f"cut out: {SUPERNETS[name]}" for name in (HOUR, *SUPERNETS)}
    names["finetuned"] = f"fine-tuned, {SUPERNETS[HOUR]}"
    names |= {name: f"alone, 1/{name[5:]} of that" for name in reversed(of.shares_alone())}
    return _compared(of, ARCHS, names) if of.of_archs(HOUR).size else ""


def _compared(of: Results, subnets: Sequence[str], titles: dict[str, str]) -> str:
    """A column for each training that is done, a row for each subnet, and what they took."""
    found = {name: of.percents(name, subnets) for name in titles}
    found = {name: values for name, values in found.items() if values.size}
    seeds = [values.shape[1] for values in found.values()]
    spent = zip(_SPENT, *map(of.told, found), strict=True)
    foot = [("seeds", "", *seeds), *((what, "", *cells) for what, *cells in spent)]
    heads = ("subnet", "M MACs", *(titles[name] for name in found))
    return table(heads, [*_of_subnets(of, subnets, list(found.values())), *foot])


def _of_subnets(
    of: Results, subnets: Sequence[str], columns: Sequence[np.ndarray]
) -> Iterable[Sequence[str]]:
    """A row for each subnet, and one for their mean."""
    for subnet, *seeds in zip(subnets, *columns, strict=True):
        yield subnet_title(of, subnet), f"{of.subnets[subnet]['macs'] / 1e6:.1f}", *_beside(seeds)
    yield "mean", "", *_beside(values.mean(axis=0) for values in columns)


def _beside(columns: Iterable[Sequence[float]]) -> list[str]:
    """The mean over seeds of each, ± half their range, and its difference from the first's."""
    columns = [np.asarray(seeds) for seeds in columns]
    base = columns[0].mean()
    return [
        f"{seeds.mean():.1f}"
        + f" ± {np.ptp(seeds) / 2:.1f}" * (len(seeds) > 1)
        + f" ({seeds.mean() - base:+.1f})" * (number > 0)
        for number, seeds in enumerate(columns)
    ]


def subnet_title(of: Results, name: str) -> str:
    """ "D1 E2 K3" of the corner "r32_d1_e2_k3", "`k33 e23 d2` 24 px" of an arch."""
    if name in of.corners:
        return " ".join(part.upper() for part in name.split("_")[1:])
    arch = json.loads(of.subnets[name]["arch"])
    parts = {"k": arch["ks"], "e": arch["e"], "d": arch["d"]}
    text = " ".join(key + "".join(f"{each:g}" for each in values) for key, values in parts.items())
    return f"`{text}` {arch['r']} px" + " (the largest)" * (name == ARCHS[-1])


def left_out(of: Results) -> str:
    """The mean of the corner subnets where a part of the schedule was left out."""
    found = {name: of.percents(name, of.corners) for name in LEFT_OUT}
    means = {name: values.mean(axis=0) for name, values in found.items() if values.size}
    if SHORT not in means:
        return ""
    rows = []
    for name, seeds in means.items():
        change = seeds.mean() - means[SHORT][: len(seeds)].mean()  # as many seeds of both
        told = "" if name == SHORT else f"{change:+.1f}"
        rows.append(
            (LEFT_OUT[name], ", ".join(f"{each:.1f}" for each in seeds), told, *of.told(name))
        )
    return table(("left out", "mean of the corners, each seed", "difference", *_SPENT), rows)


def recalibration(of: Results) -> str:
    """The corner subnets as they come out of the supernet, and recalibrated."""
    columns = [of.percents("growing", of.corners, each) for each in (True, False)]
    if not all(values.size for values in columns):
        return ""
    heads = ("subnet", "M MACs", "recalibrated", "with the supernet's statistics")
    return table(heads, _of_subnets(of, of.corners, [values[:, :1] for values in columns]))


def cost(of: Results) -> str:
    """For so many budgets: what ours takes, and what as much or as good a training each does."""
    if not of.has_costs():
        return ""
    tuned, (seconds, percents) = of.of_archs("finetuned"), of.alone()
    means = np.maximum.accumulate(percents.mean(axis=1))
    each = np.exp(np.interp(tuned.mean(), means, np.log(seconds)))  # to be as good as ours
    bound, rows = _bound(tuned.mean(), means), []
    for count in BUDGETS:
        total = of.total(count)
        share = total / count
        reached = np.array([np.interp(np.log(share), np.log(seconds), one) for one in percents.T])
        limit = _bound(share, seconds)
        pflops = of.spent(HOUR, "pflops") + count * of.spent("finetuned", "pflops")
        ours = (count, _minutes(total), f"{pflops:.3g}", _with_ends(tuned), _minutes(share))
        change = f"{_OPPOSITE[limit]}{tuned.mean() - reached.mean():+.1f}"
        as_good = f"{bound}{_minutes(count * each)}", f"{bound}{count * each / total:.2g}"
        rows.append((*ours, limit + _with_ends(reached), change, *as_good))
    heads = (
        *("budgets", "ours: CPU minutes", "PFLOPs of training", "accuracy"),
        *("alone for as much: CPU minutes each", "accuracy", "ours against that"),
        *("alone to ours: CPU minutes", "times ours"),
    )
    return table(heads, rows)


def _bound(value: float, tried: Sequence[float]) -> str:
    """Beyond what was tried, nothing is known but a bound."""
    return "over " if value > max(tried) else "under " if value < min(tried) else ""


def _with_ends(percents: np.ndarray) -> str:
    """Their mean, and those of the smallest and the largest arch."""
    return f"{percents.mean():.1f} ({percents[0]:.1f}, {percents[-1]:.1f})"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def cost_parts(of: Results) -> str:
    """The measured parts of `cost`."""
    if not of.has_costs():
        return ""
    what = ("CPU minutes", "PFLOPs")
    rows = [
        ("the supernet", *of.told(HOUR, what), "once"),
        ("accuracy predictor: archs evaluated, fit", _minutes(of.step("predictor")), "", "once"),
        ("latency table", _minutes(of.step("latency")), "", "once for a device"),
        ("search", _minutes(of.each()), "", "for each budget"),
        ("fine-tuning", *of.told("finetuned", what), "for each budget"),
    ]
    return table(("part", *what, "how often"), rows)


def searched(of: Results) -> str:
    """For each budget the searched subnet, the random ones, and the best uniform one."""
    rows = []
    for row in of.of_group("searched"):
        budget, mine, rivals = row["budget_ms"], 100 * row["accuracy"], ["none", "", "none", ""]
        randoms = [each for each in of.of_group("random") if each["budget_ms"] == budget]
        if randoms:
            percents = 100 * np.array([each["accuracy"] for each in randoms])
            ends = f"{percents.min():.1f} to {percents.max():.1f}"
            rivals[:2] = _beside([[mine], [percents.mean()]])[1], ends
        limit = row["measured_ms"]
        fast = [each for each in of.of_group("uniform") if each["measured_ms"] <= limit]
        if fast:
            best = max(fast, key=lambda each: each["accuracy"])
            against = _beside([[mine], [100 * best["accuracy"]]])[1]
            rivals[2:] = f"{best['name']}, {_measured(best, ' ms')}", against
        predicted = f"{100 * row['predicted_accuracy']:.1f}"
        rows.append((f"{budget:g}", _measured(row), f"{mine:.1f}", predicted, *rivals))
    heads = (
        *("budget, ms", "searched: measured ms", "accuracy", "predicted"),
        *("random of that latency: mean accuracy", "least to most"),
        *("best uniform that is as fast", "accuracy"),
    )
    return table(heads, rows) if rows else ""


def _measured(row: dict[str, Any], unit: str = "") -> str:
    return f"{row['measured_ms']:.3f}{unit}" + " (not valid)" * (row["valid"] == "False")


def predictors(of: Results) -> str:
    """How good both predictors are on what they were not fitted on."""
    if not of.predictors:
        return ""
    accuracy, latency = of.predictors["accuracy"], of.predictors["latency"]
    held = f"{accuracy['n_held_out']} of {accuracy['n_fitted'] + accuracy['n_held_out']} archs"
    error = f"RMSE {100 * accuracy['rmse']:.2f}, MAE {100 * accuracy['mae']:.2f} points"
    rows = [("accuracy", held, error, _kendall(accuracy))]
    error = f"mean error {100 * latency['mape']:.1f} %, worst {100 * latency['worst']:.1f} %"
    rows.append(("latency", f"{latency['n']} subnets", error, _kendall(latency)))
    return table(("predictor", "held out", "error", "Kendall"), rows)


def _kendall(report: dict[str, Any]) -> str:
    """There is none where all predictions are the same."""
    return "none" if report["kendall"] is None else f"{report['kendall']:.3f}"


def trainings(of: Results) -> str:
    """What each training took, a row for each phase."""
    rows = []
    for (name, phase), row in {
        (row["training"], row["phase"]): row for row in of.trainings
    }.items():
        seeds = len({each["seed"] for each in of.trainings if each["training"] == name})
        begins = (name, seeds, row["start"] or "new weights", phase)
        recipe = (f"{row[column]:g}" for column in ("subnets_per_step", "base_lr"))
        rows.append((*begins, *recipe, *of.told(name, phase=phase)))
    heads = ("training", "seeds", "begins with", "phase", "subnets a step", "lr for 64 images")
    return table((*heads, *_SPENT), rows) if rows else ""


def origin(of: Results) -> str:
    """Where and with what all of it was measured."""
    if not of.machine:
        return ""
    packages = ("python", "tensorflow", "keras", "ai-edge-litert", "numpy", "ofa_tf")
    versions = ", ".join(f"{name} {of.machine[name]}" for name in packages if of.machine.get(name))
    flags = of.machine["cpu_flags"].replace(" ", ", ")
    return f"{of.machine['cores']} cores of {of.machine['cpu']} ({flags}); {versions}.\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


# -- pictures -------------------------------------------------------------------------------------


def draw_cost(figure: Figure, of: Results) -> None:
    """Each way's accuracy against what 1, 4, 10 and 40 budgets take by it in all."""
    seconds, percents = of.alone()
    parts = {"five archs, mean": slice(5), "the smallest": slice(1), "the largest": slice(4, 5)}
    for place, (title, part) in enumerate(parts.items(), 1):
        axes = _axes(figure, title, "CPU minutes in all", "accuracy (%)", (1, 3, place))
        axes.set_xscale("log")
        for name, label in {**SUPERNETS, "finetuned": f"{SUPERNETS[HOUR]}, fine-tuned"}.items():
            reached = of.of_archs(name)
            if reached.size:
                way = (HOUR, True) if name == "finetuned" else (name, False)
                minutes = [of.total(count, *way) / 60 for count in BUDGETS]
                axes.plot(minutes, [reached[part].mean()] * len(minutes), "o-", ms=4, label=label)
        for count, style in zip(BUDGETS, ("-", "--", "-.", ":"), strict=True):
            means, label = percents[:, part].mean(axis=1), f"a training each, for {count}"
            axes.plot(count * seconds / 60, means, f"s{style}", color="0.5", ms=3, label=label)
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)


def draw_searched(figure: Figure, of: Results) -> None:
    where = "measured latency of the .tflite file, one thread of the host (ms)"
    axes = _axes(figure, "Subnets of one supernet, CIFAR-10 test images", where, "accuracy (%)")
    for group, color, label in (
        ("random", "0.65", "random, of the same predicted latency"),
        ("uniform", "#2a6f97", "uniform: one expand ratio, kernel and resolution"),
        ("searched", "#d1495b", "searched"),
    ):
        points = sorted((row["measured_ms"], 100 * row["accuracy"]) for row in of.of_group(group))
        times, percents = np.reshape(points, (-1, 2)).T
        axes.scatter(times, percents, s=26, color=color, label=label, zorder=2)
        if group != "random":  # what is best up to each latency
            best = np.maximum.accumulate(percents)
            axes.plot(times, best, drawstyle="steps-post", color=color, lw=1.3, alpha=0.7)
    axes.legend(loc="lower right", frameon=False)


def _axes(
    figure: Figure, title: str, x_label: str, y_label: str, place: Sequence[int] = (1, 1, 1)
) -> Axes:
    axes = figure.add_subplot(*place)
    axes.set_title(title, loc="left", weight="bold")
    axes.set(xlabel=x_label, ylabel=y_label, axisbelow=True)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


# -- the page -------------------------------------------------------------------------------------

TABLES = {
    "schedules": schedules,
    "left out": left_out,
    "recalibration": recalibration,
    "alone": alone,
    "cost": cost,
    "cost parts": cost_parts,
    "searched": searched,
    "predictors": predictors,
    "trainings": trainings,
    "origin": origin,
}
PICTURES = {  # below the table of that name: how it is drawn, and what it shows
    "cost": (draw_cost, "Accuracy against the CPU time of all budgets"),
    "searched": (draw_searched, "Accuracy against measured latency"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=pathlib.Path, default=DOCS / "results")
    parser.add_argument("--page", type=pathlib.Path, default=DOCS / "RESULTS.md")
    parser.add_argument("--pictures", type=pathlib.Path, default=DOCS / "pictures")
    args = parser.parse_args()
    try:
        results = Results(args.results)
        write_bytes(args.page, rewritten(args.page.read_text(), results).encode())
        draw_all(results, args.pictures)
    except (UsageError, FailureError) as error:
        print(f"study_results.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def rewritten(page: str, of: Results) -> str:
    """The page with its tables made anew. Raises UsageError unless it has each once."""
    names = [match["name"] for match in _SECTION.finditer(page)]
    if sorted(names) != sorted(TABLES):
        raise UsageError(
            f"The page has the sections {', '.join(names) or 'none'}; expected each of "
            f"{', '.join(TABLES)} once."
        )
    return _SECTION.sub(lambda match: f"{match[1]}\n{section(match['name'], of)}\n{match[3]}", page)


def section(name: str, of: Results) -> str:
    """A table with its picture, or a line that says that it is not measured."""
    text = TABLES[name](of)
    if text and name in PICTURES:
        text += f"\n![{PICTURES[name][1]}](pictures/study_{name}.png)\n"
    return text or "_Not measured yet._\n"


def draw_all(of: Results, folder: pathlib.Path) -> None:
    """Writes the PNGs of what there is. Raises FailureError where one cannot be written."""
    for name, (draw, _) in PICTURES.items():
        if TABLES[name](of):
            figure = Figure(figsize=(9, 4.8), dpi=100, layout="constrained")
            draw(figure, of)
            with atomic_path(folder / f"study_{name}.png") as path:
                figure.savefig(path, format="png")


if __name__ == "__main__":
    sys.exit(main())
