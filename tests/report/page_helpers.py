"""Jobs on disk with a known content, made without training anything, and a strict HTML reader."""

from __future__ import annotations

import hashlib
import html.parser
import pathlib
import re
from typing import Any

from bench_helpers import make_measurement

from mobile_bench.results import Device, OpTime, Settings, Tool, Verdict
from ofa_tf.files import append_json, write_json
from ofa_tf.report.page import Predicted, read_report, render
from ofa_tf.spaces import get_space
from ofa_tf.workdir import Workdir

SPACE = get_space("ofa_mbv3_tiny")
TABLE = "latency_host_float32_1t.json"
PHONE = Device("R58", "R58", "OnePlus", "LE2113", "SM8350", "Android 13", "b/1", (), (None,))
PHASES = ("largest", "kernel")
ARCHS = {"small": SPACE.min(), "large": SPACE.max()}
ACCURACIES = {
    "before": {"r24_d2_e4_k3": 0.31, "r32_d2_e4_k7": 0.72},
    "after": {"r24_d2_e4_k3": 0.623, "r32_d2_e4_k7": 0.734},
}
PREDICTED = {
    TABLE: Predicted(
        cloud=[(0.02, 0.5), (0.05, 0.6), (0.3, 0.7)],
        front=[(0.02, 0.55), (0.1, 0.7), (0.4, 0.8)],
        subnet_ms={"small": 0.0213, "large": 0.3171},
    )
}


def trained_job(folder: pathlib.Path, **changes: Any) -> Workdir:
    """A job as ofa-train leaves it, after both of its phases. `changes` are of config.json."""
    workdir = Workdir(folder)
    phase = {"epochs": 2.0, "base_lr": 0.05, "warmup_epochs": 0.0, "subnets_per_step": 1}
    config = {
        "space": SPACE.name,
        "data": {"dataset": "ofa_doodles", "data_dir": None, "num_validation": 500, "seed": 3},
        "class_names": ["cat", "dog"],
        "eval_crop": 0.875,
        "calibration_images": 64,
        "init": None,
        "recipe": {
            "phases": [{"name": name, **phase} for name in PHASES],
            "batch_size": 16,
            "resolutions": [24, 32],
            "clip_norm": 0.0,
            "augmentation": {"flip": True, "brightness": 0.0},
        },
    }
    write_json(workdir.config_file, config | changes)
    return workdir


def write_metrics(workdir: Workdir) -> None:
    """Both phases, the second with accuracies before and after it."""
    epoch = {"epoch": 2.0, "loss": 1.25, "images_per_second": 400.0, "skipped_steps": 0}
    append_json(workdir.metrics, {"step": 20, "phase": "largest", **epoch})
    after = {"r32_d2_e4_k7": 0.7}
    append_json(
        workdir.metrics, {"step": 20, "phase": "largest", "when": "after", "accuracy": after}
    )
    for when, step in (("before", 20), ("after", 40)):
        row = {"step": step, "phase": "kernel", "when": when, "accuracy": ACCURACIES[when]}
        append_json(workdir.metrics, row)


def write_predictors(workdir: Workdir) -> None:
    """The accuracy predictor's report and a latency table of the host."""
    report = {
        "rmse": 0.0123,
        "mae": 0.01,
        "kendall": 0.81,
        "spearman": 0.9,
        "n_fitted": 40,
        "n_held_out": 3,
        "accuracies": [0.5, 0.6, 0.7],
        "predictions": [0.51, 0.6, 0.68],
        "spreads": None,
        "warning": None,
        "made_from": {"num_archs": 43, "arch_images": 600},
    }
    write_json(workdir.accuracy_report, report)
    subnets = [
        {"arch": {}, "measured_ms": ms, "predicted_ms": 1.1 * ms} for ms in (0.02, 0.05, 0.4)
    ]
    errors = {"n": 3, "mape": 0.1, "bias": 0.1, "worst": 0.1, "kendall": 1.0, "subnets": subnets}
    setup = {
        "device": {"target": "host", "serial": "", "model": "", "cpu": "cpu", "os": "Linux"},
        "tool": {"name": "ai-edge-litert", "version": "2.3.0"},
        "settings": {
            "threads": 1,
            "cpus": "",
            "delegate": "xnnpack",
            "num_runs": 10,
            "min_secs": 0.02,
        },
        "date": "2025-01-02T03:04:05+00:00",
        "versions": {"tensorflow": "2.21.0"},
    }
    table = {
        "precision": "float32",
        "form": "cpu",
        "resolutions": [24, 32],
        "block_ms": {"a": 0.1, "b": 0.2},
        "setup": setup,
        "report": {
            **errors,
            "fitted": errors,
            "interpolation": {**errors, "n": 0},
            "round_spread": 0.05,
            "doubtful": {},
        },
    }
    write_json(workdir.path / TABLE, table)


