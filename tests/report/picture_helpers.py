"""What is in a picture: the pixels of its PNG, the parts of its SVG."""

from __future__ import annotations

import pathlib
import re
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ofa_tf.report.plots import Picture


def pixels(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def svg(picture: Picture) -> ElementTree.Element:
    return ElementTree.fromstring(picture.svg("figure-1"))


def texts(root: ElementTree.Element) -> list[str]:
    return [text.text for text in root.iter("text")]


def marks(root: ElementTree.Element) -> dict[str, tuple[float, float]]:
    """Where each mark that has a tip is, by this."""
    return {
        use.findtext("title"): (float(use.get("x")), float(use.get("y")))
        for use in root.iter("use")
        if use.find("title") is not None
    }


def ticks(root: ElementTree.Element) -> tuple[dict[float, float], dict[float, float]]:
    """The places of the numbers on the axes: x of those in a row, y of those in a column."""
    found = [
        (float(text.text.replace("\N{MINUS SIGN}", "-")), text)
        for text in root.iter("text")
        if re.fullmatch(r"[-\N{MINUS SIGN}\d.]+", text.text)
    ]
    across = {v: float(t.get("x")) for v, t in found if "text-anchor:middle" in t.get("style")}
    up = {v: float(t.get("y")) for v, t in found if "text-anchor:end" in t.get("style")}
    return across, up
