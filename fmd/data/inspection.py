"""The classes of a data set with their counts, and doubts about its images."""

from collections.abc import Iterator

import numpy as np

from fmd.data.dataset import ImageDataset
from fmd.data.split import Split, spread
from fmd.data.streaming import StreamedSplit

LOOKED_AT = 10_000  # images of each split, evenly spread
DARK = 32  # a set whose values span less than this is almost black, or almost flat
SHOWN = 20  # classes; of more, the first and the last ones


def classes(dataset: ImageDataset) -> str:
    """The classes with names and counts, in one line. Empty without classes."""
    if not dataset.num_classes:
        return ""
    train, test = dataset.class_counts(), np.bincount(dataset.test.labels, minlength=dataset.num_classes)
    names = dataset.class_names or [""] * dataset.num_classes
    counts = test if train is None else [f"{one} + {other}" for one, other in zip(train, test, strict=True)]
    named = zip(names, counts, strict=True)
    lines = [f"{class_of(label, name)}: {count}" for label, (name, count) in enumerate(named)]
    if len(lines) > SHOWN:
        lines = [*lines[: SHOWN // 2], "...", *lines[-SHOWN // 4 :]]
    what = "test images" if train is None else "training + test images"
    return f"{dataset.num_classes} classes ({what}): {', '.join(lines)}"


def class_of(label: int, name: str) -> str:
    """A class as its number and name, or its number alone where the name says no more."""
    return f"{label} {name}" if name not in ("", str(label)) else str(label)


def doubts(dataset: ImageDataset) -> Iterator[str]:
    """Doubts, a line each: classes without images, images of one value, images that are almost black."""
    counts = dataset.class_counts()
    if counts is not None and dataset.num_classes and (counts == 0).any():
        empty = np.flatnonzero(counts == 0)
        yield (
            f"{len(empty)} of {dataset.num_classes} classes have no training images: {ranges(empty)}; "
            f"nothing can be learnt of them"
        )
    for name, split in (("training", dataset.train), ("test", dataset.test)):
        pixels = _looked_at(split)
        flat = pixels.reshape(len(pixels), -1)
        low, high = flat.min(1), flat.max(1)
        if constant := int((low == high).sum()):
            looked = "" if len(pixels) == len(split) else f" (of {len(split)}, the rest not looked at)"
            yield f"{constant} of {len(pixels)} {name} images{looked} are of one value, without any contrast"
        if int(high.max()) - int(low.min()) < DARK:
            yield f"the values of all {name} images lie in {low.min()} to {high.max()}, of 0 to 255: is that meant?"


def ranges(numbers: np.ndarray) -> str:
    """Sorted whole numbers as "0, 4 to 7, 9"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _looked_at(split: Split | StreamedSplit) -> np.ndarray:
    """Some images, uint8 [N, H, W, C]. Of a streamed split they are those of one size."""
    if isinstance(split, StreamedSplit):
        images = [image for image, _ in split.sample()]
        return np.stack([image for image in images if image.shape == images[0].shape])
    return split.images if len(split) <= LOOKED_AT else split.images[spread(LOOKED_AT, len(split))]
