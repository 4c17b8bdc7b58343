"""The front as a table and as a picture."""

from __future__ import annotations

import numpy as np
import pytest

from ofa_tf.report import front_table, plot_front

ARCH = {"ks": [3], "e": [3], "d": [2, 3], "r": 28}


def front(count: int) -> list[dict]:
    return [
        {"arch": ARCH, "predicted_accuracy": 0.5 + i / 1000, "macs_m": 1.25 * (i + 1)}
        for i in range(count)
    ]


def test_table_of_a_short_front():
    head, rule, first, second = front_table(front(2), "macs_m").splitlines()
    assert head.split() == ["MACs", "(M)", "accuracy", "(%)", "input", "(px)", "depths"]
    assert rule == "-" * len(head)
    assert first.split() == ["1.25", "50.00", "28", "2", "3"]
    assert second.split() == ["2.5", "50.10", "28", "2", "3"]


def test_table_of_a_long_front_keeps_both_ends():
    lines = front_table(front(333), "macs_m").splitlines()[2:]
    assert len(lines) == 20
    assert lines[0].split()[0] == "1.25"
    assert float(lines[-1].split()[0]) == pytest.approx(333 * 1.25, rel=1e-3)
    costs = [float(line.split()[0]) for line in lines]
    assert np.diff(costs).min() > 0.8 * np.diff(costs).max()


@pytest.mark.parametrize("measure", ["latency_ms", "macs_m", "params_m", "file_kb", "memory_kb"])
def test_picture(tmp_path, measure):
    path = tmp_path / "pictures" / "front.png"
    plot_front(path, np.array([1.0, 2.0]), np.array([0.5, 0.6]), measure=measure)
    assert path.read_bytes()[1:4] == b"PNG"
    assert [p.name for p in path.parent.iterdir()] == ["front.png"]
