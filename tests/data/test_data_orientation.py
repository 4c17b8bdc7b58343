"""EXIF orientations, extreme shapes and formats, against PIL and against the whole image."""

import contextlib
import io
import pathlib
import resource
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from data_helpers import random_image, write_classes
from PIL import Image, ImageOps

from ofa_tf.data import Augmentation, load_dataset
from ofa_tf.data import augmentation as transforms
from ofa_tf.data.decoding import Box, Picture, decode_part, decode_picture
from ofa_tf.data.headers import MAX_PIXELS, read_header

FORMATS = {
    "jpg": {"quality": 95, "subsampling": 0},
    "png": {},
    "webp": {"lossless": True},
}


def saved(orientation, format="jpg", height=40, width=56):
    """The bytes of a file with an EXIF orientation, and what PIL makes of it."""
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    if orientation:
        exif[0x0112] = orientation
    file = io.BytesIO()
    image = Image.fromarray(random_image(3, height, width))
    name = {"jpg": "JPEG"}.get(format, format)
    image.save(file, name, exif=exif, **FORMATS[format])
    seen = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue())))
    return file.getvalue(), np.asarray(seen.convert("RGB"))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_images_are_seen_as_pil_shows_them(format, orientation):
    encoded, seen = saved(orientation, format)
    header = read_header(io.BytesIO(encoded))
    assert header == (*seen.shape[:2], orientation or 1)
    picture = Picture(tf.constant(encoded), tf.constant(header.orientation))
    np.testing.assert_array_equal(decode_picture(picture), seen)
    box = Box(*map(tf.constant, (3, 7, 21, 17)))
    part = decode_part(picture, lambda height, width: box)
    np.testing.assert_array_equal(part.pixels, seen[3:24, 7:24])
    assert (int(part.height), int(part.width)) == seen.shape[:2]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of photos that lie all ways, and the same photos upright, by their names."""
    root = tmp_path_factory.mktemp("photos")
    for split, kind, orientation in (
        (split, kind, orientation)
        for split in ("train", "test")
        for kind in ("cat", "dog")
        for orientation in range(1, 9)
    ):
        # All of one size as they are seen, so that they can be kept decoded.
        size = (40, 56) if orientation < 5 else (56, 40)
        encoded, seen = saved(orientation, "png", *size)
        for root_name, content in (("lying", encoded), ("upright", None)):
            path = root / root_name / split / kind / f"{orientation}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if content:
                path.write_bytes(content)
            else:
                Image.fromarray(seen).save(path)
    return root


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_photos_are_trained_on_and_evaluated_upright(photos, cache_bytes):
    lying, upright = (
        load_dataset(data_dir=str(photos / name), cache_bytes=cache_bytes, num_validation=0)
        for name in ("lying", "upright")
    )
    augmentation = Augmentation(crop_scale_min=0.2)
    for first, second in zip(
        lying.train_batches(8, [24], seed=1, augmentation=augmentation).take(4),
        upright.train_batches(8, [24], seed=1, augmentation=augmentation).take(4),
        strict=True,
    ):
        np.testing.assert_allclose(first[0], second[0], atol=1e-4)
    for batches in ("eval", "calibration"):
        images = [
            next(iter(data.eval_batches("test", 24, 16, eval_crop=0.875)))[0]
            if batches == "eval"
            else next(iter(data.calibration_batches(24, 8, 8)))[0]
            for data in (lying, upright)
        ]
        np.testing.assert_allclose(*images, atol=1e-4)


SHAPES = [(4, 1200), (1200, 4), (1, 1), (333, 501), (31, 32), (700, 90)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("resolution", "eval_crop"), [(32, 0.875), (48, 1.0), (24, 0.3)])
def test_cut_first_gives_what_resizing_the_whole_gives(shape, resolution, eval_crop):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    shorter = int(np.ceil(resolution / eval_crop - 1e-6))
    scale = shorter / min(shape)
    size = [max(shorter, round(side * scale)) for side in shape]
    whole = tf.image.resize(image, size, antialias=True)
    top, left = ((side - resolution) // 2 for side in size)
    expected = whole[top : top + resolution, left : left + resolution]
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    part = decode_part(
        Picture(tf.constant(file.getvalue())),
        lambda height, width: transforms.center_box(height, width, resolution, eval_crop),
    )
    actual = transforms.resize_center(part, resolution, eval_crop)
    assert actual.shape == (resolution, resolution, 3)
    # Where a side is long, float32 places the whole image's samples less exactly.
    np.testing.assert_allclose(actual, expected, atol=0.05 if max(shape) > 1000 else 0.02)
    margin = min(shape) / resolution + 3
    assert max(part.pixels.shape[:2]) <= min(shape) + 2 * margin


def test_a_panorama_takes_no_more_than_its_middle(tmp_path):
    """A strip of 4 x 12000 pixels, enlarged as a whole to 219 x 657000, would take 14 s."""
    for split in ("train", "test"):
        for kind in ("a", "b"):
            (tmp_path / split / kind).mkdir(parents=True)
            Image.fromarray(random_image(1, 4, 12000)).save(tmp_path / split / kind / "1.jpg")
    data = load_dataset(data_dir=str(tmp_path), num_validation=0, cache_bytes=0)
    with contextlib.suppress(OSError):  # Linux: what other tests took at most is forgotten
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ((images, _),) = data.eval_batches("test", 192, 2, eval_crop=0.875)
    assert images.shape == (2, 192, 192, 3)
    ((images, _),) = data.train_batches(2, [192], seed=0).take(1)
    assert images.shape == (2, 192, 192, 3)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert kilobytes < 400_000  # as a whole it took 2 GB


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_of_four_bytes(order):
    """As some programs write it, against EXIF, and PIL and Android read it."""
    mark = b"II" if order == "<" else b"MM"
    entry = struct.pack(f"{order}HHII", 0x0112, 4, 1, 6)
    exif = b"Exif\0\0" + mark + struct.pack(f"{order}HIH", 42, 8, 1) + entry + bytes(4)
    plain, _ = saved(None)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    encoded = plain[:2] + segment + plain[2:]
    assert Image.open(io.BytesIO(encoded)).getexif()[0x0112] == 6
    assert read_header(io.BytesIO(encoded)) == (56, 40, 6)


def png_header(width, height):
    header = struct.pack(">I4sIIBBBBBI", 13, b"IHDR", width, height, *[8] * 5, 0)
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I4s", 1, b"IDAT")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_header(60_000, 60_000), "it has 60000 x 60000 pixels; at most 180 million"),
        (png_header(0, 5), "it has no pixels"),
        (png_header(5, 5)[:20], "it is cut off"),
        (b"\xff\xd8\xff\xe0\x00", "it is cut off"),
        (b"\xff\xd8\xff\xd9", "it is a JPEG without a size"),
        (b"", "it is no JPEG, PNG, GIF, BMP or WebP"),
        (b"not an image at all", "it is no JPEG, PNG, GIF, BMP or WebP"),
    ],
)
def test_headers_of_what_is_no_image(content, reason):
    assert 150e6 < MAX_PIXELS < 200e6
    with pytest.raises(ValueError, match=reason):
        read_header(io.BytesIO(content))


def test_a_frame_that_is_larger_than_its_gif():
    file = io.BytesIO()
    Image.fromarray(random_image(1)).save(file, "GIF")
    content = bytearray(file.getvalue())
    content[6:10] = struct.pack("<HH", 3, 3)
    with pytest.raises(ValueError, match="damaged GIF"):
        read_header(io.BytesIO(bytes(content)))


def test_a_bomb_is_a_bad_file(tmp_path, caplog):
    write_classes(tmp_path, {"cat": 120, "dog": 120}, size=(12, 12))
    bomb = tmp_path / "cat" / "bomb.png"
    rows = zlib.compress(bytes(60_001) * 100)
    header = png_header(60_000, 60_000)[:-8]
    bomb.write_bytes(header + struct.pack(">I4s", len(rows), b"IDAT") + rows)
    data = load_dataset(data_dir=str(tmp_path))
    assert data.num_train + data.num_validation + data.num_test == 240
    assert "cat/bomb.png (it has 60000 x 60000 pixels; at most 180 million)" in caplog.text


def test_a_damaged_header_is_a_value_error_or_none():
    """Whatever bytes change: no other error, and an orientation from 1 to 8."""
    rng = np.random.default_rng(0)
    contents = [saved(6, format)[0] for format in FORMATS]
    for name in ("GIF", "BMP"):
        file = io.BytesIO()
        Image.fromarray(random_image(1)).save(file, name)
        contents.append(file.getvalue())
    for content in contents:
        for _ in range(500):
            damaged = bytearray(
                content[: rng.integers(len(content))] if rng.random() < 0.5 else content
            )
            for place in rng.integers(0, min(len(damaged), 200) or 1, 3):
                damaged[place : place + 1] = rng.bytes(1)
            with contextlib.suppress(ValueError):
                assert 1 <= read_header(io.BytesIO(bytes(damaged))).orientation <= 8
