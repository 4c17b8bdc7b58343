"""A job and its images: changed, moved, of an earlier version."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from cli_helpers import TRAIN, assert_one_message, run, write_images

import ofa_tf
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import write_json
from ofa_tf.job import Job, keep_images, open_images
from ofa_tf.workdir import Workdir

EVAL = ("--arch=smallest", "--split=test")


@pytest.fixture
def own(images, job, tmp_path):
    """A copy of the images, which the copied job is moved to."""
    copy = shutil.copytree(images, tmp_path / "images")
    ofa_tf.load_job(job).move_images(copy)
    return copy


def config_of(job) -> dict:
    return json.loads((job / "config.json").read_text())


def change(job, **settings) -> None:
    """Changes settings of the job's images; None removes one."""
    config = config_of(job)
    changed = config["data"] | settings
    config["data"] = {name: value for name, value in changed.items() if value != "gone"}
    write_json(job / "config.json", config)


def test_a_job_knows_its_images(trained, images):
    data = config_of(trained)["data"]
    assert (data["data_dir"], data["splits"]) == (str(images), 2)
    record = json.loads((trained / "images.json").read_text())
    assert {split: sum(n for n, _ in row.values()) for split, row in record.items()} == {
        "train": ofa_tf.load_job(trained).data.num_train,
        "validation": ofa_tf.load_job(trained).data.num_validation,
        "test": 30,
    }


