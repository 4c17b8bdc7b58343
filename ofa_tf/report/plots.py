"""A picture: drawn once by matplotlib, written as the SVG of a page and as a PNG.

Figures are made and saved directly, without pyplot, so that neither a display nor the caller's
matplotlib settings are touched.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from ofa_tf.files import atomic_path
from ofa_tf.names import printable
from ofa_tf.report.colors import LIGHT

_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ofa_tf",  # equal data give equal bytes
    "text.parse_math": False,  # a name may have a dollar sign
    "font.size": 10,  # 9 CSS pixels on a phone, where a picture of 5 inches is 328 pixels wide
    "axes.titlesize": 11,
    "text.color": LIGHT["text"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.edgecolor": LIGHT["rule"],
    "axes.linewidth": 1,
    "grid.linewidth": 1,
    "xtick.color": LIGHT["rule"],
    "ytick.color": LIGHT["rule"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "axes.facecolor": "none",
    "legend.frameon": False,
    "legend.labelcolor": LIGHT["muted"],
}
# For functions that draw; a user's settings are back when they return.
styled = matplotlib.rc_context(_STYLE)


@dataclasses.dataclass
class Picture:
    """A figure, and in words what matplotlib cannot draw.

    Args:
        figure: whose colors are those of `LIGHT`.
        title: what it shows, in a sentence, for those who cannot see it.
        tips: what each mark of an artist says when it is pointed at, by the artist's gid.
    """

    figure: Figure
    title: str
    tips: dict[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def explain(self, artist: Artist, texts: Sequence[str]) -> None:
        """Gives each mark of a line, or a patch, a text for who points at it."""
        identity = f"tips-{len(self.tips)}"
        artist.set_gid(identity)
        self.tips[identity] = texts

    def settle(self) -> None:
        """Fixes where everything is, once all is drawn; SVG and PNG then agree."""
        for text in self.figure.findobj(Text):  # names of others, without what cannot be seen
            text.set_text(printable(text.get_text()))
        if self.figure.get_layout_engine():
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine("none")  # which keeps what it has done

    def write_png(self, path: str | os.PathLike) -> None:
        """Writes a PNG, whole or not at all. Raises FailureError if it cannot be written."""
        save_figure(self.figure, path)

    @styled
    def svg(self, identity: str) -> str:
        """The picture as an `<svg>` for a page, whose style sheet gives colors and fonts.

        Args:
            identity: its id; all ids within it begin with this.
        """
        for artist in self.figure.findobj():
            artist.set_clip_on(False)  # all lies within its axes
        buffer = io.BytesIO()
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(self.figure).print_figure(
            buffer, format="svg", facecolor="none", edgecolor="none", metadata=none
        )
        root = ElementTree.fromstring(buffer.getvalue())
        self._add_tips(root)
        uses = (use.get(_HREF) for use in root.iter(f"{_SVG}use"))
        names = {ref: f"{identity}-{n}" for n, ref in enumerate(dict.fromkeys(uses), start=1)}
        page = Element(
            "svg",
            {
                "class": "picture",
                "id": identity,
                "viewBox": root.get("viewBox", ""),
                "width": f"{self.figure.get_figwidth() * 96:g}",
                "role": "img",
                "aria-labelledby": f"{identity}-title",
            },
        )
        title = ElementTree.SubElement(page, "title", {"id": f"{identity}-title"})
        title.text = printable(self.title)
        page.extend(part for child in root for part in _tidied(child, names))
        return ElementTree.tostring(page, encoding="unicode").replace(" />", "/>")

    def _add_tips(self, root: Element) -> None:
        groups = {group.get("id", ""): group for group in root.iter(f"{_SVG}g")}
        for gid, texts in self.tips.items():
            group = groups[gid]
            marks = list(group.iter(f"{_SVG}use")) or list(group.iter(f"{_SVG}path"))
            for mark, text in zip(marks, texts, strict=True):
                ElementTree.SubElement(mark, f"{_SVG}title").text = printable(text)


def add_axes(figure: Figure, title: str, x_label: str, y_label: str) -> Axes:
    """The axes of a picture with points: titled at the left, on a pale grid, open at two sides."""
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", weight="bold")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color=LIGHT["grid"])
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


@styled
def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a PNG, whole or not at all. Raises FailureError if it cannot be written."""
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=figure.dpi)


