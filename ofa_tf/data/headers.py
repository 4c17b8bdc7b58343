"""What the first bytes of an image file tell: its format, size and orientation, undecoded.

The formats are those that TensorFlow decodes; what it would decode wrongly is none of them.
"""

import struct
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

# A decompression bomb: a small file of more pixels than any camera takes.
MAX_PIXELS = 180_000_000

_START_BYTES = 32  # enough to tell the formats apart
_EXIF_BYTES = 2**16  # of an EXIF block that are looked at; JPEG has no larger ones
_ORIENTATION_TAG = 0x0112
_WHOLE_NUMBERS = {3: "H", 4: "I"}  # the types of a tag's value; some programs write the longer one
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers that begin a frame
_JPEG_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_JPEG_END = {0xD9, 0xDA}


class Header(NamedTuple):
    """What a file's header says.

    Attributes:
        height: of the image as it is to be seen, in pixels.
        width: the same.
        orientation: how the stored pixels have to be turned for that, as EXIF counts: 1 for not at
            all, up to 8.
    """

    height: int
    width: int
    orientation: int = 1


def is_image(start: bytes) -> bool:
    """Whether the first bytes of a file are those of an image that `read_header` knows."""
    return _reader_of(start) is not None


def read_header(file: BinaryIO) -> Header:
    """Reads a header; of a JPEG with a large EXIF segment too, only some kilobytes are read.

    Args:
        file: at its beginning.

    Raises:
        ValueError: it is no image that TensorFlow decodes, or has too many pixels; says why.
    """
    start = file.read(_START_BYTES)
    reader = _reader_of(start)
    if reader is None:
        raise ValueError("it is no JPEG, PNG, GIF, BMP or WebP")
    try:
        height, width, exif = reader(file, start)
    except (struct.error, IndexError) as error:
        raise ValueError("it is cut off") from error
    if height <= 0 or width <= 0:
        raise ValueError("it has no pixels")
    if height * width > MAX_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels; at most {MAX_PIXELS // 10**6} million")
    orientation = _orientation(exif)
    if orientation > 4:
        height, width = width, height
    return Header(height, width, orientation)


def _reader_of(start: bytes) -> Callable[[BinaryIO, bytes], tuple[int, int, bytes]] | None:
    if start[:3] == b"\xff\xd8\xff":
        return _read_jpeg
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return _read_png
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return _read_gif
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return _read_bmp
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _read_webp
    return None


def _read_jpeg(file: BinaryIO, start: bytes) -> tuple[int, int, bytes]:
    exif = b""
    file.seek(2)
    while True:
        marker = file.read(2)
        while marker[1] == 0xFF:  # bytes that fill up
            marker = marker[1:] + file.read(1)
        if marker[0] != 0xFF or marker[1] in _JPEG_END:
            raise ValueError("it is a JPEG without a size")
        if marker[1] in _JPEG_ALONE:
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if marker[1] in _JPEG_SIZES:
            height, width = struct.unpack(">xHH", file.read(5))
            return height, width, exif
        if marker[1] == 0xE1 and not exif:
            segment = file.read(length - 2)
            exif = segment[6:] if segment[:6] == b"Exif\0\0" else b""
        else:
            file.seek(length - 2, 1)


def _read_png(file: BinaryIO, start: bytes) -> tuple[int, int, bytes]:
    width, height = struct.unpack(">II", start[16:24])
    file.seek(8)
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"eXIf":
            return height, width, file.read(min(length, _EXIF_BYTES))
        if kind in (b"IDAT", b"IEND"):
            return height, width, b""
        file.seek(length + 4, 1)


def _read_gif(file: BinaryIO, start: bytes) -> tuple[int, int, bytes]:
    """Raises ValueError where the first frame is larger than the image says it is."""
    width, height, packed = struct.unpack("<HHB", start[6:11])
    file.seek(13 + (3 * 2 ** (packed % 8 + 1) if packed & 0x80 else 0))
    while (kind := file.read(1)) == b"!":  # an extension: a label, then blocks to an empty one
        file.seek(1, 1)
        while length := file.read(1)[0]:
            file.seek(length, 1)
    if kind != b",":
        raise ValueError("it is a GIF without a frame")
    left, top, frame_width, frame_height = struct.unpack("<HHHH", file.read(8))
    if left + frame_width > width or top + frame_height > height:
        raise ValueError("it is a damaged GIF")
    return height, width, b""


def _read_bmp(file: BinaryIO, start: bytes) -> tuple[int, int, bytes]:
    """Raises ValueError for palettes of colors and compression, which TensorFlow does not know."""
    size, width, height, bits = struct.unpack("<14xIii2xH", start[:30])
    compression, num_colors = struct.unpack("<I12xI", _at(file, 30, 20))
    if size < 40 or bits not in (8, 24, 32) or compression not in ((0, 3) if bits == 32 else (0,)):
        raise ValueError("it is a BMP of a kind that TensorFlow does not decode")
    if bits == 8:
        palette = _at(file, 14 + size, 4 * (num_colors or 256))
        if any(palette[4 * i : 4 * i + 3] != bytes([i] * 3) for i in range(len(palette) // 4)):
            raise ValueError("it is a BMP with a palette, which TensorFlow does not decode")
    return abs(height), width, b""


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _read_webp(file: BinaryIO, start: bytes) -> tuple[int, int, bytes]:
    """Raises ValueError for animations, which TensorFlow does not decode."""
    kind, flags = start[12:16], start[20]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", start[26:30])
        return height & 0x3FFF, width & 0x3FFF, b""
    if kind == b"VP8L":
        (packed,) = struct.unpack("<I", start[21:25])
        return (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1, b""
    if kind != b"VP8X":
        raise ValueError("it is a damaged WebP")
    if flags & 0x02:
        raise ValueError("it is an animated WebP, which TensorFlow does not decode")
    width, height = (int.from_bytes(start[at : at + 3], "little") + 1 for at in (24, 27))
    return height, width, _webp_exif(file) if flags & 0x08 else b""


def _webp_exif(file: BinaryIO) -> bytes:
    file.seek(12)
    while len(chunk := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", chunk)
        if kind == b"EXIF":
            return file.read(min(length, _EXIF_BYTES)).removeprefix(b"Exif\0\0")
        file.seek(length + length % 2, 1)
    return b""


def _orientation(exif: bytes) -> int:
    """The orientation in an EXIF block, which is a TIFF file; 1 where it is none or damaged."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == _ORIENTATION_TAG and kind in _WHOLE_NUMBERS:
                (value,) = struct.unpack_from(order + _WHOLE_NUMBERS[kind], exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
