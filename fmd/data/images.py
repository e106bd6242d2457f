"""Image files and arrays of any size as uint8 arrays.

Resizing is the same everywhere: the largest centred rectangle of the target's proportions is cut out and scaled to the
target with the Lanczos filter (which averages where it shrinks). For a square target that is a centre crop of the
shorter side.
"""

import contextlib
import functools
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from jaxtyping import UInt8

from fmd.data.metadata import without_metadata
from fmd.files import printable

if TYPE_CHECKING:
    from PIL import Image

Size: TypeAlias = int | tuple[int, int] | None
T = TypeVar("T")

# The channels of Pillow's modes; transparency is laid over white.
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "La": 1}
_CHANNELS |= dict.fromkeys(("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"), 3)
_REFUSED = {"F": "32-bit floating-point pixels", "I": "32-bit whole-number pixels"}  # of no agreed range
_ORIENTATION = 0x0112  # the EXIF tag
# What is opened, whatever a name says: of Pillow's other formats some start a program of the system.
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "WEBP", "TIFF", "AVIF", "PPM", "TGA", "JPEG2000", "ICO", "PCX")
_STACKS = ("GIF", "TIFF", "WEBP", "PNG", "AVIF")  # formats of several pages; an MPO's second image is a preview


class Unsupported(ValueError):
    """Pixels that have no agreed meaning as a picture."""


@dataclass(frozen=True)
class Header:
    """The facts of an image file that are known before its pixels.

    Attributes:
        shape: (height, width, channels), upright.
        pages: how many pictures the file holds.
        top: the largest value of 16-bit pixels; 0 for others.
    """

    shape: tuple[int, int, int]
    pages: int = 1
    top: int = 0


def height_width(image_size: Size) -> tuple[int, int] | None:
    """(height, width) of a size: one number for a square, two, or None for "as it is". Raises ValueError for others."""
    if image_size is None:
        return None
    pair = (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])
    if min(pair) < 1:
        raise ValueError(f"image_size must be one or two positive numbers (height, width), got {image_size}")
    return pair


def probe(path: Path) -> Header:
    """The header of an image file. Raises whatever Pillow's plugins raise for a damaged one."""

    def look(image: "Image.Image") -> Header:
        width, height = image.size
        if _orientation(image) >= 5:  # turned by a quarter
            width, height = height, width
        top = int(np.asarray(image).max()) if _is_deep(image) else 0
        return Header((height, width, _channels(image)), _pages(image), top)

    return _open(path, look)


def read(
    path: Path, size: tuple[int, int], channels: int, bits: int = 16, factor: int = 1
) -> UInt8[np.ndarray, "h w c"]:
    """The image file as uint8 [height, width, channels]. Raises whatever Pillow's plugins raise for a damaged one.

    Args:
        path: of the file.
        size: (height, width).
        channels: 1 or 3.
        bits: how many bits 16-bit grey uses; the upper eight of them are taken.
        factor: of the values; 255 for masks of 0 and 1.
    """

    def decode(image: "Image.Image") -> np.ndarray:
        from PIL import Image, ImageOps

        _channels(image)
        image.load()
        with contextlib.suppress(Exception):  # broken metadata, which do not say how to turn it
            ImageOps.exif_transpose(image, in_place=True)
        if _is_deep(image):
            image = Image.fromarray(np.minimum(np.asarray(image) >> (bits - 8), 255).astype(np.uint8))
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        mode = "L" if channels == 1 else "RGB"
        array = _fitted(image if image.mode == mode else image.convert(mode), size)
        return array if factor == 1 else array * np.uint8(factor)

    return _open(path, decode)


def reason(error: Exception) -> str:
    """The reason to leave a file out, in equal words for equal causes."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Unsupported):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return "no picture, or damaged at its beginning"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines() or [""]
    plain = re.sub(r"\s*\([^)]*\)|b?'[^']*'|\d+", "", lines[0]).strip()  # without what differs from file to file
    return printable(plain[:80]) or type(error).__name__


def fit_array(image: np.ndarray, size: tuple[int, int] | None) -> UInt8[np.ndarray, "h w c"]:
    """A uint8 image [H, W, C] resized to uint8 [height, width, C], as it is without a size. C is 1, 3 or 4."""
    if size is None or image.shape[:2] == size:
        return image
    from PIL import Image

    return _fitted(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), size)


def _open(path: Path, use: Callable[["Image.Image"], T]) -> T:
    """`use` of the opened image. Where that fails because of broken metadata, of the image without them."""
    from PIL import Image

    formats = _formats()
    try:
        with Image.open(path, formats=formats) as image:
            return use(image)
    except (Unsupported, Image.DecompressionBombError, PermissionError, FileNotFoundError):
        raise
    except Exception as error:
        bare = without_metadata(path.read_bytes())
        if bare is None:
            raise
        try:
            with Image.open(io.BytesIO(bare), formats=formats) as image:
                return use(image)
        except Exception:
            raise error from None


@functools.cache
def _formats() -> list[str]:
    """The formats of `_FORMATS` that this Pillow can open."""
    from PIL import Image

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _orientation(image: "Image.Image") -> int:
    """EXIF's orientation 1 to 8. It is 1 where the tag is missing or broken."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # cameras and editors write whatever they like
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _pages(image: "Image.Image") -> int:
    try:
        return int(getattr(image, "n_frames", 1)) if image.format in _STACKS else 1
    except Exception:  # a later page is damaged; the first need not be
        return 1


def _fitted(image: "Image.Image", size: tuple[int, int]) -> UInt8[np.ndarray, "h w c"]:
    """The image cropped and resized to (height, width)."""
    from PIL import Image, ImageOps

    if image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], method=Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(*size, -1)


def _is_deep(image: "Image.Image") -> bool:
    """True for grey of 16 bits. Pillow gives the pixels of PGM files as 32 bits."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG"))


def _channels(image: "Image.Image") -> int:
    if _is_deep(image):
        return 1
    if image.mode not in _CHANNELS:
        raise Unsupported(_REFUSED.get(image.mode, f"pixels of type {image.mode}"))
    return _CHANNELS[image.mode]
