"""The pixel scale: integers 0..255 in files, floats in [-1, 1] inside.

    to_unit      x = n / 127.5 - 1
    to_uint8     its inverse: rounded, and clipped where x is outside [-1, 1]
    dequantise   y = x + U, U uniform over one level: what a density of pixels is measured on

Bits per dimension. log p(y) of a density of y is in the mean a lower bound of log P(n) - d log(width), width the
distance between neighbouring levels, d the number of pixels and channels:

    bits/dim = -log p(y) / (d ln 2) - log2(width)

    y = (n + U - 1/2) / 127.5 - 1, this project's scale   width 2/255, -log2(width) = 6.99435
    y = 2 (n + U) / 256 - 1, much of the literature       width 2/256, -log2(width) = 7

Without dequantisation noise the number is no bound, and resized or padded images are no longer 8-bit.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from fmd.math.broadcasting import compute_dtype
from fmd.types import TypedKey

WIDTH = 2 / 255


def to_unit(pixels: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """float32 in [-1, 1] of uint8 in 0..255: `n / 127.5 - 1`."""
    return pixels.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(x: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """The nearest uint8 of floats, nominally in [-1, 1]; what lies outside is clipped."""
    return jnp.clip(jnp.round((x.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def dequantise(key: TypedKey, pixels: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """(n + U - 1/2) / 127.5 - 1 in float32, U uniform on [0, 1).

    The values fill [-1 - 1/255, 1 + 1/255) without gaps.
    """
    noise = jax.random.uniform(key, pixels.shape, jnp.float32) - 0.5
    return (pixels.astype(jnp.float32) + noise) / 127.5 - 1.0


def bits_per_dim(log_p: Float[Array, "..."], dimensions: int, width: float = WIDTH) -> Float[Array, "..."]:
    """-log_p / (dimensions ln 2) - log2(width), float32 or wider, for log_p in nats of a dequantised image.

    width is 2/255 on this project's scale. Raises ValueError where dimensions < 1 or width <= 0.
    """
    if dimensions < 1 or not width > 0:
        raise ValueError(f"dimensions={dimensions} must be at least 1 and width={width} positive")
    log_p = log_p.astype(compute_dtype(log_p.dtype))
    return -log_p / (dimensions * math.log(2)) - math.log2(width)
