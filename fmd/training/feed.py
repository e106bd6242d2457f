"""The batches of a run as host arrays, and the set that stays on the devices (`fmd.devices` places both)."""

import contextlib
import itertools
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging
from jaxtyping import PyTree

from fmd.config import Config
from fmd.data import ImageDataset, Split, StreamedSplit, dispatch_indices

RESIDENT_LIMIT = 2**30  # bytes of training images that go to the device by default


def resident_split(config: Config, dataset: ImageDataset) -> Split | None:
    """The training split if it is to live on the devices, where batches are then gathered; None if it is streamed.

    Raises ValueError for config.data.resident = True with a set that is read from disk as it goes.
    """
    split, wanted = dataset.train, config.data.resident
    if isinstance(split, StreamedSplit):
        if wanted:
            raise ValueError(
                "config.data.resident = True, but this set is streamed from disk; leave one of the two out"
            )
        return None
    return split if wanted or (wanted is None and split.images.nbytes < RESIDENT_LIMIT) else None


def as_streamed(split: Split | StreamedSplit) -> StreamedSplit:
    """A split in memory read like one on disk: by threads that gather batches while the device computes."""
    return split if isinstance(split, StreamedSplit) else StreamedSplit(split, split.image_shape)


def feed(config: Config, dataset: ImageDataset, start: int) -> Iterator[dict[str, PyTree]]:
    """Host arrays [steps, this process's part of the batch, ...] for each dispatch from step `start` on."""
    steps, batch = config.train.steps_per_dispatch, config.train.batch_size
    local = batch // jax.process_count()
    mine = slice(jax.process_index() * local, (jax.process_index() + 1) * local)
    index = np.broadcast_to(np.arange(batch, dtype=np.int32), (steps, batch))[:, mine]
    dispatches = range(start, config.train.num_steps, steps)
    streams = isinstance(dataset.train, StreamedSplit)
    if config.data.workers and not streams:
        logging.warning("data.workers=%d has no effect: %s is in memory", config.data.workers, config.data.source)
    if resident_split(config, dataset) is None:
        streamed = as_streamed(dataset.train).stream(
            workers=config.data.workers if streams else 0,
            batch_size=batch,
            seed=config.seed,
            step=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        with contextlib.closing(streamed):
            for _ in dispatches:
                parts = list(itertools.islice(streamed, steps))
                x, y = jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
                yield {"index": index, "x": x, "y": y}
        return
    for step in dispatches:
        rows = dispatch_indices(config.seed, step, steps, batch, len(dataset.train))[:, mine]
        yield {"index": index, "rows": rows}
