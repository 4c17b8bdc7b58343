"""How a folder of images is understood: its layout, what is read, left out and refused."""

import io
import os
import socket
import unicodedata

import numpy as np
import pytest
from data_helpers import random_image, write_classes
from PIL import Image

from ofa_tf.data import load_dataset
from ofa_tf.errors import UsageError


def load(folder, **options):
    return load_dataset(data_dir=str(folder), **options)


def counts(data):
    return data.num_train, data.num_validation, data.num_test


@pytest.fixture
def pets(tmp_path):
    """A flat folder of two classes of eight."""
    write_classes(tmp_path / "pets", {"cat": 8, "dog": 8})
    return tmp_path / "pets"


# -- layouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("training", "Testing"), ("TRAIN", "valid"), ("train", "Val")],
)
def test_names_of_splits(tmp_path, train, test):
    write_classes(tmp_path / train, {"cat": 8, "dog": 8})
    write_classes(tmp_path / test, {"cat": 2, "dog": 3}, first_seed=100)
    data = load(tmp_path, num_validation=4)
    assert counts(data) == (12, 4, 5)


@pytest.mark.parametrize("name", ["val", "Valid", "validation"])
def test_a_validation_folder_beside_a_test_folder(image_folder, name):
    write_classes(image_folder / name, {"cat": 3, "dog": 2}, first_seed=500)
    for num_validation in (None, 0):
        data = load(image_folder, num_validation=num_validation)
        assert counts(data) == (80, 5, 20)
    ((images, _),) = data.eval_batches("validation", 24, 9, normalize=False)
    read = {np.rint(image).astype(np.uint8).tobytes() for image in images.numpy()}
    files = (image_folder / name).glob("*/*.jpg")
    assert read == {np.asarray(Image.open(path)).tobytes() for path in files}
    with pytest.raises(UsageError, match=r"folder of validation images, and num_validation is 7"):
        load(image_folder, num_validation=7)
    (image_folder / name / "dog").rename(image_folder / name / "owl")
    with pytest.raises(
        UsageError, match=r"Training and validation images in .*train: dog; .*: owl"
    ):
        load(image_folder)


def test_a_class_called_train_is_a_class(pets):
    write_classes(pets, {"train": 8, "test": 4}, first_seed=900)
    assert load(pets).class_names == ("cat", "dog", "test", "train")


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        ({"test": "later"}, r"folder train/ but no test/, val/ or validation/ with class folders"),
        ({"train": "later"}, r"has a folder test/ but no train/\. Add one\."),
        ({"test": "Train"}, r"has Train, train, which are all the train images by their names"),
    ],
)
def test_splits_that_are_not_whole(image_folder, moves, message):
    for old, new in moves.items():
        (image_folder / old).rename(image_folder / new)
    with pytest.raises(UsageError, match=message):
        load(image_folder)


def test_what_is_no_folder_of_images(image_folder, tmp_path):
    archive = tmp_path / "pets.ZIP"
    archive.write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"pets\.ZIP is an archive: unpack it, and give the fold"):
        load(archive)
    with pytest.raises(UsageError, match="data_dir is empty"):
        load("")
    with pytest.raises(UsageError, match=r"0000\.jpg is no folder"):
        load(image_folder / "train/cat/0000.jpg")
    with pytest.raises(UsageError, match=r"Perhaps .*/pets is meant"):
        load(tmp_path)
    with pytest.raises(UsageError, match=r"nowhere does not exist in /"):
        load("nowhere")


def test_images_that_are_a_folder_too_deep(tmp_path):
    for name in ("cat", "dog"):
        write_classes(tmp_path / name, {"images": 2})
    with pytest.raises(UsageError, match="folders within class folders: 2") as error:
        load(tmp_path)
    assert "Perhaps" not in str(error.value)  # no class is the whole set


# -- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_all_that_tensorflow_decodes_is_read(tmp_path, cache_bytes):
    image = Image.fromarray(random_image(1))
    other = Image.fromarray(random_image(2))
    alpha = image.convert("RGBA")
    alpha.putalpha(128)
    kinds = {
        "a.jfif": image, "b.JPE": image, "c.gif": image, "d.bmp": image, "e.webp": image,
        "f.alpha.webp": alpha, "g.gray.bmp": image.convert("L"), "h": image, "i.jpg_large": image,
        "j.moving.gif": image, "k.exif.webp": image,
    }  # fmt: skip
    names = {"gif": "GIF", "bmp": "BMP", "webp": "WEBP"}
    for split in ("train", "test"):
        for name, shown in kinds.items():
            folder = tmp_path / split / name.replace(".", "_")
            folder.mkdir(parents=True)
            format = names.get(name.rsplit(".", 1)[-1], "JPEG")
            options = {"lossless": True, "exact": True} if format == "WEBP" else {}
            if "moving" in name:
                options = {"save_all": True, "append_images": [other]}
            if "exif" in name:
                options["exif"] = Image.Exif()
            shown.save(folder / name, format, **options)
    data = load(tmp_path, cache_bytes=cache_bytes, num_validation=0)
    assert data.num_train == len(kinds)
    ((images, labels),) = data.eval_batches("train", 24, 99, normalize=False)
    for read, label in zip(images.numpy(), labels.numpy(), strict=True):
        (path,) = (tmp_path / "train" / data.class_names[label]).iterdir()
        shown = np.asarray(Image.open(path).convert("RGB"))
        np.testing.assert_allclose(read, shown, atol=0.01, err_msg=str(path))


