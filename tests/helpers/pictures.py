"""Small image files for the tests of the folder source."""

import io
import struct

import numpy as np
from PIL import Image


def paint(path, value=(0, 0, 0), size=(6, 6), mode="RGB"):
    """A picture of `size` (width, height) in one colour; its format is that of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def paint_classes(root, names=("b", "a"), count=4):
    """A folder per class: red is ten times the place of the name in sorted order, green the number of the picture."""
    for c, name in enumerate(sorted(names)):
        for k in range(count):
            paint(root / name / f"{k}.png", (10 * c, k, 0))


def noise(seed=0, size=(16, 16)):
    """Noise uint8 [height, width, 3], the same for the same seed."""
    width, height = size
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(form, pixels=None, **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(noise() if pixels is None else pixels).save(file, form, **options)
    return file.getvalue()


def exif_entry(tag, kind, count, value):
    """An entry of an EXIF directory; a value of more than four bytes is the place where it lies."""
    return struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")[:4]


def exif(*entries, extra=b""):
    """An EXIF block with one directory, and what lies behind it."""
    return b"MM\0*" + struct.pack(">IH", 8, len(entries)) + b"".join(entries) + bytes(4) + extra


def jpeg_with(content, pixels=None):
    """A JPEG with one more APP1 segment right behind its first two bytes."""
    data = encoded("JPEG", pixels, quality=95, subsampling=0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]


def png_with(kind, content, pixels=None, *, check=None):
    """A PNG with one more chunk behind its header; `check` is its check sum, a wrong one by default."""
    data = encoded("PNG", pixels)
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", 12345 if check is None else check)
    return data[:33] + chunk + data[33:]
