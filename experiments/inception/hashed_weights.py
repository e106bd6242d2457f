"""Weights and images for the comparison, the same everywhere: from a hash of the parameter's name and the index.

Weights keep the size of activations from layer to layer; batch-norm statistics are far from the initial 0 and 1.
"""

import math
import zlib

import numpy as np


def uniform(name, shape):
    """Numbers in [0, 1), float64; a shorter array begins as a longer one."""
    index = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)
    for factor in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93):  # odd, so that nothing is lost modulo 2^64
        index *= np.uint64(factor)
        index ^= index >> np.uint64(32)
    return (index.astype(np.float64) / 2.0**64).reshape(shape)


def parameter(name, shape):
    """The parameter `name` of the state dict, float32."""
    u = uniform(name, shape)
    if len(shape) > 1:
        value = (u - 0.5) * math.sqrt(12 * 2 / math.prod(shape[1:]))  # variance 2 / fan-in
    elif name.endswith((".running_var", ".bn.weight")):
        value = u + 0.5
    else:
        value = 0.6 * u - 0.3
    return value.astype(np.float32)


def images(count, shape):
    """`count` images of noise, uint8."""
    return (256 * uniform(f"images {shape}", (count, *shape))).astype(np.uint8)