def test_hidden_files_and_folders_are_nothing(pets, caplog):
    expected = load(pets).census
    for folder in (".ipynb_checkpoints", "__MACOSX"):
        write_classes(pets, {folder: 3})
    for name in ("._0001.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (pets / "cat" / name).write_bytes(b"\0\1\2")
    (pets / "dog" / ".hidden").mkdir()
    assert load(pets).census == expected
    assert caplog.text == ""


def test_what_is_left_out_is_counted_and_named_once(pets, caplog):
    expected = load(pets).census
    (pets / "cat" / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    for name in ("notes.txt", "more.txt"):
        (pets / "dog" / name).write_text("none")
    (pets / "dog" / "puppies").mkdir()
    (pets / "readme.md").write_text("none")
    os.symlink("nowhere.jpg", pets / "cat" / "dead.jpg")
    os.symlink("loop.jpg", pets / "cat" / "loop.jpg")
    os.symlink("loop", pets / "loop")
    os.symlink("..", pets / "dog" / "up.jpg")
    os.mkfifo(pets / "cat" / "pipe.jpg")
    os.symlink("/dev/zero", pets / "cat" / "zero.png")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(pets / "dog", os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/s.jpg")
        os.close(here)
    for _ in range(2):
        assert load(pets).census == expected
    (record,) = caplog.records
    told = record.getMessage()
    assert told.startswith(f"Left out of {pets}: ")
    for part in (
        "pipes, sockets and devices: 3",
        ".txt files: 2",
        ".heic files: 1",
        "dead or looping links: 2",
        "folders within class folders: 2",
        "files or folders beside class folders: 2",
    ):
        assert part in told, told


def test_names_that_are_not_utf8(pets, caplog):
    """A file is read whatever it is called; a class must have a name."""
    for name in (b"\xff\xfe.jpg", b"caf\xe9.jpg"):
        with open(os.path.join(os.fsencode(pets / "cat"), name), "wb") as file:
            Image.fromarray(random_image(77)).save(file, "JPEG")
    for cache_bytes in (0, 10**9):
        data = load(pets, cache_bytes=cache_bytes, num_validation=2)
        images, _ = zip(*data.eval_batches("train", 24, 99), strict=True)
        assert data.num_train + data.num_test == 16
        assert len(images[0]) == data.num_train
    os.rename(os.fsencode(pets / "dog"), os.path.join(os.fsencode(pets), b"d\xf6g"))
    with pytest.raises(UsageError, match=r"class folder d\\udcf6g of .* has the character"):
        load(pets)


def test_a_bad_file_with_a_strange_name_is_told_in_one_line(tmp_path, caplog):
    write_classes(tmp_path, {"cat": 120, "dog": 120}, size=(12, 12))
    (tmp_path / "cat" / "a\n\x1b[31m.jpg").write_text("no image")
    load(tmp_path, cache_dir=str(tmp_path / ".cache"))
    load(tmp_path, cache_dir=str(tmp_path / ".cache"))
    first, again = caplog.records
    assert first.getMessage() == again.getMessage()
    assert first.getMessage().isprintable()
    assert "cat/a\\n\\x1b[31m.jpg (it is no JPEG, PNG" in first.getMessage()


@pytest.mark.parametrize(
    "make",
    [
        lambda image, file: image.quantize(16).save(file, "BMP"),
        lambda image, file: image.save(
            file, "WEBP", save_all=True, append_images=[image.rotate(90)], lossless=True
        ),
        lambda image, file: image.save(file, "TIFF"),
    ],
)
def test_what_tensorflow_would_read_wrongly_is_a_bad_file(tmp_path, make, caplog):
    write_classes(tmp_path, {"cat": 120, "dog": 120}, size=(12, 12))
    make(Image.fromarray(random_image(1)), file := io.BytesIO())
    (tmp_path / "cat" / "x.jpg").write_bytes(file.getvalue())
    data = load(tmp_path)
    assert data.num_train + data.num_validation + data.num_test == 240
    assert "cat/x.jpg (it is " in caplog.text


# -- class folders ----------------------------------------------------------------------------


def test_an_empty_class_folder(pets):
    (pets / "owl").mkdir()
    (pets / "emu").mkdir()
    with pytest.raises(UsageError, match=r"class folders emu, owl of .* have no images"):
        load(pets)
    (pets / "emu").rmdir()
    (pets / "owl" / "1.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UsageError, match=r"folder owl of .* has no images.*\.heic files: 1"):
        load(pets)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a\u2028b", "a\u202eb", " "])
def test_class_folders_that_cannot_name_a_class(pets, name):
    (pets / "dog").rename(pets / name)
    with pytest.raises(UsageError, match=r"cannot name a class.*Rename it\.") as error:
        load(pets)
    assert str(error.value).isprintable()


def test_composed_and_decomposed_names_are_one(tmp_path):
    composed = unicodedata.normalize("NFC", "caf\u00e9")
    decomposed = unicodedata.normalize("NFD", composed)
    write_classes(tmp_path / "train", {composed: 4, "dog": 4})
    write_classes(tmp_path / "test", {decomposed: 4, "dog": 4}, first_seed=50)
    assert load(tmp_path).class_names == (composed, "dog")
    (tmp_path / "train" / "dog").rename(tmp_path / "train" / decomposed)
    with pytest.raises(
        UsageError, match=r"two folders caf\u00e9, which differ only in how Unicode"
    ):
        load(tmp_path)


def test_a_folder_that_cannot_be_read(pets, monkeypatch):
    scan = os.scandir

    def refused(path):
        if os.fspath(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UsageError, match=r"folder .*pets/dog cannot be read: Permission denied"):
        load(pets)


def test_no_temporary_folder_is_needed(pets, monkeypatch):
    def refused(*args, **options):
        raise OSError(30, "Read-only file system")

    for name in ("mkdtemp", "mkstemp", "gettempdir", "TemporaryDirectory"):
        monkeypatch.setattr(f"tempfile.{name}", refused)
    assert load(pets).num_test >= 2