def place_labels(picture: Picture, labels: Sequence[Annotation], *, climb: bool) -> None:
    """Settles a picture, and keeps labels on their axes, clear of each other and of marks.

    Args:
        picture: theirs.
        labels: offset in points; the first have their place first, those without room are hidden.
        climb: whether a label may go up to where there is room, to the top of the axes.
    """
    for label in labels:
        label.set_in_layout(False)
    picture.settle()
    taken = _mark_boxes(picture) if climb else []
    points = 72 / picture.figure.dpi  # in a pixel
    for label in labels:
        box, frame = label.get_window_extent(), label.axes.bbox
        right = max(0, frame.x0 - box.x0) or min(0, frame.x1 - box.x1)
        moved, up = box.translated(right, 0), 0
        while climb and any(map(moved.overlaps, taken)):
            up += 1
            moved = box.translated(right, up)
        if any(map(moved.overlaps, taken)) or (climb and moved.y1 > frame.y1):
            label.set_visible(False)
            continue
        taken.append(moved)
        x, y = label.xyann
        label.xyann = x + right * points, y + up * points


def _mark_boxes(picture: Picture) -> list[Bbox]:
    """Where the marks with tips are, in pixels."""
    lines = [line for line in picture.figure.findobj(Line2D) if line.get_gid() in picture.tips]
    boxes = []
    for line in lines:
        half = line.get_markersize() / 2 * picture.figure.dpi / 72
        for x, y in line.get_transform().transform(line.get_xydata()):
            boxes.append(Bbox([[x - half, y - half], [x + half, y + half]]))
    return boxes


_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_VARIABLES = {color: f"var(--{name})" for name, color in LIGHT.items()}
# What the style sheet of the page says for all pictures.
_DEFAULTS = (
    r"font-family: [^;]*",
    "font-size: 10px",
    "fill: none",
    r"fill: var\(--muted\)",
    r"stroke-linejoin: \w+",
    "stroke-linecap: square",
    "stroke-dashoffset: 0",
    "text-anchor: start",
)
_DROPPED = re.compile(rf"({'|'.join(_DEFAULTS)})(; |$)")


def _tidied(element: Element, names: dict[str, str]) -> Iterator[Element]:
    """What a page needs of an element: without groups and ids that nothing refers to.

    Colors become CSS variables, numbers have one decimal.
    """
    tag = element.tag.removeprefix(_SVG)
    if tag in ("metadata", "style") or (tag == "text" and not element.text):
        return
    style = _of_page(_common_style(element))
    if tag == "path" and element.get("style") == "fill: none":
        return  # the ground of a figure
    children = [part for child in element for part in _tidied(child, names)]
    if (tag == "g" and not style) or (tag == "defs" and not children):
        yield from children
        return
    kept = Element(tag)
    kept.text = element.text if tag in ("text", "title", "tspan") else None
    for name in ("d", "x", "y", "transform"):
        value = _rounded(element.get(name, ""))
        if value and not value.startswith("rotate(-0 "):
            kept.set(name, value)
    if tag == "path" and f"#{element.get('id')}" in names:
        kept.set("id", names[f"#{element.get('id')}"])
    if tag == "use":
        kept.set("href", f"#{names[element.get(_HREF, '')]}")
    if style:
        kept.set("style", style)
    kept.extend(children)
    if tag != "g" or children:
        yield kept


def _common_style(element: Element) -> str:
    """An element's style. One that all marks of a group have goes to the group."""
    uses = element.findall(f"{_SVG}use")
    styles = {use.get("style", "") for use in uses}
    if len(uses) > 1 and len(styles) == 1:
        for use in uses:
            use.attrib.pop("style", None)
        return styles.pop()
    return element.get("style", "")


def _of_page(style: str) -> str:
    """A style with the page's colors; a color that has no name there is a KeyError."""
    colored = re.sub(r"#[0-9a-f]{6}", lambda found: _VARIABLES[found[0]], style)
    return _DROPPED.sub("", colored).replace(": ", ":").replace("; ", ";").rstrip(";")


def _rounded(text: str) -> str:
    """Coordinates with one decimal, on one line."""
    short = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), text)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", short.strip()) if "(" not in short else short
