"""Where images come from and how they become batches.

`load(source, **params)` gives an `ImageDataset`; `order.batch_indices(seed, step, ...)` gives the examples of a batch,
and `streaming.ImageStream` reads the same batches of a set that does not fit into memory. The order is a pure function
of seed and step, so the only position to save is the number of the step.
"""

from fmd.data.dataset import ImageDataset
from fmd.data.order import batch_indices, dispatch_indices
from fmd.data.sources import SOURCES, load, register_source, source_names
from fmd.data.split import Split
from fmd.data.streaming import ImageStream, StreamedSplit

__all__ = [
    "SOURCES",
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
