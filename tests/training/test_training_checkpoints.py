"""Checkpoints: what is loaded is exactly what was saved, or nothing is."""

from __future__ import annotations

import errno
import logging
import os
import re

import keras
import numpy as np
import pytest

from ofa_tf.errors import FailureError
from ofa_tf.training import checkpoints
from ofa_tf.training.checkpoints import CheckpointFolder, snapshot

SHAPES = ((3, 4), (5,), ())


def variables(seed: int, shapes=SHAPES) -> list[keras.Variable]:
    rng = np.random.default_rng(seed)
    return [keras.Variable(rng.normal(size=shape).astype(np.float32)) for shape in shapes]


def arrays(group) -> list[np.ndarray]:
    return [variable.numpy() for variable in group]


def assert_equal(group, expected) -> None:
    for a, b in zip(arrays(group), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint and the arrays in it."""
    path = tmp_path / "a.npz"
    weights, optimizer = variables(1), variables(2)
    checkpoints.save(path, {"step": 7, "name": "é"}, snapshot(weights=weights, optimizer=optimizer))
    return path, arrays(weights), arrays(optimizer)


def test_round_trip(saved):
    path, weights, optimizer = saved
    mine = {"weights": variables(3), "optimizer": variables(4)}
    assert checkpoints.load(path, **mine) == {"step": 7, "name": "é"}
    assert_equal(mine["weights"], weights)
    assert_equal(mine["optimizer"], optimizer)


def test_a_group_can_be_left_out(saved):
    path, weights, _ = saved
    mine = variables(3)
    checkpoints.load(path, weights=mine)
    assert_equal(mine, weights)


def test_truncated_anywhere_it_is_refused_and_nothing_changes(saved, tmp_path):
    path, *_ = saved
    content = path.read_bytes()
    cut = tmp_path / "cut.npz"
    mine = variables(3)
    before = arrays(mine)
    ends = {*range(0, len(content), 41), 1, len(content) - 22, len(content) - 1}
    for end in sorted(ends):
        cut.write_bytes(content[:end])
        with pytest.raises(FailureError, match=r"cut\.npz is missing or damaged"):
            checkpoints.load(cut, weights=mine)
        assert_equal(mine, before)


def test_a_changed_byte_never_gives_wrong_weights(saved, tmp_path):
    path, weights, _ = saved
    content = path.read_bytes()
    damaged = tmp_path / "damaged.npz"
    refused = 0
    for position in range(0, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 0x41
        damaged.write_bytes(changed)
        mine = variables(3)
        before = arrays(mine)
        try:
            checkpoints.load(damaged, weights=mine)
        except FailureError:
            assert_equal(mine, before)
            refused += 1
        else:
            assert_equal(mine, weights)
    assert refused > 50


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (((3, 5), (5,), ()), r"has the shape \(3, 5\), in the file \(3, 4\)"),
        ((*SHAPES, (2,)), "in the file None"),
        (SHAPES[:2], "more weights in weights"),
    ],
)
def test_another_network_is_refused(saved, shapes, expected):
    path, *_ = saved
    mine = variables(3, shapes)
    before = arrays(mine)
    with pytest.raises(FailureError, match=f"is of another network: .*{expected}"):
        checkpoints.load(path, weights=mine)
    assert_equal(mine, before)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FailureError, match=r"nothing\.npz is missing or damaged"):
        checkpoints.load(tmp_path / "nothing.npz", weights=variables(0))


def test_killed_before_the_rename_leaves_the_old_one(saved, monkeypatch):
    path, weights, _ = saved

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(path, {"step": 8}, snapshot(weights=variables(9)))
    monkeypatch.undo()
    mine = variables(3)
    assert checkpoints.load(path, weights=mine)["step"] == 7
    assert_equal(mine, weights)
    assert os.listdir(path.parent) == ["a.npz"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_is_one_failure_and_the_old_one_stays(saved, monkeypatch, call):
    path, weights, _ = saved

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(FailureError, match=r"a\.npz could not be written: No space left on device"):
        checkpoints.save(path, {"step": 8}, snapshot(weights=variables(9)))
    monkeypatch.undo()
    mine = variables(3)
    checkpoints.load(path, weights=mine)
    assert_equal(mine, weights)
    assert os.listdir(path.parent) == ["a.npz"]


def test_folder_keeps_the_newest_two(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.load_newest(weights=variables(0)) is None
    for step in (1, 2, 30, 4_000):
        folder.save(step, {"step": step}, snapshot(weights=variables(step)))
    assert sorted(os.listdir(folder.path)) == ["step_000000030.npz", "step_000004000.npz"]
    mine = variables(0)
    assert folder.load_newest(weights=mine)["step"] == 4_000
    assert_equal(mine, arrays(variables(4_000)))


@pytest.mark.parametrize("keep", [1, 3])
def test_folder_keeps_as_many_as_it_is_told(tmp_path, keep):
    folder = CheckpointFolder(tmp_path, keep)
    assert folder.newest() is None
    for step in range(1, 6):
        folder.save(step, {"step": step}, snapshot(weights=variables(step)))
        assert len(os.listdir(tmp_path)) == min(step, keep)
    assert sorted(os.listdir(tmp_path))[0] == f"step_{6 - keep:09d}.npz"
    assert folder.newest() == tmp_path / "step_000000005.npz"


def test_an_optional_group_may_be_missing_on_either_side(tmp_path):
    weights, average = variables(1), variables(2)
    with_average, without = tmp_path / "with.npz", tmp_path / "without.npz"
    checkpoints.save(with_average, {}, snapshot(weights=weights, average=average))
    checkpoints.save(without, {}, snapshot(weights=weights, average=[]))

    mine, kept = variables(3), variables(4)
    before = arrays(kept)
    checkpoints.load(without, optional=("average",), weights=mine, average=kept)
    assert_equal(mine, arrays(weights))
    assert_equal(kept, before)
    checkpoints.load(with_average, optional=("average",), weights=mine, average=[])
    checkpoints.load(with_average, optional=("average",), weights=mine, average=kept)
    assert_equal(kept, arrays(average))
    with pytest.raises(FailureError, match="of another network"):
        checkpoints.load(without, weights=mine, average=kept)
    with pytest.raises(FailureError, match="of another network"):
        checkpoints.load(with_average, optional=("average",), weights=mine, average=kept[:2])


def test_other_files_in_the_folder_are_let_be(tmp_path):
    folder = CheckpointFolder(tmp_path)
    (tmp_path / "phase_largest.npz").write_bytes(b"x")
    (tmp_path / ".step_000000009.npz.1.tmp").write_bytes(b"x")  # of a process that was killed
    for step in (1, 2, 3):
        folder.save(step, {"step": step}, snapshot(weights=variables(step)))
    assert (tmp_path / "phase_largest.npz").exists()
    assert folder.load_newest(weights=variables(0))["step"] == 3


def test_damaged_newest_is_reported_and_the_one_before_is_used(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ofa_tf"), "propagate", True)
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save(step, {"step": step}, snapshot(weights=variables(step)))
    newest = tmp_path / "step_000000002.npz"
    newest.write_bytes(newest.read_bytes()[:-40])
    mine = variables(0)
    assert folder.load_newest(weights=mine)["step"] == 1
    assert_equal(mine, arrays(variables(1)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"Checkpoint {newest} is missing or damaged" in caplog.text
    assert "Trying the one before it." in caplog.text


def test_all_damaged_is_one_error(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save(step, {"step": step}, snapshot(weights=variables(step)))
        (tmp_path / f"step_00000000{step}.npz").write_bytes(b"PK")
    with pytest.raises(FailureError) as error:
        folder.load_newest(weights=variables(0))
    message = str(error.value)
    assert message.startswith(f"No checkpoint in {tmp_path} can be read.")
    assert "step_000000002.npz" in message
    assert message.endswith("remove the folder to train anew.")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (b"null", "state.json is no object but None"),
        (b"[]", r"state.json is no object but \[\]"),
        (b"", "it is empty"),
        (b"[" * 10_000, "it is nested too deeply"),
        (b'{"step": "2"}', "step of its state.json is '2'"),
        (b'{"step": true}', "step of its state.json is True"),
        (b"{}", "step of its state.json is missing"),
    ],
)
def test_a_newest_with_a_damaged_state_is_no_checkpoint(tmp_path, caplog, state, said):
    """Else a run would begin anew, though the one before it is good."""
    folder = CheckpointFolder(tmp_path)
    folder.save(1, {"step": 1}, snapshot(weights=variables(1)))
    arrays_of_newest = {"state.json": np.frombuffer(state, np.uint8)}
    np.savez(tmp_path / "step_000000002.npz", **arrays_of_newest, **snapshot(weights=variables(2)))
    mine = variables(0)
    assert folder.load_newest(kinds={"step": int}, weights=mine) == {"step": 1}
    assert_equal(mine, arrays(variables(1)))
    assert re.search(rf"step_000000002\.npz is missing or damaged: .*{said}", caplog.text)
