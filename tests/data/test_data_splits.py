"""Splits by names: stable, stratified; those of earlier versions; and the census of images."""

import collections
import json
import shutil
import unicodedata

import numpy as np
import pytest
from data_helpers import write_classes

from ofa_tf.data import load_dataset
from ofa_tf.data.census import Census
from ofa_tf.data.listing import ImageFile
from ofa_tf.data.splits import held_out, held_out_for_validation, stable_permutation
from ofa_tf.errors import UsageError


def files(**numbers):
    """Files of each class, by how many."""
    return [
        ImageFile(f"/images/{kind}/{number:05d}.jpg", kind, 10, 0)
        for kind, count in numbers.items()
        for number in range(count)
    ]


def names(found, places):
    return {(found[place].class_name, found[place].name) for place in places}


@pytest.mark.parametrize("role", ["test", "validation"])
def test_adding_and_removing_files_moves_no_other(role):
    before, after = files(cat=300, dog=280), files(cat=301, dog=281)
    fewer = [file for number, file in enumerate(before) if number % 7]
    first = names(before, held_out(before, role, 0, None))
    assert len(first) == pytest.approx(58, abs=20)
    kept = {(file.class_name, file.name) for file in before}
    assert names(after, held_out(after, role, 0, None)) & kept == first
    kept = {(file.class_name, file.name) for file in fewer}
    assert names(fewer, held_out(fewer, role, 0, None)) == first & kept


def test_a_split_follows_from_seed_role_class_and_name():
    found = files(cat=300, dog=280)
    first, other_seed, other_role = (
        names(found, held_out(found, role, seed, None))
        for role, seed in (("test", 0), ("test", 1), ("validation", 0))
    )
    assert len({frozenset(first), frozenset(other_seed), frozenset(other_role)}) == 3
    moved = [file._replace(path=file.path.replace("/images", "/elsewhere")) for file in found]
    assert names(moved, held_out(moved, "test", 0, None)) == first
    # Written down once: another version must hold out the same files.
    few = files(cat=30)
    assert [few[place].name[:5] for place in held_out(few, "test", 0, None)] == PINNED


PINNED = ["00021"]


def test_every_class_has_an_image_on_both_sides():
    found = files(**{f"kind{number:02d}": 2 for number in range(40)})
    places = held_out(found, "test", 0, None)
    assert len({found[place].class_name for place in places}) == len(places) == 40
    assert held_out(files(cat=1, dog=2), "validation", 0, None).tolist() in ([1], [2])


def test_large_sets_hold_out_no_more_than_they_need():
    found = files(cat=1200, dog=800)
    assert len(held_out(found, "validation", 0, 100)) == pytest.approx(100, abs=30)
    assert len(held_out(found, "validation", 0, 60)) == pytest.approx(50, abs=25)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (20, {"cat": 18, "dog": 1, "owl": 1}),
        (3, {"cat": 1, "dog": 1, "owl": 1}),
        (2, {"cat": 2}),
        (0, {}),
        (213, {"cat": 199, "dog": 1, "owl": 13}),
        (215, {"cat": 200, "dog": 1, "owl": 14}),
    ],
)
def test_a_number_of_validation_images_is_shared_by_the_classes(count, expected):
    found = files(cat=200, dog=2, owl=14)
    places = held_out_for_validation(found, 0, count)
    assert len(places) == count
    got = collections.Counter(found[place].class_name for place in places)
    assert got == pytest.approx(expected, abs=1)
    if 3 <= count <= 213:  # then both sides can have all classes
        assert all(0 < got[kind] < n for kind, n in (("cat", 200), ("dog", 2), ("owl", 14)))


def test_a_rare_class_is_validated_too_or_that_is_told(tmp_path, caplog):
    write_classes(tmp_path / "train", {"cat": 60, "dog": 2}, size=(8, 8))
    write_classes(tmp_path / "test", {"cat": 2, "dog": 2}, size=(8, 8))
    data = load_dataset(data_dir=str(tmp_path))
    labels = np.concatenate([labels for _, labels in data.eval_batches("validation", 8, 9)])
    assert (labels == 1).sum() == 1
    assert not caplog.records
    (tmp_path / "train" / "dog" / "0001.jpg").unlink()
    load_dataset(data_dir=str(tmp_path))
    assert "No validation image is of dog: accuracies" in caplog.text


