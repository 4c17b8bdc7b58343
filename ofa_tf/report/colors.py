"""The colors of the page and of the pictures on it, each in a light and a dark version."""

from __future__ import annotations

# The pictures are drawn in the light colors; in the page each is a CSS variable of this name.
COLORS = {
    "page": ("#fcfcfa", "#15191c"),
    "panel": ("#f3f4f1", "#1d2226"),
    "text": ("#1d2327", "#e4e7e9"),
    "muted": ("#566069", "#a3adb5"),
    "rule": ("#d9dcd7", "#343b41"),
    "accent": ("#0b5a9d", "#74b7f0"),
    "second": ("#ad4310", "#f2a071"),
    "good": ("#1b7034", "#72c288"),
    "bad": ("#b3261e", "#ff958c"),
    "faint": ("#8b95a0", "#76818b"),
    "cloud": ("#c3cad1", "#4c565f"),
    "front": ("#3f4a54", "#c4ccd3"),
    "grid": ("#e6e8e4", "#2a3035"),
    "k1": ("#dfe3e6", "#454d54"),
    "k3": ("#a9d5ee", "#23577a"),
    "k5": ("#f6d27f", "#6f5410"),
    "k7": ("#efa79f", "#7d352f"),
}
LIGHT = {name: light for name, (light, _) in COLORS.items()}
DARK = {name: dark for name, (_, dark) in COLORS.items()}
