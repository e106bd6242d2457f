"""From examples of a source to batches: reading, decoding, fitting, checking.

`Read` is a pure function from a step to a batch, so any thread or process can call it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from absl import logging

from fmd.data import images
from fmd.data.arrays import as_labels, as_part
from fmd.data.order import example_indices
from fmd.data.split import Parts, Split

Batch = tuple[np.ndarray, np.ndarray | Parts]
Example = Any  # whatever a source holds; `decode` makes it (image, y)
Decode = Callable[[Example], tuple[np.ndarray, Any]]


class Unreadable(ValueError):
    """An example that cannot be decoded; in a stream the next one stands in for it."""


@runtime_checkable
class RandomAccess(Protocol):
    """Examples by index: any sequence, a TFDS data source, array_record's."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Example: ...


def image_and_label(example: Example) -> tuple[np.ndarray, Any]:
    """(image, y) of an example.

    The example is a pair, or a dictionary with `image` and `label` (0 if it has none). `y` is a label, or a dictionary
    of named parts.
    """
    if isinstance(example, dict):
        return example["image"], example.get("label", 0)
    image, y = example
    return image, y


def read(source: RandomAccess, wanted: list[int]) -> Sequence[Example]:
    """The examples at some indices, all at once where the source can."""
    read_all: Callable[[list[int]], Sequence[Example]] | None = getattr(source, "__getitems__", None)
    return read_all(wanted) if read_all else [source[index] for index in wanted]


def decoded(source: RandomAccess, decode: Decode, index: int, example: Example) -> tuple[np.ndarray, Any]:
    """(image, y) of an example; of the next one that can be decoded where it cannot."""
    for further in range(1, len(source) + 1):
        try:
            return decode(example)
        except Unreadable as error:
            logging.warning("%s; the next image stands in for it", error)
            example = read(source, [(index + further) % len(source)])[0]
    raise ValueError(f"none of the {len(source)} examples can be decoded")


@dataclass(frozen=True)
class Read:
    """A function from a step to this host's rows of its batch."""

    source: RandomAccess
    decode: Decode
    seed: int
    batch_size: int
    host: int
    local: int
    size: tuple[int, int] | None
    limits: dict[str, int]

    def __call__(self, step: int) -> Batch:
        first = step * self.batch_size + self.host * self.local
        wanted = example_indices(self.seed, first, self.local, len(self.source)).tolist()
        found = zip(wanted, read(self.source, wanted), strict=True)
        examples = (decoded(self.source, self.decode, *one) for one in found)
        return as_batch(examples, self.local, self.size, self.limits)


def as_batch(
    examples: Iterable[tuple[np.ndarray, Any]],
    count: int,
    size: tuple[int, int] | None = None,
    limits: Mapping[str, int] = MappingProxyType({}),
) -> Batch:
    """`count` examples as a batch; each goes to its place at once, so that its memory serves the next one."""
    pixels, conditions = np.empty(0, np.uint8), []
    for row, (image, told) in enumerate(examples):
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(f"the source must give uint8 images [H, W, C], got {image.dtype} {list(image.shape)}")
        fitted = images.fit_array(image, size)
        if row == 0:
            pixels = np.empty((count, *fitted.shape), np.uint8)
        if fitted.shape != pixels.shape[1:]:
            shapes = sorted({fitted.shape, pixels.shape[1:]})
            raise ValueError(f"images of different shapes in one batch ({shapes}, ...): set image_size")
        pixels[row] = fitted
        conditions.append(told)
    if isinstance(conditions[0], dict):
        y: np.ndarray | Parts = {name: as_part(np.stack([c[name] for c in conditions])) for name in conditions[0]}
    else:
        y = as_labels(np.array(conditions))
    batch = Split(pixels, y)
    for name, limit in limits.items():
        if (worst := int(batch.parts[name].max())) >= limit:
            raise ValueError(f"the source gives the {name} {worst}, but there are {limit}: 0 to {limit - 1}")
    return batch.images, batch.y