# -- jobs of earlier versions ------------------------------------------------------------------


def places_as_before(count, share=0.1, seed=0):
    return np.sort(stable_permutation(count, seed)[: int(count * share)])


def labels_of(data, split):
    return np.concatenate([labels for _, labels in data.eval_batches(split, 8, 99)])


def pixels_of(data, split):
    batches = data.eval_batches(split, 8, 99, normalize=False)
    return {image.tobytes() for images, _ in batches for image in images.numpy()}


def test_splits_of_earlier_versions_can_be_had(image_folder):
    """By the place among all files; val/ beside test/, hidden and other files play no role."""
    images = sorted((image_folder / "train").glob("*/*.jpg"))
    new = load_dataset(data_dir=str(image_folder))
    for more in ("cat/z.webp", "cat/z.gif"):
        shutil.copy(images[0], image_folder / "train" / more)
    write_classes(image_folder / "val", {"cat": 3})
    (image_folder / "train" / "empty").mkdir()
    old = load_dataset(data_dir=str(image_folder), splits=1)
    assert (old.num_train, old.num_validation, old.num_test) == (72, 8, 20)
    assert pixels_of(old, "validation") != pixels_of(new, "validation")
    places = places_as_before(len(images))
    again = image_folder.parent / "again"
    for place in places:
        copied = again / "train" / images[place].relative_to(image_folder / "train")
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images[place], copied)
    shutil.copytree(image_folder / "test", again / "test")
    expected = load_dataset(data_dir=str(again), num_validation=0)
    assert pixels_of(old, "validation") == pixels_of(expected, "train")


def test_test_images_of_earlier_versions_can_be_had(tmp_path):
    write_classes(tmp_path, {"cat": 50, "dog": 30, "owl": 4})
    old = load_dataset(data_dir=str(tmp_path), splits=1)
    assert np.bincount(labels_of(old, "test")).tolist() == [5, 3, 1]
    assert (old.num_train, old.num_validation) == (68, 7)
    with pytest.raises(UsageError, match="splits is 3; this version knows 1 and 2"):
        load_dataset(data_dir=str(tmp_path), splits=3)


# -- the census --------------------------------------------------------------------------------


def test_the_census_is_of_names_and_sizes(image_folder, tmp_path):
    first = load_dataset(data_dir=str(image_folder)).census
    moved = shutil.copytree(image_folder, tmp_path / "moved")
    again = load_dataset(data_dir=str(moved), cache_bytes=0).census
    assert again == first
    assert again.fingerprint == first.fingerprint
    assert first.changes(again) == ""
    assert Census.from_dict(json.loads(json.dumps(first.to_dict()))) == first

    (moved / "test" / "dog" / "0003.jpg").unlink()
    (moved / "test" / "cat" / "0003.jpg").rename(moved / "test" / "cat" / "other.jpg")
    now = load_dataset(data_dir=str(moved)).census
    assert now.fingerprint != first.fingerprint
    assert first.changes(now) == "test images of cat, dog (-1)"
    with open(moved / "train" / "cat" / "0001.jpg", "ab") as file:
        file.write(b"\0")
    assert "train images of cat" in first.changes(load_dataset(data_dir=str(moved)).census)


def test_a_copy_whose_names_another_system_spells_is_the_same_set():
    """Some write letters and accents apart, in Unicode's words decomposed."""
    composed = [ImageFile(f"/images/cat/é{n}.jpg", "cat", 10, 0) for n in range(60)]
    copied = [file._replace(path=unicodedata.normalize("NFD", file.path)) for file in composed]
    assert copied[0].path != composed[0].path
    assert Census.of_files({"train": copied}) == Census.of_files({"train": composed})
    places = held_out(composed, "test", 0, None)
    assert held_out(copied, "test", 0, None).tolist() == places.tolist()


def test_another_seed_is_another_census(image_folder):
    one, other = (load_dataset(data_dir=str(image_folder), seed=seed).census for seed in (0, 1))
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("value", [None, [], {}, {"a": 3}, {"a": {"b": 1}}, {"a": {"b": [1]}}])
def test_a_damaged_census(value):
    with pytest.raises(ValueError, match=r"expected numbers and digests|has no splits"):
        Census.from_dict(value)
