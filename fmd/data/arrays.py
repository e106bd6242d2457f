"""Arrays as people have them, made those of a split: uint8 images [N, H, W, C], int32 labels, float32 vectors."""

from collections.abc import Iterator

import numpy as np
from absl import logging
from jaxtyping import UInt8

CHANNELS = (1, 2, 3, 4)


def as_images(images: np.ndarray, where: str, count: int | None = None) -> UInt8[np.ndarray, "N H W C"]:
    """Images uint8 [N, H, W, C] from the usual orders of axes. Truth values become 0 and 255.

    Args:
        images: bool or whole numbers from 0 to 255; [N, H, W], [N, H, W, C] or [N, C, H, W], or [H, W, C, N] where
            `count` says so.
        where: they came from, for messages.
        count: N, where it is known from the labels.

    Raises:
        ValueError: for other types and shapes.
    """
    low, high = (images.min(), images.max()) if images.size and images.dtype.kind in "iuf" else (0, 0)
    if images.dtype.kind in "iu" and 0 <= low <= high <= 255:
        images = images.astype(np.uint8)
    if images.dtype not in (np.uint8, np.bool_) or images.ndim not in (3, 4) or not images.size:
        hint = next((f"; {hint}" for fits, hint in _hints(images, float(low), float(high)) if fits), "")
        raise ValueError(
            f"images must be uint8 [N, H, W, C] or [N, H, W], got {images.dtype} {list(images.shape)}{hint}"
        )
    if images.dtype == np.bool_:
        images = images.astype(np.uint8) * np.uint8(255)
    if count is not None and count not in images.shape[:1] and count == images.shape[-1]:
        logging.warning("%s: the last axis of the images is taken for their number", where)
        images = np.moveaxis(images, -1, 0)
    if images.ndim == 3:
        return images[..., None]
    if images.shape[1] in CHANNELS and images.shape[3] not in CHANNELS:
        logging.warning("%s: the images have their channels in front, %s; they are moved back", where, images.shape[1:])
        return np.ascontiguousarray(np.moveaxis(images, 1, -1))
    return images


def _hints(images: np.ndarray, low: float, high: float) -> Iterator[tuple[bool, str]]:
    """Advice about arrays of a wrong kind: a test for it, and the words."""
    floats = images.dtype.kind == "f"
    yield floats and 0 <= low <= high <= 1, "of values in [0, 1] save np.round(255 * images).astype(np.uint8)"
    yield floats and -1 <= low <= high <= 1, "of values in [-1, 1] save np.round(127.5 * (images + 1)).astype(np.uint8)"
    yield floats and 0 <= low <= high <= 255, "save np.round(images).astype(np.uint8)"
    whole = images.dtype.kind in "iu" and images.dtype != np.uint8
    yield whole, f"its values run from {low:.0f} to {high:.0f}: bring them to 0 to 255 and save as uint8"
    yield images.ndim == 2 and images.size > 0, "give each image its height and width: images.reshape(N, H, W, C)"


def full_range(images: list[np.ndarray], where: str) -> list[np.ndarray]:
    """Images uint8 of the values 0 and 1 alone, as masks have them, made 0 and 255. Others stay as they are."""
    if images[0].dtype != np.uint8 or max(int(array.max()) for array in images) != 1:
        return images
    logging.warning("%s: the images have the values 0 and 1 alone; 1 is taken for white, 255", where)
    return [array * np.uint8(255) for array in images]


def as_labels(labels: np.ndarray) -> np.ndarray:
    """Whole numbers [N] or [N, 1] as int32 [N]. Other arrays stay as they are, for a split to refuse.

    Raises ValueError for numbers outside [0, 2^31 - 1).
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "f" and labels.ndim == 1 and (np.rint(labels) == labels).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iu" or not labels.size:
        return labels
    if not 0 <= int(labels.min()) <= int(labels.max()) < 2**31 - 1:
        raise ValueError(f"labels must count from 0, got {labels.min()} to {labels.max()}")
    return labels.astype(np.int32)


def as_part(values: np.ndarray) -> np.ndarray:
    """Whole numbers [N] as labels, 0 and 1 [N, K] as several labels, floats [N] or [N, ...] as vectors or images.

    The types are int32, uint8 and float32. Other arrays stay as they are.
    """
    if values.dtype.kind == "f":
        return values.astype(np.float32).reshape(len(values), *(values.shape[1:] or (1,)))
    if values.ndim == 2 and values.dtype.kind in "biu" and np.isin(values, (0, 1)).all():
        return values.astype(np.uint8)
    return as_labels(values) if values.ndim < 2 else values
