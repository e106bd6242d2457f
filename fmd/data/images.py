"""Image files and arrays of any size made uint8 arrays of one size.

Resizing is the same everywhere: the largest centred rectangle of the target's proportions is cut out and scaled to the
target with the Lanczos filter (which averages where it shrinks). For a square target that is a centre crop of the
shorter side.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Size = int | tuple[int, int] | list[int] | None

# The channels of Pillow's modes; transparency is laid over white. 32-bit and floating-point modes have no agreed range.
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "La": 1, "I;16": 1, "I;16B": 1, "I;16L": 1}
_CHANNELS |= dict.fromkeys(("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"), 3)
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 turn the image by a quarter


def height_width(image_size: Size) -> tuple[int, int] | None:
    """(height, width) of a configured size: one number for a square, two, or None for "as it is". ValueError else."""
    if image_size is None:
        return None
    pair = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"image_size must be one or two positive numbers (height, width), got {image_size}")
    return pair


def probe(path: Path) -> tuple[int, int, int]:
    """(height, width, channels) from the header of an image file, upright. OSError or ValueError if unreadable."""
    from PIL import Image

    with Image.open(path) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION, 1) >= 5:
            width, height = height, width
        return height, width, _channels(image)


def read(path: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    """The image file as uint8 [height, width, channels], 1 or 3 channels. OSError or ValueError if unreadable."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        _channels(image)
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        if upright.has_transparency_data:
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright.convert("RGBA"))
        return _to_array(_fit(upright.convert("L" if channels == 1 else "RGB"), size))


def fit_array(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A uint8 image [H, W, C] with 1, 3 or 4 channels, resized to uint8 [height, width, C]."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    return _to_array(_fit(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), size))


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    from PIL import Image, ImageOps

    height, width = size
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS)


def _to_array(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def _channels(image: Image.Image) -> int:
    if image.mode not in _CHANNELS:
        raise ValueError(f"pixels of type {image.mode} are not supported")
    return _CHANNELS[image.mode]
