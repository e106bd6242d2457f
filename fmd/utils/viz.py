"""Pictures as plain uint8 arrays; Pillow only at the file boundary, imported when needed."""

import math
from pathlib import Path

import numpy as np

from fmd.utils.files import atomic_path


def image_grid(images: np.ndarray, *, columns: int | None = None, gap: int = 2, scale: int = 1) -> np.ndarray:
    """Arranges images row by row on a white ground.

    Args:
        images: uint8 [N, H, W, C] with C = 1 or 3.
        columns: images per row; the default, floor(sqrt(N)), makes a near-square grid.
        gap: white pixels between images, before scaling.
        scale: every pixel becomes a scale x scale square.

    Returns:
        uint8 [rows, columns] picture, [.., .., C].

    Raises:
        ValueError: for another dtype or shape, or no images.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images) or images.shape[-1] not in (1, 3):
        raise ValueError(f"a grid takes uint8 images [N, H, W, 1 or 3] with N > 0, not {images.dtype} {images.shape}")
    count, height, width, channels = images.shape
    columns = columns or max(1, math.isqrt(count))
    rows = -(-count // columns)
    cell_h, cell_w = height + gap, width + gap
    sheet = np.full((rows * cell_h + gap, columns * cell_w + gap, channels), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * cell_h, gap + (i % columns) * cell_w
        sheet[top : top + height, left : left + width] = image
    return sheet.repeat(scale, 0).repeat(scale, 1)


def save_png(path: Path, picture: np.ndarray, *, overwrite: bool = False) -> None:
    """Writes a uint8 picture [H, W, 1 or 3] as PNG, atomically. Raises FileExistsError rather than overwrite."""
    from PIL import Image

    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    with atomic_path(Path(path), overwrite=overwrite) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
