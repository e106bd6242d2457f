"""Samples that repeat training images: how far samples are from them, beside real images that were not trained on."""

import numpy as np
from jaxtyping import Int64, UInt8

from fmd.data import ImageDataset, StreamedSplit, batch_indices
from fmd.evaluation.metrics import squared_distances

Images = UInt8[np.ndarray, "N H W C"]
Others = UInt8[np.ndarray, "M H W C"]

AMONG = 1000  # samples, and test images, whose nearest training image is looked up
QUANTILE = 0.01
BYTES = 2**26  # of images held as float32
ROWS = 10_000  # of them at most


def copies(images: Images, dataset: ImageDataset, *, among: int = AMONG) -> dict[str, float | None]:
    """Shares of samples and of test images that are near a training image, by squared pixel distance.

    Args:
        images: samples; up to `among` of them, in a fixed shuffle, are looked up.
        dataset: real images. Nothing is said of a training split that is streamed from disk.
        among: samples, and test images, that are looked up.

    Returns:
        {"copied", "copied_of_real", "nearest_ratio"}. `copied` is the share of samples at most as far from their
        training image as the nearest 1 % of the test images are from theirs, and `copied_of_real` that of the test
        images: 0.01, or more where several are equally far, as twins of training images are. A model as good as the
        data has copied = copied_of_real, one that repeats its training images 1. `nearest_ratio` is the median
        distance of samples over that of test images.
    """
    if isinstance(dataset.train, StreamedSplit):
        return {}
    train = dataset.train.images
    of_test, of_samples = (
        nearest_squares(some[batch_indices(0, 0, min(among, len(some)), len(some))], train)
        for some in (dataset.test.images, images)
    )
    limit, middle = np.quantile(of_test, QUANTILE), np.median(of_test)
    return {
        "copied": float((of_samples <= limit).mean()),
        "copied_of_real": float((of_test <= limit).mean()),
        "nearest_ratio": float(np.sqrt(np.median(of_samples) / middle)) if middle else None,
    }


def nearest_squares(some: Images, among: Others, *, at_once: int = BYTES) -> Int64[np.ndarray, " N"]:
    """The squared distance of each image to the nearest of `among`, a whole number.

    The nearest is found in float32, `at_once` bytes at a time; its distance is computed exactly, so that equal images
    have distance 0.
    """
    some, among = (images.reshape(len(images), -1) for images in (some, among))
    rows = max(1, min(ROWS, at_once // (4 * some.shape[1])))
    found = np.full(len(some), np.iinfo(np.int64).max)
    for first in range(0, len(some), rows):
        mine, nearest = some[first : first + rows], found[first : first + rows]
        for start in range(0, len(among), rows):
            others = among[start : start + rows]
            for part, squares in squared_distances(mine.astype(np.float32), others.astype(np.float32)):
                pairs = zip(mine[part], others[squares.argmin(axis=1)], strict=True)
                exact = [np.square(a.astype(np.int64) - b).sum() for a, b in pairs]
                nearest[part] = np.minimum(nearest[part], exact)
    return found
