"""The pieces of the UNet: resampling by folding, the residual block and attention.

fold(x, p) moves each p x p block of pixels into the channels and unfold undoes it. A resampling layer is one of them
and a matrix product, which is a strided convolution whose windows do not overlap: cheap on every device.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.models.group_norm import GroupNorm


def fold(x: Float[Array, "B H W C"], p: int) -> Float[Array, "B H//{p} W//{p} {p}*{p}*C"]:
    """Each p x p block of pixels into the channels; H and W must be multiples of p."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // p, p, w // p, p, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // p, w // p, p * p * c)


def unfold(x: Float[Array, "B H W D"], p: int) -> Float[Array, "B {p}*H {p}*W D//({p}*{p})"]:
    """The inverse of fold."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, p, p, c // (p * p))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * p, w * p, c // (p * p))


def per_pixel(layer: nn.Dense, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
    """The layer on each pixel's channels, as a product of two matrices.

    Given x as it is, XLA on a CPU copies x for the gradient of the weights.
    """
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], layer.features)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))), e))); the second convolution starts at zero, so the block is a skip.

    The barriers change no number. Without them XLA computes what several operations read (a block's input, and the sum
    of its gradients) anew inside each of these: a CPU's training step takes a tenth longer. Sampling gains nothing.
    """

    width: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], embedding: Float[Array, "B E"], train: bool
    ) -> Float[Array, "B H W {self.width}"]:
        once = jax.lax.optimization_barrier if train else lambda value: value
        x = once(x)
        h = nn.silu(GroupNorm(name="norm_1")(x))
        h = once(nn.Conv(self.width, (3, 3), dtype=self.dtype, name="conv_1")(h))
        condition = nn.Dense(2 * self.width, dtype=self.dtype, name="condition")(nn.silu(embedding))
        h = nn.silu(GroupNorm(name="norm_2")(h, condition))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        zeros = nn.initializers.zeros
        h = nn.Conv(self.width, (3, 3), dtype=self.dtype, kernel_init=zeros, name="conv_2")(h)
        if x.shape[-1] != self.width:
            x = per_pixel(nn.Dense(self.width, dtype=self.dtype, name="skip"), x)
        return x + h


class SelfAttention(nn.Module):
    """x + multi-head attention over all pixels; heads of about `head_dim` channels; the last layer starts at zero."""

    head_dim: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        b, h, w, c = x.shape
        heads = math.gcd(c, max(1, c // self.head_dim))
        layer = nn.Dense(3 * c, dtype=self.dtype, name="query_key_value")
        qkv = per_pixel(layer, GroupNorm(name="norm")(x))
        q, k, v = jnp.split(qkv.reshape(b, h * w, 3 * heads, c // heads), 3, axis=2)
        out = jax.nn.dot_product_attention(q, k, v).reshape(b, h, w, c)
        return x + per_pixel(nn.Dense(c, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out"), out)


class Downsample(nn.Module):
    """Half the height and width (both even): 2 x 2 pixels into the channels, then a linear map to `width`."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H//2 W//2 {self.width}"]:
        return per_pixel(nn.Dense(self.width, dtype=self.dtype, name="linear"), fold(x, 2))


class Upsample(nn.Module):
    """Twice the height and width: a linear map to 4 `width` channels, then these become 2 x 2 pixels."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W {self.width}"]:
        return unfold(per_pixel(nn.Dense(4 * self.width, dtype=self.dtype, name="linear"), x), 2)
