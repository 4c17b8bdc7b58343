"""Image folders: layouts, kinds of images, bad files, and the remembered check."""

import itertools
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_helpers import random_image, write_classes
from PIL import Image

from ofa_tf.data import folder_check, load_dataset
from ofa_tf.errors import UsageError


def load(folder, **options):
    return load_dataset(data_dir=str(folder), **options)


def pixels_by_label(data, split="train", size=24):
    """All images of a split (label, uint8 pixels), in evaluation order."""
    batches = list(data.eval_batches(split, size, 64, normalize=False))
    images = np.concatenate([images for images, _ in batches])
    return np.concatenate([labels for _, labels in batches]), images


def test_train_and_test_folders(image_folder):
    data = load(image_folder)
    assert (data.name, data.class_names) == ("pets", ("cat", "dog"))
    assert data.num_train + data.num_validation == 80
    assert (data.num_validation, data.num_test) == (4, 20)  # of the names, so for good
    labels, images = pixels_by_label(data, "test")
    for label, name in enumerate(data.class_names):
        read = {np.rint(image).astype(np.uint8).tobytes() for image in images[labels == label]}
        files = (image_folder / "test" / name).iterdir()
        assert read == {np.asarray(Image.open(path)).tobytes() for path in files}


@pytest.mark.parametrize("name", ["val", "validation"])
def test_validation_folder_serves_as_test(image_folder, name):
    (image_folder / "test").rename(image_folder / name)
    assert load(image_folder).num_test == 20


def test_one_folder_is_split_by_class(tmp_path):
    write_classes(tmp_path / "all", {"cat": 50, "dog": 30, "owl": 4})
    data, again, other = (load(tmp_path / "all", seed=seed) for seed in (0, 0, 1))
    labels, images = pixels_by_label(data, "test")
    assert np.bincount(labels).tolist() == [5, 1, 1]  # of their names, so for good
    assert data.num_train + data.num_validation == 77
    np.testing.assert_array_equal(images, pixels_by_label(again, "test")[1])
    assert not np.array_equal(images, pixels_by_label(other, "test")[1])
    everything = [
        image.tobytes()
        for split in ("train", "validation", "test")
        for image in pixels_by_label(data, split)[1]
    ]
    assert len(set(everything)) == 84


def test_images_of_any_size(image_folder):
    write_classes(image_folder / "train", {"bat": 10}, size=(30, 50), extension="png")
    write_classes(image_folder / "test", {"bat": 10}, size=(50, 30), extension="PNG")
    data = load(image_folder)
    assert data.num_classes == 3
    ((images, _),) = data.train_batches(16, [20], seed=0).take(1)
    assert images.shape == (16, 20, 20, 3)
    assert len(pixels_by_label(data, "test")[0]) == 30


def save_kind(kind, path):
    """Saves an image of one kind, and returns the RGB pixels that it shows."""
    rgb = random_image(1)
    gray = rgb[..., 0]
    if kind == "gray":
        Image.fromarray(gray).save(path.with_suffix(".png"))
        return np.stack([gray] * 3, -1)
    if kind == "gray jpeg":
        Image.fromarray(gray).save(path.with_suffix(".jpg"), quality=100)
        return np.stack([gray] * 3, -1)
    if kind == "16 bit":
        Image.fromarray(gray.astype(np.uint16) * 257).save(path.with_suffix(".png"))
        return np.stack([gray] * 3, -1)
    if kind == "palette":
        image = Image.fromarray(rgb).quantize(16)
        image.save(path.with_suffix(".png"))
        return np.asarray(image.convert("RGB"))
    if kind == "alpha":
        alpha = np.full((*gray.shape, 1), 128, np.uint8)
        Image.fromarray(np.concatenate([rgb, alpha], -1)).save(path.with_suffix(".png"))
        return rgb
    if kind == "gray alpha":
        Image.fromarray(gray).convert("LA").save(path.with_suffix(".png"))
        return np.stack([gray] * 3, -1)
    if kind == "1 bit":
        image = Image.fromarray(gray).convert("1")
        image.save(path.with_suffix(".png"))
        return np.asarray(image.convert("RGB"))
    Image.fromarray(rgb).convert("CMYK").save(path.with_suffix(".jpg"), quality=100)
    return rgb


KINDS = ["gray", "gray jpeg", "16 bit", "palette", "alpha", "gray alpha", "1 bit", "cmyk"]


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_every_kind_becomes_rgb(tmp_path, cache_bytes):
    expected = {}
    for split, kind in itertools.product(("train", "test"), KINDS):
        (tmp_path / split / kind).mkdir(parents=True)
        expected[kind] = save_kind(kind, tmp_path / split / kind / "image")
    data = load(tmp_path, cache_bytes=cache_bytes, num_validation=0)
    labels, images = pixels_by_label(data)
    assert sorted(labels) == list(range(len(KINDS)))
    for label, image in zip(labels, images, strict=True):
        kind = data.class_names[label]
        tolerance = 3 if kind in ("gray jpeg", "cmyk") else 0.01  # JPEG is lossy
        np.testing.assert_allclose(image, expected[kind], atol=tolerance, err_msg=kind)
    ((images, _),) = data.train_batches(len(KINDS), [20], seed=0).take(1)
    assert images.shape == (len(KINDS), 20, 20, 3)


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def replace_by_text(path):
    path.write_text("not an image at all")


def empty(path):
    path.write_bytes(b"")