CHANGES = {
    "renamed": (lambda root: (root / "red").rename(root / "rot"), "added: rot; missing: red"),
    "removed": (lambda root: shutil.rmtree(root / "green"), "missing: green"),
    "added": (lambda root: shutil.copytree(root / "red", root / "pink"), "added: pink"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_other_classes_are_refused(job, own, kind):
    apply, expected = CHANGES[kind]
    for split in ("train", "test"):
        apply(own / split)
    with pytest.raises(UsageError, match=f"not those of the job in .*; {expected}\\. Its network"):
        _ = ofa_tf.load_job(job).data
    if kind == "renamed":
        for command in ("eval", "predictor"):
            assert_one_message(run(command, f"--workdir={job}"), 2, expected)
        ended = run("train", *TRAIN, f"--data_dir={own}", f"--workdir={job}")
        assert_one_message(ended, 2, expected)
        assert not (job / "accuracy_rows.jsonl").exists()


def test_other_files_are_told_and_evaluated(job, own, images):
    before = ofa_tf.load_job(job).fingerprint
    again = ofa_tf.load_job(job).fingerprint
    assert before == again
    write_images(own / "test", {"red": 13}, seed=7)
    ended = run("eval", f"--workdir={job}", *EVAL)
    assert ended.code == 0, ended.err
    told = "are not those that it was begun with: test images of red (+3). What is evaluated"
    assert ended.err.count(told) == 1
    changed = ofa_tf.load_job(job).fingerprint
    assert changed != before
    (own / "test" / "red" / "012.png").unlink()
    assert ofa_tf.load_job(job).fingerprint not in (before, changed)
    shutil.rmtree(own / "test")
    shutil.copytree(images / "test", own / "test")
    assert ofa_tf.load_job(job).fingerprint == before


def test_images_that_moved(job, own, tmp_path):
    fingerprint = ofa_tf.load_job(job).fingerprint
    moved = own.rename(tmp_path / "elsewhere")
    ended = run("eval", f"--workdir={job}", *EVAL)
    assert_one_message(ended, 2, f"are no longer in {own}. Give --data_dir=PATH to say where they")
    assert ofa_tf.load_job(job).fingerprint == fingerprint  # what is evaluated stays valid

    other = tmp_path / "other"
    write_images(other / "train", dict.fromkeys(("blue", "green", "red"), 20))
    write_images(other / "test", dict.fromkeys(("blue", "green", "red"), 10), seed=1)
    before = (job / "config.json").read_text()
    refused = [f"--data_dir={other}", f"--workdir={job}"]
    for command, args in (("eval", EVAL), ("train", TRAIN)):
        ended = run(command, *args, *refused)
        assert_one_message(
            ended, 2, f"{other} does not hold the images of the job in {job}; others are"
        )
    assert (job / "config.json").read_text() == before

    ended = run("eval", f"--workdir={job}", *EVAL, f"--data_dir={moved}")
    assert ended.code == 0, ended.err
    assert "not those" not in ended.err
    assert config_of(job) == json.loads(before) | {
        "data": json.loads(before)["data"] | {"data_dir": str(moved)}
    }
    assert ofa_tf.load_job(job).fingerprint == fingerprint


def test_training_goes_on_where_the_images_are_now(job, own, tmp_path, monkeypatch):
    moved = own.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    ended = run("train", *TRAIN, "--data_dir=elsewhere", f"--workdir={job}")
    assert ended.code == 0, ended.err
    assert ended.message.startswith("Trained.")
    assert config_of(job)["data"]["data_dir"] == str(moved)


def test_a_relative_folder_becomes_absolute(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = Workdir(tmp_path / "new")
    opened = open_images({"data_dir": "images"}, workdir)
    assert opened.settings == {"data_dir": str(own), "splits": 2}
    keep_images(workdir, opened.data)
    assert json.loads((workdir.path / "images.json").read_text())


def test_the_images_of_a_tfds_set_cannot_move(job, own):
    change(job, dataset="ofa_doodles", data_dir=None)
    ended = run("eval", f"--workdir={job}", f"--data_dir={own}")
    assert_one_message(ended, 2, "are the TFDS set ofa_doodles. Leave it out.")


def test_an_image_that_vanishes_after_the_check(job, own, monkeypatch):
    """Between the list of the files and their reading."""
    from ofa_tf.data import folder

    check = folder.check_images

    def checked(root, files, cache_dir):
        found = check(root, files, cache_dir)
        next((own / "test" / "red").iterdir()).unlink()
        return found

    monkeypatch.setattr(folder, "check_images", checked)
    for fits in (True, False):
        monkeypatch.setattr(folder, "_fits", lambda *_, fits=fits: fits)
        ended = run("eval", f"--workdir={job}", *EVAL)
        assert_one_message(ended, 1, "An image cannot be read any more: ", ".png; No such file")


# -- jobs of earlier versions ------------------------------------------------------------------


@pytest.fixture
def old(job, own, tmp_path, monkeypatch):
    """The job as an earlier version began it: a relative folder, no record of the images."""
    change(job, splits="gone", data_dir="images")
    (job / "images.json").unlink()
    monkeypatch.chdir(tmp_path)
    return job


def test_an_old_job_goes_on_with_its_splits(old, own):
    job = ofa_tf.load_job(old)
    assert (job.data.num_train, job.data.num_validation) == (146, 16)
    assert job.images_fingerprint == ""
    write_images(own / "test", {"red": 13}, seed=7)
    assert ofa_tf.load_job(old).data.num_test == 33
    before = config_of(old)
    ended = run("train", *TRAIN, "--data_dir=images", f"--workdir={old}")
    assert ended.code == 0, ended.err
    assert config_of(old)["data"] == before["data"] | {"data_dir": str(own)}
    assert not (old / "images.json").exists()
    (own / "test" / "red").rename(own / "test" / "rot")
    (own / "train" / "red").rename(own / "train" / "rot")
    with pytest.raises(UsageError, match="added: rot; missing: red"):
        _ = ofa_tf.load_job(old).data


def test_an_old_job_whose_images_moved(old, own, tmp_path, monkeypatch):
    other = shutil.copytree(own, tmp_path / "other")
    next((other / "test" / "red").iterdir()).unlink()
    with pytest.raises(UsageError, match="does not hold the images"):  # which are still there
        ofa_tf.load_job(old).move_images(other)
    monkeypatch.chdir("/")
    ended = run("eval", f"--workdir={old}", *EVAL)
    assert_one_message(ended, 2, "are no longer in images in /. Give --data_dir=PATH to say where")
    moved = own.rename(tmp_path / "elsewhere")
    ended = run("eval", f"--workdir={old}", *EVAL, f"--data_dir={moved}")
    assert ended.code == 0, ended.err
    assert "keeps no record of its images: whether those in" in ended.err
    assert config_of(old)["data"]["data_dir"] == str(moved)
    moved.rename(own)
    with pytest.raises(UsageError, match=r"nowhere does not exist"):
        Job(Workdir(old)).move_images(tmp_path / "nowhere")
    Job(Workdir(old)).move_images(own)
    assert config_of(old)["data"]["data_dir"] == str(own)
    assert ofa_tf.load_job(old).data.num_validation == 16


@pytest.mark.parametrize("content", ["", "[]", '{"train": {"red": [1e400, "a"]}}'])
def test_an_unreadable_record_of_images(job, own, content):
    (job / "images.json").write_text(content)
    with pytest.raises(FailureError, match=r"images\.json .* Remove it to go on without\."):
        _ = ofa_tf.load_job(job).data
    os.unlink(job / "images.json")
    assert ofa_tf.load_job(job).data.num_test == 30


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"zoom": 2}, r"data\.zoom is no setting that this version knows"),
        ({"cache_dir": "elsewhere"}, r"data\.cache_dir is no setting that this version knows"),
        ({"splits": "2"}, r"data\.splits is no number but '2'"),
        ({"splits": None}, r"data\.splits is missing"),
    ],
)
def test_settings_of_images_that_no_version_had(job, settings, told):
    change(job, **settings)
    with pytest.raises(FailureError, match=rf"config\.json is damaged: {told}"):
        ofa_tf.load_job(job)
