"""Grids of images as uint8 arrays, with names, and PNG files.

The same images give the same bytes. Pillow, for letters and files, is loaded when needed.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fmd.files import atomic_path
from fmd.pictures.letters import above_columns, beside_rows, writable
from fmd.types import Number

LONGEST_SIDE = 4096  # pixels of a picture; larger ones are shrunk
SAMPLES_SIDE = 2048  # pixels of a grid of samples
MOST_ROWS = 32  # classes in a grid of samples


class Rows(NamedTuple):
    """The classes that a grid of samples shows, row by row."""

    labels: np.ndarray  # int32 [rows * per_class]
    names: list[str]  # one per row


def choose_rows(classes: Sequence[int], class_names: Sequence[str] | None, per_class: int) -> Rows:
    """Rows for these classes, or for MOST_ROWS of them, evenly spread.

    Args:
        classes: their labels; one alone without names has no name.
        class_names: one per class, or None for their numbers.
        per_class: images in a row.
    """
    rows = np.array(classes, np.int32)[:: math.ceil(len(classes) / MOST_ROWS)]
    names = [class_names[i] if class_names else str(i) if len(classes) > 1 else "" for i in rows]
    return Rows(np.repeat(rows, per_class), writable(names, rows))


def draw_grid(images: np.ndarray, rows: Rows) -> np.ndarray:
    """The picture of samples uint8 [N, H, W, C] of `rows.labels`, a row per class: uint8 [.., .., 1 or 3]."""
    scale = max(1, 56 // images.shape[1])
    return labelled_grid(images, rows.names, scale=scale, longest_side=SAMPLES_SIDE)


def trajectory_strip(
    images: np.ndarray,
    times: Sequence[Number] | np.ndarray,
    names: Sequence[str] = (),
    *,
    scale: int = 1,
    longest_side: int = LONGEST_SIDE,
) -> np.ndarray:
    """From noise to data: a row per example, a column per time.

    Args:
        images: uint8 [times, rows, H, W, C], as `fmd.sampling.trajectory.trajectory` gives them.
        times: above the columns.
        names: of the rows, if wanted.
        scale, longest_side: as in `labelled_grid`.
    """
    return _columns(images, "t", times, names, scale, longest_side)


def guidance_sweep(
    images: np.ndarray,
    weights: Sequence[Number] | np.ndarray,
    names: Sequence[str] = (),
    *,
    scale: int = 1,
    longest_side: int = LONGEST_SIDE,
) -> np.ndarray:
    """The same noise under several guidance weights: a row per example, a column per weight.

    `images` are uint8 [weights, rows, H, W, C], as `fmd.sampling.trajectory.sweep` gives them; the other arguments are
    those of `trajectory_strip`.
    """
    return _columns(images, "w", weights, names, scale, longest_side)


def image_grid(
    images: np.ndarray, *, columns: int | None = None, gap: int = 2, scale: int = 1, longest_side: int = LONGEST_SIDE
) -> np.ndarray:
    """Images row by row on a white ground.

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
        count, height, width, channels = images.shape
        images = images.transpose(0, 1, 3, 2).reshape(count, height, channels * width, 1)
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
    """`image_grid` with names beside the rows and above the columns.

    Args:
        images: uint8 [N, H, W, C], N a multiple of the number of names, row by row.
        names: one per row; where all are empty they take no space. A name in a script that the font does not have is
            replaced by its number.
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
    names, column_names = writable(names), writable(column_names)
    left = beside_rows(names, len(grid)) if any(names) else np.empty((len(grid), 0, 1), np.uint8)
    top = above_columns(column_names, grid.shape[1]) if any(column_names) else np.empty((0, grid.shape[1], 1))
    picture = np.full((len(top) + len(grid), left.shape[1] + grid.shape[1], grid.shape[2]), 255, np.uint8)
    picture[: len(top), left.shape[1] :] = top
    picture[len(top) :, : left.shape[1]] = left
    picture[len(top) :, left.shape[1] :] = grid
    return picture


def _columns(
    images: np.ndarray,
    letter: str,
    values: Sequence[Number] | np.ndarray,
    names: Sequence[str],
    scale: int,
    longest_side: int,
) -> np.ndarray:
    """Images [columns, rows, H, W, C] with a number above each column, the first with its letter."""
    if images.ndim != 5 or len(images) != len(values) or len(names) not in (0, images.shape[1]):
        raise ValueError(
            f"a picture of {len(values)} columns and {len(names) or 'any number of'} rows takes images "
            f"[columns, rows, H, W, C], not {images.shape}"
        )
    above = [f"{letter} = {value:.3g}" if i == 0 else f"{value:.3g}" for i, value in enumerate(values)]
    rows = np.swapaxes(images, 0, 1).reshape(-1, *images.shape[2:])
    names = names or [""] * images.shape[1]
    return labelled_grid(rows, names, column_names=above, scale=scale, longest_side=longest_side)


def shrink(images: np.ndarray, factor: int) -> np.ndarray:
    """Smaller images: the rounded means over squares.

    uint8 [N, H, W, C] -> [N, ceil(H / factor), ceil(W / factor), C]. Squares that reach over the edge count the pixels
    inside.
    """
    if factor == 1:
        return images
    _, height, width, _ = images.shape
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    sums = np.add.reduceat(np.add.reduceat(images.astype(np.uint32), rows, axis=1), columns, axis=2)
    count = np.minimum(factor, height - rows)[:, None] * np.minimum(factor, width - columns)
    return np.asarray((sums + count[..., None] // 2) // count[..., None], np.uint8)


def as_image(picture: np.ndarray) -> Any:
    """A uint8 picture [H, W, 1 or 3] as a Pillow image, which a notebook shows where it ends a cell."""
    from PIL import Image

    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def save_png(path: Path, picture: np.ndarray, *, overwrite: bool = False) -> None:
    """Writes a uint8 picture [H, W, 1 or 3] as PNG.

    The file appears whole or not at all. Raises FileExistsError where it exists and is not to be overwritten.
    """
    with atomic_path(Path(path), overwrite=overwrite) as temporary:
        as_image(picture).save(temporary, format="PNG")