@pytest.fixture
def large_folder(tmp_path):
    root = tmp_path / "many"
    write_classes(root / "train", {"a": 100, "b": 95}, size=(12, 12))
    write_classes(root / "test", {"a": 5, "b": 5}, size=(12, 12), first_seed=1000)
    return root


@pytest.mark.parametrize("damage", [truncate, replace_by_text, empty])
def test_a_bad_file_is_named_and_skipped(large_folder, caplog, damage):
    damage(large_folder / "train/a/0007.jpg")
    data = load(large_folder)
    assert "1 of 205 files" in caplog.text
    assert "0007.jpg" in caplog.text
    assert data.num_train + data.num_validation == 194
    assert sum(len(labels) for _, labels in data.eval_batches("train", 12, 50)) == data.num_train


def test_more_than_one_percent_bad_is_an_error(large_folder):
    for i in range(3):
        truncate(large_folder / f"train/b/000{i}.jpg")
    with pytest.raises(UsageError, match=r"3 of 205 files.*0000\.jpg.*1 %"):
        load(large_folder)


def test_good_folder_gives_no_warning(large_folder, caplog):
    load(large_folder)
    assert not caplog.records


def test_missing_folder(tmp_path):
    with pytest.raises(UsageError, match="nowhere does not exist"):
        load(tmp_path / "nowhere")


def test_no_images(tmp_path):
    with pytest.raises(UsageError, match="has no images"):
        load(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("none yet")
    with pytest.raises(UsageError, match="has no images"):
        load(tmp_path)


def test_the_folder_of_a_class_is_told_from_that_of_all(image_folder):
    told = f"cat has images, but no class folders: .* the folder above, {image_folder}/train;"
    with pytest.raises(UsageError, match=told):
        load(image_folder / "train" / "cat")


def test_one_class(tmp_path):
    write_classes(tmp_path, {"cat": 5})
    with pytest.raises(UsageError, match=r"one class only \(cat\)"):
        load(tmp_path)


def test_class_with_one_image_cannot_be_split(tmp_path):
    write_classes(tmp_path, {"cat": 5, "dog": 1})
    with pytest.raises(UsageError, match="dog has one image"):
        load(tmp_path)


def test_train_and_test_with_different_classes(image_folder):
    write_classes(image_folder / "train", {"owl": 2})
    (image_folder / "test" / "dog").rename(image_folder / "test" / "wolf")
    with pytest.raises(UsageError, match="only in train: dog, owl; only in test: wolf"):
        load(image_folder)


def test_train_without_test(image_folder):
    (image_folder / "test").rename(image_folder / "later")
    with pytest.raises(UsageError, match="no test/, val/ or validation/"):
        load(image_folder)


@pytest.fixture
def num_checks(monkeypatch):
    """Counts the checks that read files."""
    calls = []
    original = folder_check._decode_all

    def counted(files):
        calls.append(files)
        return original(files)

    monkeypatch.setattr(folder_check, "_decode_all", counted)
    return lambda: len(calls)


def test_the_check_is_remembered(large_folder, tmp_path, num_checks, caplog):
    truncate(large_folder / "train/a/0007.jpg")
    cache = tmp_path / "made" / "cache"
    first = load(large_folder, cache_dir=str(cache))
    caplog.clear()
    second = load(large_folder, cache_dir=str(cache))
    assert num_checks() == 1
    assert first.num_train == second.num_train
    assert "0007.jpg" in caplog.text
    assert [path.suffix for path in cache.iterdir()] == [".json"]


def test_a_changed_file_is_checked_again(large_folder, tmp_path, num_checks):
    load(large_folder, cache_dir=str(tmp_path))
    path = large_folder / "train/a/0007.jpg"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    load(large_folder, cache_dir=str(tmp_path))
    assert num_checks() == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"size": 3, "bad": []}',
        '{"bad": []}',
        '{"size": [1e400, 1], "bad": {}, "turned": {}}',
    ],
)
def test_a_damaged_memory_is_no_error(large_folder, tmp_path, num_checks, content):
    load(large_folder, cache_dir=str(tmp_path))
    (remembered,) = tmp_path.glob("*.json")
    remembered.write_text(content)
    assert load(large_folder, cache_dir=str(tmp_path)).num_test == 10
    assert num_checks() == 2


def test_an_unusable_cache_folder_is_no_error(large_folder, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    assert load(large_folder, cache_dir=str(file)).num_test == 10
    assert load(large_folder, cache_dir=str(file / "below")).num_test == 10


@pytest.mark.skipif("OFA_SHARED" not in os.environ, reason="OFA_SHARED is not set")
def test_cifar10(tmp_path):
    archive = Path(os.environ["OFA_SHARED"]) / "data" / "cifar10" / "cifar10_jpeg.zip"
    taken = {}
    with zipfile.ZipFile(archive) as images:
        for name in images.namelist():
            folder = name.rsplit("/", 1)[0]
            if name.endswith(".jpg") and taken.setdefault(folder, 0) < 12:
                taken[folder] += 1
                images.extract(name, tmp_path)
    data = load(tmp_path)
    assert data.class_names == (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    assert (data.num_train + data.num_validation, data.num_test) == (120, 120)
    assert data.num_validation >= 10  # one of each class at least
    ((images, labels),) = data.train_batches(100, [28], seed=0).take(1)
    assert images.shape == (100, 28, 28, 3)
    assert len(set(labels.numpy())) == 10
