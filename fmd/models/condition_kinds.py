"""Kinds of condition beyond label and vector: several labels, a number, and what lies on the grid of the image.

    kind     value                                   how a network hears it
    labels   0 or 1, int [B, num_classes]            the sum of their rows of a table
    number   float [B, 1] from `low` to `high`       sines and two layers
    image    float or uint8 [B, h, w, channels]      as planes beside the image, resized to its grid
    mask     float [B, h, w, 1] in [0, 1]            the same, by the nearest pixel

Untold, the first two are a learned null vector. Planes are zero where the image is untold, and one more plane says
where it is told: an image of zeros is not the same as none.
"""

from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from fmd.models.conditions import Kind, Part, register_condition, told_part
from fmd.models.layers import FLAT, sinusoidal_embedding
from fmd.registry import Between
from fmd.types import Told

Size = Annotated[int, Between(1)]


@register_condition("labels")
class Labels(Kind):
    """Several labels at once: 1 for each class that is so, int [B, num_classes]."""

    num_classes: Size

    @nn.compact
    def __call__(
        self, value: Shaped[Array | np.ndarray, "B {self.num_classes}"] | Told
    ) -> Float[Array, "B {self.dim}"]:
        rows = nn.Dense(
            self.dim, use_bias=False, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02), name="table"
        )
        return self.or_null(value, lambda marks: rows(marks.astype(jnp.float32)))

    def example(self, batch: int) -> Int[Array, "B {self.num_classes}"]:
        """Zeros int32 [batch, num_classes]: no class is so."""
        return jnp.zeros((batch, self.num_classes), jnp.int32)

    def check(self, array: Shaped[Array | np.ndarray, "..."], name: str) -> None:
        """Raises ValueError, naming the part, for a wrong shape or dtype, or marks other than 0 and 1."""
        super().check(array, name)
        check_shares(array, name)


@register_condition("number")
class Number(Kind):
    """A number float [B, 1], usually from `low` to `high`; it may lie beyond."""

    low: float = 0.0
    high: float = 1.0

    @nn.compact
    def __call__(self, value: Float[Array | np.ndarray, "B 1"] | Told) -> Float[Array, "B {self.dim}"]:
        def embed(number: Float[Array, "B 1"]) -> Float[Array, "B E"]:
            share = (number[:, 0] - self.low) / (self.high - self.low)
            hidden = nn.Dense(self.dim, name="dense_1")(sinusoidal_embedding(share, self.dim, FLAT))
            zeros = nn.initializers.zeros
            last = nn.Dense(self.dim, dtype=self.dtype, kernel_init=zeros, name="dense_2")
            return last(nn.silu(hidden).astype(self.dtype))

        return self.or_null(value, embed)

    def example(self, batch: int) -> Float[Array, "B 1"]:
        """`low`, float32 [batch, 1]."""
        return jnp.full((batch, 1), self.low, jnp.float32)


@register_condition("image")
class Image(Kind):
    """An image float [B, height, width, channels] in [-1, 1], or uint8, of any size."""

    height: Size
    width: Size
    channels: Size

    on_grid = True
    resizing: Literal["linear", "nearest"] = "linear"

    def __call__(self, value: Shaped[Array | np.ndarray, "B h w c"] | Told) -> Float[Array, "B h w d"]:
        """Its planes [B, height, width, channels + 1], the last 1 where it is told."""
        value, told = told_part(value)
        pixels = value / jnp.float32(127.5) - 1 if value.dtype == jnp.uint8 else value
        shown = told[:, None, None, None]
        flag = jnp.broadcast_to(shown, (*pixels.shape[:3], 1)).astype(pixels.dtype)
        return jnp.concatenate([jnp.where(shown, pixels, jnp.zeros_like(pixels)), flag], axis=-1)

    def planes(self, value: Part, height: int, width: int) -> Float[Array, "B H W d"]:
        """Its planes on a grid of another size."""
        own = self(value)
        if own.shape[1:3] == (height, width):
            return own
        resized: Float[Array, "B H W d"] = jax.image.resize(
            own, (own.shape[0], height, width, own.shape[3]), self.resizing
        )
        return resized

    def example(self, batch: int) -> Float[Array, "B h w c"]:
        """Zeros float32 [batch, height, width, channels]."""
        return jnp.zeros((batch, self.height, self.width, self.channels))

    def check(self, array: Shaped[Array | np.ndarray, "..."], name: str) -> None:
        """Raises ValueError, naming the part, for a wrong shape or dtype."""
        super().check(array.astype(np.float32) if array.dtype == np.uint8 else array, name)


@register_condition("mask")
class Mask(Image):
    """Shares float [B, height, width, 1] in [0, 1], or uint8 of them times 255."""

    channels: Size = 1
    resizing: Literal["linear", "nearest"] = "nearest"

    def __call__(self, value: Shaped[Array | np.ndarray, "B h w c"] | Told) -> Float[Array, "B h w d"]:
        """Its planes [B, height, width, channels + 1], the last 1 where it is told."""
        value, told = told_part(value)
        return super().__call__(Told(value / jnp.float32(255) if value.dtype == jnp.uint8 else value, told))

    def check(self, array: Shaped[Array | np.ndarray, "..."], name: str) -> None:
        """Raises ValueError, naming the part, for a wrong shape or dtype, or floats outside [0, 1]."""
        super().check(array, name)
        if array.dtype != np.uint8:
            check_shares(array, name)


def check_shares(array: Shaped[Array | np.ndarray, "..."], name: str) -> None:
    """Raises ValueError, naming the part, for values outside [0, 1]; those of a traced array are not known."""
    if array.size and not isinstance(array, jax.core.Tracer):
        values = np.asarray(array)
        least, most = values.min(), values.max()
        if least < 0 or most > 1:
            raise ValueError(f"condition {name!r} must lie in [0, 1]; got {least if least < 0 else most}")
