"""A chart as data that a template draws as SVG: places in pixels, ticks with their texts.

Colors and fonts are the style sheet's, so that a chart follows the page's light or dark scheme;
points tell what they are when pointed at.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

WIDTH, HEIGHT = 460, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 38, 44  # margins
_CHAR, _LINE = 6.6, 13  # about the size of a character of a label


@dataclasses.dataclass(frozen=True)
class Axis:
    """The values from `low` to `high`, on a logarithmic scale where `log` is set."""

    label: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, label: str, values: Iterable[float], log_from: float = math.inf) -> Axis:
        """An axis that holds all values, with a margin; logarithmic where their ratio is large."""
        known = list(values)
        low, high = min(known), max(known)
        if low > 0 and high / low >= log_from:
            margin = (high / low) ** 0.06
            return cls(label, low / margin, high * margin, log=True)
        margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        return cls(label, low - margin, high + margin)

    def place(self, value: float) -> float:
        """0..1 for what is on the axis."""
        scale = math.log if self.log else float
        low = scale(self.low)
        return (scale(value) - low) / (scale(self.high) - low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Round values on the axis, with their texts."""
        if self.log:
            locator = LogLocator(subs=(1, 2, 5), numticks=12)
        else:
            locator = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
        values = [float(v) for v in locator.tick_values(self.low, self.high)]
        values = [value for value in values if self.low <= value <= self.high]
        return [(value, f"{value:.6g}") for value in values]


@dataclasses.dataclass(frozen=True)
class Mark:
    """A point: what it says when it is pointed at, and what is written beside it."""

    x: float
    y: float
    title: str = ""
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of one look.

    Args:
        look: class of the style sheet, which gives it its color.
        marks: the points.
        shape: "dots" (many, small), "circles", "diamonds", "line" or "steps".
        name: in the legend; "" for none.
    """

    look: str
    marks: Sequence[Mark]
    shape: str
    name: str = ""

    @classmethod
    def of(cls, look: str, points: Iterable[Sequence[float]], shape: str, name: str = "") -> Series:
        """Of points that say nothing."""
        return cls(look, [Mark(float(x), float(y)) for x, y in points], shape, name)


@dataclasses.dataclass(frozen=True)
class Placed:
    """A mark in pixels. `label_x` and `label_y` are the end of its label's base line."""

    x: float
    y: float
    title: str
    label: str
    label_x: float = 0.0
    label_y: float = 0.0


@dataclasses.dataclass(frozen=True)
class Layer:
    """A series in pixels: a path, or marks to be drawn one by one."""

    look: str
    shape: str
    path: str
    marks: Sequence[Placed]


@dataclasses.dataclass(frozen=True)
class Chart:
    """Some series on two axes.

    Args:
        title: for who cannot see it: what it shows, in a sentence.
        x: the horizontal axis.
        y: the vertical one.
        series: those drawn first lie below the others.
        bounds: vertical lines: place on x, and a text at the top.
    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    bounds: Sequence[tuple[float, str]] = ()

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        return [(self._x(value), text) for value, text in self.x.ticks]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        return [(self._y(value), text) for value, text in self.y.ticks]

    @property
    def bound_lines(self) -> list[tuple[float, str, float]]:
        """Place, text and the text's place. One that would run into that before it is left out."""
        lines, free = [], 0.0
        for value, text in self.bounds:
            x, width = self._x(value), _CHAR * len(text)
            begin = round(min(x + 3, WIDTH - width), 1)
            lines.append((x, text if begin >= free else "", begin))
            free = begin + width + 1 if begin >= free else free
        return lines

    @property
    def legend(self) -> list[tuple[str, str, str]]:
        """Look, shape and name of each series that has a name."""
        return [(one.look, one.shape, one.name) for one in self.series if one.name and one.marks]

    @property
    def layers(self) -> list[Layer]:
        """All series; labels that there is no room for are left out."""
        taken: list[tuple[float, float, float]] = []
        return [self._layer(series, taken) for series in self.series if series.marks]

    def _layer(self, series: Series, taken: list[tuple[float, float, float]]) -> Layer:
        points = [(self._x(mark.x), self._y(mark.y)) for mark in series.marks]
        if series.shape in ("circles", "diamonds"):
            placed = [
                _placed(mark, point, taken)
                for point, mark in zip(points, series.marks, strict=True)
            ]
            return Layer(series.look, series.shape, "", placed)
        return Layer(series.look, series.shape, _path(points, series.shape), ())

    def _x(self, value: float) -> float:
        return round(self.left + self.x.place(value) * (self.right - self.left), 1)

    def _y(self, value: float) -> float:
        return round(self.bottom - self.y.place(value) * (self.bottom - self.top), 1)


def _path(points: Sequence[tuple[float, float]], shape: str) -> str:
    """An SVG path: dots are lines of no length, which round caps make visible."""
    if shape == "dots":
        return "".join(f"M{x:g} {y:g}h0" for x, y in dict.fromkeys(points))
    (x, y), *rest = points
    # Between two points the left one is the best that fits.
    step = "H{0:g}V{1:g}" if shape == "steps" else "L{0:g} {1:g}"
    return f"M{x:g} {y:g}" + "".join(step.format(*point) for point in rest)


def _placed(
    mark: Mark, point: tuple[float, float], taken: list[tuple[float, float, float]]
) -> Placed:
    """A mark with its label left of and above its point, where there is room.

    A front rises to the right, so that there nothing is in the way but other labels: it goes up
    until it is clear of them. One that leaves the chart so is left out: `title` tells it, too.

    Args:
        mark: the mark.
        point: its place.
        taken: begin, end and base line of the labels that are there; one more after it.
    """
    width = _CHAR * len(mark.label)
    end, base = max(point[0] - 7, _LEFT + width + 2), max(point[1] - 7, _TOP + _LINE)
    while any(
        abs(base - other_base) < _LINE and end - width < other_end and other_start < end
        for other_start, other_end, other_base in taken
    ):
        base -= 2
    if not mark.label or base < _TOP - 6:
        return Placed(*point, mark.title, "")
    taken.append((end - width, end, base))
    return Placed(*point, mark.title, mark.label, round(end, 1), round(base, 1))


def thinned(points: np.ndarray, most: int) -> np.ndarray:
    """Up to so many of the points: float (n, 2) -> (min(n, most), 2)."""
    return points[:: max(1, math.ceil(len(points) / most))]
