"""The order of the examples: a pure function of (seed, step), so that a resumed run sees what an unbroken one sees.

Global example g = step * batch_size + i is the one at position g % size of the permutation of epoch g // size. Batches
therefore cross epoch borders, no example is left out or padded, and each is used exactly once per epoch.

The permutation of epoch e sorts the raw words of the Philox counter generator with key (seed, e). NumPy guarantees
the raw words of a bit generator for ever and on every platform; it gives no such promise for `Generator.permutation`
or `shuffle`, whose algorithm may change between versions. The low bits of each word are replaced by the example's
index, so no two words are equal and the result does not depend on which sorting algorithm NumPy picks.

Cost for ImageNet's 1.28 million examples on one core: 25 to 65 ms per epoch (AVX-512 sort; about 0.1 s without) and
10 MB while it runs; a batch of 256 then takes 0.02 ms.
"""

from __future__ import annotations

import functools
import threading

import numpy as np
from jaxtyping import Int32

_lock = threading.Lock()  # several reader threads reach an epoch border at the same time: one of them computes


def batch_indices(seed: int, step: int, batch_size: int, size: int) -> Int32[np.ndarray, " batch_size"]:
    """Indices into a set of `size` examples for the batch of one step. Raises ValueError as `example_indices` does."""
    return example_indices(seed, step * batch_size, batch_size, size)


def dispatch_indices(
    seed: int, step: int, steps: int, batch_size: int, size: int
) -> Int32[np.ndarray, "steps batch_size"]:
    """Indices for `steps` consecutive steps beginning at `step`: row k is `batch_indices(seed, step + k, ...)`."""
    return example_indices(seed, step * batch_size, steps * batch_size, size).reshape(steps, batch_size)


def example_indices(seed: int, start: int, count: int, size: int) -> Int32[np.ndarray, " count"]:
    """Indices for the global examples start, ..., start + count - 1 of a set of `size` examples.

    Raises ValueError where size is not in [1, 2^31), start or count is negative, or seed is not in [0, 2^64).
    """
    if not 0 < size < 2**31:
        raise ValueError(f"the size of a data set must lie in [1, 2^31), got {size}")
    if start < 0 or count < 0:
        raise ValueError(f"step and batch size must not be negative, got first example {start} and count {count}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"the seed of the order must lie in [0, 2^64), got {seed}")
    pieces = [np.empty(0, np.int32)]
    for epoch in range(start // size, -(-(start + count) // size)):
        first, last = max(start - epoch * size, 0), min(start + count - epoch * size, size)
        with _lock:
            pieces.append(permutation(seed, epoch, size)[first:last])
    return np.concatenate(pieces)


# A batch touches at most two epochs unless it is larger than the set, so the two latest permutations are kept.
@functools.lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, size: int) -> Int32[np.ndarray, " size"]:
    """The order of one epoch (read-only, cached)."""
    index_bits = np.uint64((size - 1).bit_length())
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(size)
    words = (words >> index_bits << index_bits) | np.arange(size, dtype=np.uint64)
    words.sort()
    order = (words & ((np.uint64(1) << index_bits) - np.uint64(1))).astype(np.int32)
    order.flags.writeable = False
    return order
