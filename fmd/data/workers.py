"""Batches of consecutive steps read by processes, in order.

A process does not import JAX. It puts the images of a batch into shared memory, and the rest goes through a pipe.
"""

import contextlib
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from fmd.data.ahead import Ahead
from fmd.data.reading import Batch, Read
from fmd.data.split import Parts
from fmd.extras import need

SHARED_MEMORY = Path("/dev/shm")
AHEAD = 2  # batches that are under way or wait for each process


class Shared(NamedTuple):
    """A batch whose images [b, H, W, C] lie in a block of shared memory."""

    block: str
    shape: tuple[int, ...]
    y: np.ndarray | Parts


Handed: TypeAlias = "Shared | str"
"""A batch, or the line that says why there is none."""


class Workers:
    """An iterator of the batches of `step`, `step + 1`, ..., read by `count` processes.

    Raises, from `next`, ValueError with the line of whatever `read` raises, and RuntimeError where a process was ended.
    """

    def __init__(self, read: Read, step: int, count: int) -> None:
        pickled = need("cloudpickle", "stream").dumps(read)
        # Not as an argument: Python waits for ever where a process ends before it has read a long one.
        self._given = SharedMemory(create=True, size=len(pickled))
        np.ndarray(len(pickled), np.uint8, self._given.buf)[:] = np.frombuffer(pickled, np.uint8)
        pool = ProcessPoolExecutor(
            count, multiprocessing.get_context("spawn"), initializer=_start, initargs=(self._given.name,)
        )
        self._batches = Ahead(pool, _batch, step, AHEAD * count)

    def __next__(self) -> Batch:
        try:
            handed = next(self._batches)
        except BrokenProcessPool:
            raise RuntimeError(
                "a worker process was ended, perhaps for want of memory: take fewer with config.data.workers; a script "
                "of your own must begin what it does under `if __name__ == '__main__':`"
            ) from None
        if isinstance(handed, str):
            raise ValueError(handed)
        return _taken(handed), handed.y

    def close(self) -> None:
        """Ends the processes, and frees the memory of what was read ahead."""
        for handed in self._batches.close():
            if isinstance(handed, Shared):
                _taken(handed)
        with contextlib.suppress(FileNotFoundError):  # closed twice
            self._given.close()
            self._given.unlink()


def need_shared_memory(size: int) -> None:
    """Raises ValueError where `size` bytes do not fit into the shared memory of this machine."""
    if size and SHARED_MEMORY.is_dir() and size > (free := shutil.disk_usage(SHARED_MEMORY).free):
        raise ValueError(
            f"config.data.workers: {size / 1e9:.2g} GB of batches wait in {SHARED_MEMORY}, which has {free / 1e9:.2g} "
            f"GB: make it larger (docker run --shm-size), take fewer workers, or 0 for threads"
        )


def _taken(handed: Shared) -> np.ndarray:
    """A copy of the images; their block is freed."""
    block = SharedMemory(handed.block)
    images = np.ndarray(handed.shape, np.uint8, block.buf).copy()
    block.close()
    block.unlink()
    return images


_read: Read  # of a worker process


def _start(block: str) -> None:
    """Begins a process: it leaves a Ctrl-C to its parent, and ends when that ends, however it ends."""
    global _read
    given = SharedMemory(block)
    _read = pickle.loads(np.ndarray(given.size, np.uint8, given.buf).tobytes())
    given.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _batch(step: int) -> Handed:
    try:
        images, y = _read(step)
    except (ValueError, OSError) as error:
        return str(error)
    block = SharedMemory(create=True, size=images.nbytes)
    np.ndarray(images.shape, np.uint8, block.buf)[:] = images
    block.close()
    return Shared(block.name, images.shape, y)
