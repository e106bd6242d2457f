"""Between the pixels of files (uint8, 0..255) and those of the mathematics (float32, [-1, 1])."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def to_unit(pixels: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """uint8 in 0..255 to float32 in [-1, 1]: `u / 127.5 - 1`."""
    return pixels.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(x: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """Floats, nominally in [-1, 1], to the nearest uint8; what lies outside is clipped. Inverse of `to_unit`."""
    return jnp.clip(jnp.round((x.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
