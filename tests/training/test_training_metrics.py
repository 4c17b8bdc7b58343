"""What a run tells: metrics.jsonl that goes on where the checkpoint is, and TensorBoard's files."""

from __future__ import annotations

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, TensorEvent
from tensorboard.util import tensor_util

from ofa_tf.errors import FailureError
from ofa_tf.training.metrics import MetricsLog


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each scalar in TensorBoard's files, read by TensorBoard."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()

    def point(event: TensorEvent) -> tuple[int, float]:
        return event.step, float(tensor_util.make_ndarray(event.tensor_proto))

    return {
        tag: [point(event) for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]
    }


def test_rows_are_lines_of_json_and_scalars(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", 0)
    log.write(3, phase="largest", loss=1.5, gradient_norm=None, skipped_steps=0)
    accuracies = {"small": 0.25, "large": 0.5}
    log.write(3, of={"num_images": 9}, phase="largest", when="after", accuracy=accuracies)
    log.write(6, phase="kernel", loss=1.25)
    assert rows(tmp_path / "metrics.jsonl") == [
        {"step": 3, "phase": "largest", "loss": 1.5, "gradient_norm": None, "skipped_steps": 0},
        {
            "step": 3,
            "phase": "largest",
            "when": "after",
            "accuracy": {"small": 0.25, "large": 0.5},
            "num_images": 9,
        },
        {"step": 6, "phase": "kernel", "loss": 1.25},
    ]
    assert scalars(tmp_path / "tensorboard") == {
        "loss": [(3, 1.5), (6, 1.25)],
        "skipped_steps": [(3, 0.0)],
        "accuracy/small": [(3, 0.25)],
        "accuracy/large": [(3, 0.5)],
    }


OLD = [
    {"step": 0, "when": "before"},
    {"step": 4, "loss": 1.0},
    {"step": 4, "when": "after"},
    {"step": 4, "when": "before"},
    {"step": 8, "loss": 0.5},
]


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (0, []),  # the first evaluation comes again too
        (3, OLD[:1]),
        (4, OLD[:3]),  # the next phase begins again
        (5, OLD[:4]),
        (8, OLD),
    ],
)
@pytest.mark.parametrize("rest", ["", '{"step": 1, "lo', '{"step": 9}', "[1]\n", "null\n"])
def test_what_a_killed_run_left_is_dropped_where_it_comes_again(tmp_path, step, kept, rest):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in OLD) + rest)
    log = MetricsLog(path, tmp_path / "tensorboard", step)
    assert rows(path) == kept
    log.write(step + 1, loss=0.1)
    assert rows(path) == [*kept, {"step": step + 1, "loss": 0.1}]


def test_nothing_to_drop_leaves_the_file_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in OLD))
    before = path.stat()
    MetricsLog(path, tmp_path / "tensorboard", 8)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_folder_that_cannot_be_made_is_one_failure(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(FailureError, match="tensorboard could not be written: "):
        MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", 0)
