"""Candidates evaluated once, for good, and ranked by that."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ofa_tf.errors import UsageError
from ofa_tf.search.accuracy_rows import evaluate_archs, ranked
from ofa_tf.search.evolution import Candidate
from ofa_tf.spaces import get_space

TINY = get_space("ofa_mbv3_tiny")
ARCHS = TINY.decode(TINY.sample_codes(5, np.random.default_rng(0)))
TRUTH = dict(zip(ARCHS, (0.3, 0.9, 0.5, 0.5, 0.1), strict=True))


class Evaluate:
    def __init__(self):
        self.asked = []

    def __call__(self, arch):
        self.asked.append(arch)
        return TRUTH[arch]


def evaluated(path, archs, evaluate, fingerprint="weights 1", num_images=100, **options):
    return evaluate_archs(
        archs, evaluate, path, fingerprint=fingerprint, num_images=num_images, **options
    )


def test_each_arch_is_evaluated_once(tmp_path):
    path, evaluate, progress = tmp_path / "rows.jsonl", Evaluate(), []
    found = evaluated(
        path, [*ARCHS[:3], *ARCHS[:2]], evaluate, progress=lambda *p: progress.append(p)
    )
    assert found == {arch: TRUTH[arch] for arch in ARCHS[:3]}
    assert evaluate.asked == ARCHS[:3]
    assert progress == [(0, 3), (1, 3), (2, 3), (3, 3)]
    again = Evaluate()
    assert evaluated(path, ARCHS, again) == TRUTH
    assert again.asked == ARCHS[3:]
    assert len(path.read_text().splitlines()) == 5


def test_an_interruption_loses_nothing(tmp_path):
    path = tmp_path / "rows.jsonl"

    def interrupted(arch):
        if arch == ARCHS[2]:
            raise KeyboardInterrupt
        return TRUTH[arch]

    with pytest.raises(KeyboardInterrupt):
        evaluated(path, ARCHS, interrupted)
    again = Evaluate()
    assert evaluated(path, ARCHS, again) == TRUTH
    assert again.asked == ARCHS[2:]


def test_rows_of_other_images_do_not_count(tmp_path):
    path, evaluate = tmp_path / "rows.jsonl", Evaluate()
    evaluated(path, ARCHS[:1], lambda arch: 0.7, num_images=50)
    assert evaluated(path, ARCHS[:1], evaluate) == {ARCHS[0]: 0.3}
    assert evaluated(path, ARCHS[:1], evaluate, num_images=50) == {ARCHS[0]: 0.7}


def test_rows_of_another_supernet(tmp_path):
    path = tmp_path / "rows.jsonl"
    evaluated(path, ARCHS[:1], Evaluate())
    with pytest.raises(UsageError, match=r"line 1: this row belongs to .*weights 1.*weights 2"):
        evaluated(path, ARCHS[:1], Evaluate(), fingerprint="weights 2")


@pytest.mark.parametrize(
    "change",
    [{"accuracy": "high"}, {"accuracy": None}, {"arch": {"d": [2]}}, {"num_images": "100"}],
)
def test_a_row_that_is_no_evaluated_arch_is_named(tmp_path, change):
    path = tmp_path / "rows.jsonl"
    evaluated(path, ARCHS[:2], Evaluate())
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | change)}\n")
    with pytest.raises(UsageError, match=r"rows\.jsonl, line 2: this is no evaluated arch; remove"):
        evaluated(path, ARCHS[:1], Evaluate())


def test_ranked_by_evaluation_then_by_prediction():
    predicted = (0.99, 0.5, 0.6, 0.8, 0.7)
    candidates = [Candidate(a, p, {}) for a, p in zip(ARCHS, predicted, strict=True)]
    order = [ARCHS.index(candidate.arch) for candidate in ranked(candidates, TRUTH)]
    assert order == [1, 3, 2, 0, 4]


def test_rows_are_plain(tmp_path):
    path = tmp_path / "rows.jsonl"
    evaluated(path, ARCHS[:1], Evaluate())
    (row,) = map(json.loads, path.read_text().splitlines())
    assert row == {
        "fingerprint": "weights 1",
        "num_images": 100,
        "arch": ARCHS[0].to_json(),
        "accuracy": 0.3,
    }
