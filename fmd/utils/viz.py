"""Pictures as uint8 arrays, the same for the same images. Pillow, for letters and files, is loaded when needed."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmd.utils.files import atomic_path

LONGEST_SIDE = 4096  # pixels of a picture; larger ones are shrunk
FONT_SIZE = 17
SMALLEST_FONT = 9  # what can still be read; of wider names above columns only some are shown
LONGEST_NAME = 24  # letters of a row's name


def image_grid(
    images: np.ndarray, *, columns: int | None = None, gap: int = 2, scale: int = 1, longest_side: int = LONGEST_SIDE
) -> np.ndarray:
    """Arranges images row by row on a white ground.

    Args:
        images: uint8 [N, H, W, C]. With C other than 1 or 3 an image is shown as its channels side by side, in grey.
        columns: images per row; the default, floor(sqrt(N)), makes a near-square grid.
        gap: white pixels between images, before scaling.
        scale: every pixel becomes a scale x scale square.
        longest_side: a larger picture is made of images shrunk by a whole factor, by the mean over squares.

    Returns:
        uint8 [rows, columns] picture, [.., .., 1 or 3].

    Raises:
        ValueError: for another dtype or shape, or no images.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"a grid takes uint8 images [N, H, W, C], N > 0, not {images.dtype} {images.shape}")
    if images.shape[-1] not in (1, 3):
        images = channels_side_by_side(images)
    columns = columns or max(1, math.isqrt(len(images)))
    rows = -(-len(images) // columns)
    side = max(rows * (images.shape[1] + gap), columns * (images.shape[2] + gap)) + gap
    if side * scale > longest_side:
        scale = max(1, longest_side // side)
        images = shrink(images, -(-side // longest_side))
    height, width, channels = images.shape[1:]
    cell_h, cell_w = height + gap, width + gap
    sheet = np.full((rows * cell_h + gap, columns * cell_w + gap, channels), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * cell_h, gap + (i % columns) * cell_w
        sheet[top : top + height, left : left + width] = image
    return sheet.repeat(scale, 0).repeat(scale, 1)


def labelled_grid(
    images: np.ndarray,
    names: Sequence[str],
    *,
    column_names: Sequence[str] = (),
    scale: int = 1,
    longest_side: int = LONGEST_SIDE,
) -> np.ndarray:
    """`image_grid` with one row per name, the names at the left of their rows and, if wanted, others above the columns.

    Args:
        images: uint8 [N, H, W, C], N a multiple of the number of names, row by row.
        names: one per row; where all are empty there is no space for them either.
        column_names: one per column, or none.
        scale, longest_side: as in `image_grid`; the names take their space beside it.

    Returns:
        uint8 picture [.., .., 1 or 3].

    Raises:
        ValueError: when the rows would not be equally long, or have no name for each column.
    """
    if not names or len(images) % len(names):
        raise ValueError(f"{len(images)} images cannot be shared out to {len(names)} rows; give as many to each name")
    columns = len(images) // len(names)
    if len(column_names) not in (0, columns):
        raise ValueError(f"{len(column_names)} column names for {columns} columns; give one to each, or none")
    grid = image_grid(images, columns=columns, scale=scale, longest_side=longest_side)
    left = _names_beside_rows(names, len(grid)) if any(names) else np.empty((len(grid), 0, 1), np.uint8)
    top = _names_above_columns(column_names, grid.shape[1]) if any(column_names) else np.empty((0, grid.shape[1], 1))
    picture = np.full((len(top) + len(grid), left.shape[1] + grid.shape[1], grid.shape[2]), 255, np.uint8)
    picture[: len(top), left.shape[1] :] = top
    picture[len(top) :, : left.shape[1]] = left
    picture[len(top) :, left.shape[1] :] = grid
    return picture


def _names_beside_rows(names: Sequence[str], height: int) -> np.ndarray:
    """The names in black on white, right-aligned, each in the middle of its part of `height`: [height, W, 1]."""
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


def _names_above_columns(names: Sequence[str], width: int) -> np.ndarray:
    """The names in black on white, each above the middle of its part of `width`: [H, width, 1].

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


def channels_side_by_side(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] as grey images [N, H, C W, 1], for channels that are no colours."""
    count, height, width, channels = images.shape
    return images.transpose(0, 1, 3, 2).reshape(count, height, channels * width, 1)


def shrink(images: np.ndarray, factor: int) -> np.ndarray:
    """uint8 [N, H, W, C] -> [N, ceil(H / factor), ceil(W / factor), C]: the rounded mean over squares.

    Squares that reach over the edge count the pixels inside.
    """
    if factor == 1:
        return images
    _, height, width, _ = images.shape
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    sums = np.add.reduceat(np.add.reduceat(images.astype(np.uint32), rows, axis=1), columns, axis=2)
    count = np.minimum(factor, height - rows)[:, None] * np.minimum(factor, width - columns)
    return ((sums + count[..., None] // 2) // count[..., None]).astype(np.uint8)


def as_image(picture: np.ndarray) -> Any:
    """A uint8 picture [H, W, 1 or 3] as a Pillow image, which a notebook shows where it ends a cell."""
    from PIL import Image

    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def save_png(path: Path, picture: np.ndarray, *, overwrite: bool = False) -> None:
    """Writes a uint8 picture [H, W, 1 or 3] as PNG, atomically. Raises FileExistsError rather than overwrite."""
    with atomic_path(Path(path), overwrite=overwrite) as temporary:
        as_image(picture).save(temporary, format="PNG")
