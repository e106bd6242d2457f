"""Where images come from and how they become batches.

`load(source, **params)` gives an `ImageDataset` in memory; `order.batch_indices(seed, step, ...)` says which examples
make the batch of a step, and `streaming.ImageStream` reads the same batches of a set that does not fit into memory.
The order is a pure function, so the only position to save is the number of the step.
"""

from fmd.data import digits, folder, idx, mnist, npz, tfds  # noqa: F401  (each import registers its sources)
from fmd.data.datasets import ImageDataset, Split, load, register_source, source_names
from fmd.data.order import batch_indices, dispatch_indices
from fmd.data.streaming import ImageStream, StreamedSplit

__all__ = [
    "ImageDataset",
    "ImageStream",
    "Split",
    "StreamedSplit",
    "batch_indices",
    "dispatch_indices",
    "load",
    "register_source",
    "source_names",
]
