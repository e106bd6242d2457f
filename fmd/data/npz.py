"""The source `npz`: one NumPy archive with `images` and, if there are any, `labels`; the form that sampling writes."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from fmd.data.datasets import ImageDataset, Split, register_source, split_off


@register_source("npz")
def load_npz(
    path: str, test_path: str | None = None, num_classes: int | None = None, test_fraction: float = 0.1
) -> ImageDataset:
    """`images` uint8 [N, H, W, C] or [N, H, W] and optional integer `labels` [N] in the archive `path`.

    Without labels num_classes is 0; with them it is the largest label plus one unless given. The test split is
    `test_path`, an archive of the same form, or `test_fraction` of each class. Raises FileNotFoundError for a missing
    file and ValueError for one that is damaged or of another form.
    """
    images, labels = read_archive(Path(path).expanduser())
    if test_path is None:
        parts = split_off(images, _or_zeros(labels, images), test_fraction)
    else:
        test_images, test_labels = read_archive(Path(test_path).expanduser())
        if (labels is None) != (test_labels is None):
            raise ValueError(f"of {path} and {test_path} only one has labels: give both or neither labels")
        parts = Split(images, _or_zeros(labels, images)), Split(test_images, _or_zeros(test_labels, test_images))
    if num_classes is None:
        num_classes = 0 if labels is None else int(max(part.labels.max() for part in parts)) + 1
    return ImageDataset(
        Path(path).stem, *parts, num_classes, f"from {path}" + (f" and {test_path}" if test_path else "")
    )


def read_archive(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """(images uint8 [N, H, W, C], labels int32 [N] or None) of an archive; what it raises is said by `load_npz`."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        # Without pickle an archive can hold nothing but plain arrays.
        with np.load(path, allow_pickle=False) as file:
            names = sorted(file.files)
            images = file["images"] if "images" in names else None
            labels = file["labels"] if "labels" in names else None
    except (AttributeError, TypeError, OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an .npz archive of plain arrays, or is damaged: {error}") from error
    if images is None:
        raise ValueError(f"{path} has no array 'images', only: {', '.join(names) or 'nothing'}")
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise ValueError(f"{path}: images must be uint8 [N, H, W, C] or [N, H, W], got {images.dtype} {images.shape}")
    if labels is not None:
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise ValueError(f"{path}: labels must be integers [{len(images)}], got {labels.dtype} {labels.shape}")
        if labels.min() < 0 or labels.max() >= 2**31 - 1:
            raise ValueError(f"{path}: labels must count from 0, got {labels.min()} to {labels.max()}")
        labels = labels.astype(np.int32)
    return images if images.ndim == 4 else images[..., None], labels


def _or_zeros(labels: np.ndarray | None, images: np.ndarray) -> np.ndarray:
    return np.zeros(len(images), np.int32) if labels is None else labels
