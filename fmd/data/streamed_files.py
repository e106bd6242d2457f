"""Image files that stay on disk, with all that is told of them, as a streamed set.

Test images are decoded to memory, as many as asked for, and say how the others are read. Nothing else is decoded ahead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from fmd.data import images
from fmd.data.assembly import Reader, Told, as_dataset, examples
from fmd.data.dataset import ImageDataset
from fmd.data.file_index import FileIndex
from fmd.data.layout import Found
from fmd.data.parts import as_kind
from fmd.data.reading import Unreadable
from fmd.data.split import condition, share_of_each, spread
from fmd.data.streaming import StreamedSplit
from fmd.files import printable


@dataclass(frozen=True, eq=False)
class FileDecoder:
    """A function from a row of an index to (image, y). Raises `Unreadable`, which names the file.

    `reading` is as of `examples`, and `told` as of `assemble`.
    """

    index: FileIndex
    reading: dict[str | None, Reader]
    told: Told

    def __call__(self, number: np.int64) -> tuple[np.ndarray, int | dict[str, Any]]:
        row = int(number)
        image = self._read(None, self.index.path(row))
        parts = {name: column.array[row] for name, column in self.told.values.items()}
        for name, paths in self.told.files.items():
            parts[name] = as_kind(self._read(name, paths[row])[None], name, self.told.wanted[name])[0]
        told = {name: parts[name] for name in self.told.wanted}
        return image, condition(int(self.index.labels[row]), told, bool(self.index.classes))

    def _read(self, name: str | None, path: Path) -> np.ndarray:
        try:
            return self.reading[name](path)
        except FileNotFoundError:
            raise ValueError(
                f"{printable(path)} is gone: put it back, or start again, which lists the folder anew"
            ) from None
        except Exception as error:  # whatever a plugin raises
            raise Unreadable(f"{printable(path)} cannot be read: {images.reason(error)}") from None


def stream_files(
    index: FileIndex, size: images.Size, channels: int | None, test_fraction: float, test_images: int, told: Told
) -> ImageDataset:
    """The set of an index, its training split streamed; arguments and errors as of the source `folder`."""
    if size is None:
        raise ValueError("folder: stream=True needs image_size, e.g. image_size=256: files are not looked at ahead")
    if not 0 < test_fraction < 1 or test_images < 1:
        raise ValueError(
            f"folder: test_fraction must lie between 0 and 1 and test_images be at least 1, got {test_fraction} and "
            f"{test_images}"
        )
    train, test = _split_rows(index, test_fraction, test_images)
    if len(train) + len(test) < len(index):
        given = printable(index.folder), len(test), len(index) - len(train)
        logging.info("folder %s: %d of %d test images are taken, evenly spread: test_images says how many", *given)
    found = Found(index.classes, [], index.listing(test), {})
    kept, _, reading = examples(index.folder, found, size, channels, told.take(test))
    streamed = StreamedSplit(
        train,
        kept.image_shape,
        decode=FileDecoder(index, reading, told),
        counts=np.bincount(index.labels[train], minlength=max(len(index.classes), 1)),
        identity=index.digest(train),
    )
    parts = kept.parts | {name: column.array[train] for name, column in told.values.items()}
    provenance = f"streamed from the image files in {printable(index.folder)}"
    return as_dataset(index.folder, index.classes, streamed, kept, parts, provenance, told)


def _split_rows(index: FileIndex, test_fraction: float, test_images: int) -> tuple[np.ndarray, Sequence[int]]:
    """The rows of the training split, and those of the test images that are kept."""
    count = len(index)
    train, test = np.arange(index.train), np.arange(index.train, count)
    if not len(test):
        mask = share_of_each(index.labels, min(test_fraction, test_images / count))
        train, test = np.flatnonzero(~mask), np.flatnonzero(mask)
    return train, test[spread(test_images, len(test))].tolist()
