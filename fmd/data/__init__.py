"""Where images come from and how they become batches.

`load(source, **params)` gives an `ImageDataset` in memory; `order.batch_indices(seed, step, ...)` says which examples
make the batch of a step. The order is a pure function, so nothing about it needs saving.
"""

from fmd.data import digits, idx, mnist  # noqa: F401  (each import registers its sources)
from fmd.data.datasets import ImageDataset, Split, load, register_source, source_names
from fmd.data.order import batch_indices, dispatch_indices

__all__ = ["ImageDataset", "Split", "batch_indices", "dispatch_indices", "load", "register_source", "source_names"]
