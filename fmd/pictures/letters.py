"""Names beside rows and above columns, in Pillow's own font.

The font has few letters beyond ASCII, and draws a box for each that it lacks. So accents are left out, and a name in
another script is replaced by its number, with a warning.
"""

import functools
import math
import unicodedata
from collections.abc import Sequence

import numpy as np
from absl import logging

from fmd.files import some

FONT_SIZE = 17
SMALLEST_FONT = 9  # what can still be read; of wider names above columns only some are shown
LONGEST_NAME = 24  # letters of a row's name
SPELLINGS = {"ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d"}
SPELLINGS |= {"Đ": "D", "ı": "i", "–": "-", "—": "-", "−": "-", "’": "'", "‘": "'", "“": '"', "”": '"'}


def writable(names: Sequence[str], numbers: Sequence[int] | np.ndarray | None = None) -> list[str]:
    """The names in letters that the font has; one without them is replaced by its number, by default its place."""
    numbers = range(len(names)) if numbers is None else numbers
    spelt = ["".join(map(_spelling, name)) for name in names]
    written = [all(map(_in_font, letters)) for letters in spelt]
    if not all(written):
        strange = [name for name, fits in zip(names, written, strict=True) if not fits]
        shown = some(strange)
        logging.warning("pictures show %d names as numbers; their font lacks letters of: %s", len(strange), shown)
    return [letters if fits else str(i) for letters, fits, i in zip(spelt, written, numbers, strict=True)]


def beside_rows(names: Sequence[str], height: int) -> np.ndarray:
    """The names in black on white, right-aligned: [height, W, 1]."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(min(FONT_SIZE, max(6, height // len(names))))
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..." for name in names]
    space = font.getlength("n")
    width = math.ceil(max(font.getlength(name) for name in names) + 2 * space)
    margin = Image.new("L", (width, height), 255)
    for i, name in enumerate(names):
        middle = (width - space, height * (i + 0.5) / len(names))
        ImageDraw.Draw(margin).text(middle, name, fill=0, font=font, anchor="rm")
    return np.asarray(margin)[..., None]


def above_columns(names: Sequence[str], width: int) -> np.ndarray:
    """The names in black on white, above their columns: [H, width, 1].

    As large as the widest fits its part. Where even the smallest letters would run into one another, every second,
    third, ... name is shown.
    """
    from PIL import Image, ImageDraw, ImageFont

    part = width / len(names)
    widest = max(ImageFont.load_default(FONT_SIZE).getlength(f"{name} ") for name in names)
    size = min(FONT_SIZE, max(SMALLEST_FONT, int(FONT_SIZE * part / widest)))
    font = ImageFont.load_default(size)
    every = math.ceil(max(font.getlength(f"{name} ") for name in names) / part)
    band = Image.new("L", (width, math.ceil(1.5 * size)), 255)
    for i in range(0, len(names), every):
        half = font.getlength(names[i]) / 2
        middle = min(max((i + 0.5) * part, half), width - half)  # not over the edges
        ImageDraw.Draw(band).text((middle, band.height / 2), names[i], fill=0, font=font, anchor="mm")
    return np.asarray(band)[..., None]


@functools.cache
def _in_font(letter: str) -> bool:
    """True where the font has the letter: those that it lacks are all drawn as the same box."""
    from PIL import ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    return bytes(font.getmask(letter)) != bytes(font.getmask("\U0010ffff"))


def _spelling(letter: str) -> str:
    """A letter without its accent, or spelt by others; one that the font has, or that cannot be spelt, stays."""
    if _in_font(letter):
        return letter
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    return SPELLINGS.get(letter, plain)