def write_search(workdir: Workdir) -> None:
    """A subnet for each of ARCHS, and a front."""
    rows = [
        {
            "name": name,
            "limits": {"latency_ms": 0.5},
            "arch": arch.to_dict(),
            "predicted_accuracy": 0.6 + index / 10,
            "measures": {"latency_ms": PREDICTED[TABLE].subnet_ms[name]},
            "precision": "float32",
        }
        for index, (name, arch) in enumerate(ARCHS.items())
    ]
    settings = {"num_archs": 43, "arch_images": 600, "fingerprint": "feed-64-0.875"}
    write_json(workdir.search_result, {"settings": settings, "subnets": rows})
    front = [{"macs_m": float(m), "predicted_accuracy": 0.5 + m / 10} for m in (1, 2)]
    write_json(workdir.front("macs_m"), {"settings": {}, "subnets": front})


def write_subnet(workdir: Workdir, name: str, **changes: Any) -> None:
    """Exports a subnet: a float32 and an int8 file. `changes` are of its card."""
    folder = workdir.subnets / name
    folder.mkdir(parents=True)
    files = {}
    for precision, accuracy in (("float32", 0.7123), ("int8", 0.7012)):
        path = folder / f"model_{precision}.tflite"
        path.write_bytes(f"{name} {precision}".encode())
        files[f"tflite_{precision}"] = {
            "file": path.name,
            "bytes": 12345,
            "accuracy": accuracy,
            "num_images": 300,
            "ops": 40,
            "ops_outside": {} if precision == "float32" else {"HARD_SWISH": 3},
            "delegate_partitions": 1,
        }
    card = {
        "name": name,
        "space": SPACE.name,
        "arch": ARCHS[name].to_dict() if name in ARCHS else None,
        "fingerprint": "feed-64-0.875-200-0-None-256",
        "form": "cpu",
        "date": "2025-01-03T00:00:00+00:00",
        "versions": {"ofa_tf": "0.1.0"},
        "files": files,
    }
    write_json(folder / "card.json", card | changes)


def write_measurement(workdir: Workdir, subnet: str, precision: str, us: float, **changes) -> None:
    """Three rounds of a file on the host, or as `changes` say."""
    sha256 = hashlib.sha256(f"{subnet} {precision}".encode()).hexdigest()
    for index in range(3):
        fields = {"sha256": sha256, "typical_us": us + index, "round": index, **changes}
        append_json(workdir.measurements, make_measurement(**fields).to_dict())


def full_job(folder: pathlib.Path) -> Workdir:
    """A job with all parts, measured on the host and, hot, on a phone, with an op profile."""
    workdir = trained_job(folder)
    write_metrics(workdir)
    write_predictors(workdir)
    write_search(workdir)
    for name in ARCHS:
        write_subnet(workdir, name)
        write_measurement(workdir, name, "float32", 250.0)
        write_measurement(workdir, name, "int8", 150.0)
    hot = Verdict(False, ("hot: the battery was at 39.0 C, above 37 C",))
    on_phone = {"device": PHONE, "tool": Tool("benchmark_model", "2025", "ab")}
    settings = Settings(cpus="big", threads=2)
    write_measurement(
        workdir, "small", "float32", 987.0, settings=settings, verdict=hot, **on_phone
    )
    ops = [OpTime("conv:0", "Convolution", 30.0, 1, 60.0), OpTime("add:1", "Add", 10.0, 2, 40.0)]
    profiled = Settings(op_profile=True)
    write_measurement(
        workdir, "small", "float32", 60.0, settings=profiled, profile=tuple(ops), **on_phone
    )
    return workdir


def page_of(workdir: Workdir, predicted: dict[str, Predicted] | None = None) -> str:
    return render(read_report(workdir, SPACE, predicted or {}), SPACE)


_VOID = {"meta", "br", "link", "img", "input", "hr"}


class Element:
    """An element with its attributes, elements and texts in order."""

    def __init__(self, tag: str, attributes: dict[str, str | None]):
        self.tag, self.attributes = tag, attributes
        self.children: list[Element | str] = []

    def __getitem__(self, name: str) -> str | None:
        return self.attributes.get(name)

    @property
    def text(self) -> str:
        """All of its texts, with single spaces."""
        parts = (c if isinstance(c, str) else c.text for c in self.children)
        return re.sub(r"\s+", " ", " ".join(parts)).strip()

    def all(self, tag: str = "") -> list[Element]:
        """All elements within it, of a tag if given."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                found += [child] * (tag in ("", child.tag)) + child.all(tag)
        return found

    def by_id(self, identity: str) -> Element:
        (found,) = [element for element in self.all() if element["id"] == identity]
        return found

    def rows(self) -> dict[str, list[str]]:
        """The cells of its table rows, by the text of their first cell."""
        rows = (
            [cell.text for cell in row.children if isinstance(cell, Element)]
            for row in self.all("tr")
        )
        return {cells[0]: cells[1:] for cells in rows}


class _Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.stack = [Element("", {})]

    def handle_starttag(self, tag, attrs):
        self.stack[-1].children.append(Element(tag, dict(attrs)))
        if tag not in _VOID:
            self.stack.append(self.stack[-1].children[-1])

    def handle_startendtag(self, tag, attrs):
        self.stack[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack[-1].tag == tag, f"</{tag}> ends <{self.stack[-1].tag}>"
        self.stack.pop()

    def handle_data(self, data):
        self.stack[-1].children.append(data)


def parse(page: str) -> Element:
    """The page as a tree. Fails where an element is not ended in its place."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert len(reader.stack) == 1, f"<{reader.stack[-1].tag}> is not ended"
    return reader.stack[0]
