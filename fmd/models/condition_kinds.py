"""Kinds of condition: how a network is told a label, several, a number, a vector, an image or a mask.

    kind     value                               untold                    how a network hears it
    label    int [B]                             the null label            a row of a table
    labels   0 or 1, int [B, num_classes]        a learned null vector     the sum of their rows of a table
    number   float [B, 1] from `low` to `high`   a learned null vector     sines and two layers
    vector   float [B, size]                     a learned null vector     two layers
    image    float or uint8 [B, h, w, channels]  zeros                     planes beside x, resized to its grid
    mask     float [B, h, w, 1] in [0, 1]        zeros                     the same, by the nearest pixel

But for labels, a value that is not told is `Told(value, told)` with told False. An image of zeros is not an untold one:
one more plane is 1 where it is told.

Your own kind is a class in your own file, with an `example` and a `__call__` that embeds:

    @register_condition("angle")
    class Angle(Kind):
        @nn.compact
        def __call__(self, value):                                       # [B] or Told -> [B, dim]
            return self.or_null(value, lambda degrees: nn.Dense(self.dim)(waves(degrees)))

        def example(self, batch):
            return jnp.zeros(batch)
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree, Shaped

from fmd.models.layers import FLAT, sinusoidal_embedding
from fmd.registry import Between, Registry
from fmd.types import Mask as Rows
from fmd.types import Told

Size = Annotated[int, Between(1)]

Part: TypeAlias = PyTree
"""A part of a condition: an array [B, ...], or `Told(array, mask)`."""


class Kind(nn.Module):
    """A kind of condition.

    Its fields are the entries of its spec, beside the width `dim` and the `dtype` of the embedding.
    """

    dim: int
    dtype: DTypeLike

    on_grid = False  # True for a kind that has `planes` in the place of an embedding
    null_rows = 0  # rows behind those of the classes, in the table of a kind that has `num_classes`

    def __call__(self, value: Part) -> Float[Array, "B {self.dim}"]:
        """The embedding [B, dim] of a part, in `dtype`."""
        raise NotImplementedError(f"{type(self).__name__} embeds no part: define __call__, or on_grid and planes")

    def example(self, batch: int) -> Shaped[Array, "B ..."]:
        """A value of the shape and dtype that the kind takes."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it takes: define example")

    def planes(self, value: Part, height: int, width: int) -> Float[Array, "B H W d"]:
        """The planes [B, height, width, d] of a part, made without parameters."""
        raise NotImplementedError(f"{type(self).__name__} is on_grid and has no planes: define them")

    def untold(self, value: Part, mask: Rows) -> Part:
        """`value` untold where mask [B] is True."""
        value, told = told_part(value)
        return Told(value, told & ~mask)

    def check(self, array: Shaped[Array | np.ndarray, "..."], name: str) -> None:
        """Raises ValueError, naming the part, for a wrong shape or dtype."""
        wanted = self.example(1)
        number = np.integer if jnp.issubdtype(wanted.dtype, np.integer) else np.floating
        fits = array.ndim == wanted.ndim and array.shape[1:] == wanted.shape[1:]
        if not (fits and jnp.issubdtype(array.dtype, number)):
            shape = ", ".join(map(str, ("B", *wanted.shape[1:])))
            words = "integers" if number is np.integer else "floats"
            raise ValueError(f"condition {name!r} must be {words} [{shape}], got {array.dtype}{list(array.shape)}")

    def or_null(self, value: Part, embed: Callable[[Array], Array]) -> Float[Array, "B {self.dim}"]:
        """embed(value) where it is told, a learned vector elsewhere.

        For use in `__call__`. A value that is not told is replaced by zeros first: it may be anything, and no gradient
        comes from it.
        """
        value, told = told_part(value)
        null = self.param("null", nn.initializers.normal(0.02), (self.dim,))
        shown = told.reshape(-1, *[1] * (value.ndim - 1))
        embedding = embed(jnp.where(shown, value, jnp.zeros_like(value)))
        return jnp.where(told[:, None], embedding.astype(self.dtype), null[None, :].astype(self.dtype))


KINDS: Registry[Kind] = Registry("kind of condition")
register_condition = KINDS.register


@register_condition("label")
class Label(Kind):
    """Labels int [B] in [0, num_classes], each a row of a table.

    num_classes is the null label. Other labels give NaN.
    """

    num_classes: int

    null_rows = 1

    @nn.compact
    def __call__(self, value: Int[Array, " B"]) -> Float[Array, "B {self.dim}"]:
        table = nn.Embed(self.num_classes + 1, self.dim, embedding_init=nn.initializers.normal(0.02), name="table")
        return table(value).astype(self.dtype)

    def example(self, batch: int) -> Int[Array, " B"]:
        """Zeros int32 [batch]."""
        return jnp.zeros(batch, jnp.int32)

    def untold(self, value: Int[Array | np.ndarray, " B"], mask: Rows) -> Int[Array, " B"]:
        """The null label where mask is True."""
        return jnp.where(mask, self.num_classes, value)

    def check(self, array: Shaped[Array | np.ndarray, "..."], name: str) -> None:
        """Raises ValueError, naming the part, for a wrong shape or dtype, or a label out of range."""
        super().check(array, name)
        if (wrong := outside(array, 0, self.num_classes)) is not None:
            raise ValueError(
                f"condition {name!r} must lie in [0, {self.num_classes}], where {self.num_classes} is the null label; "
                f"got {wrong}"
            )


@register_condition("vector")
class Vector(Kind):
    """Vectors float [B, size], embedded by two layers.

    The last layer starts at zero.
    """

    size: int

    @nn.compact
    def __call__(self, value: Float[Array, "B {self.size}"] | Told) -> Float[Array, "B {self.dim}"]:
        def embed(vector: Float[Array, "B C"]) -> Float[Array, "B E"]:
            hidden = nn.silu(nn.Dense(self.dim, dtype=self.dtype, name="dense_1")(vector))
            return nn.Dense(self.dim, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="dense_2")(hidden)

        return self.or_null(value, embed)

    def example(self, batch: int) -> Float[Array, "B {self.size}"]:
        """Zeros float32 [batch, size]."""
        return jnp.zeros((batch, self.size))


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

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"kind of condition 'number': low = {self.low}, high = {self.high}; low must be less")
        super().__post_init__()

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

    def planes(self, value: Part, height: int, width: int) -> Float[Array, "B H W d"]:
        """The image [B, height, width, channels], and a plane that is 1 where it is told."""
        value, told = told_part(value)
        shown = told[:, None, None, None]
        pixels = jnp.where(shown, self.scaled(value), 0.0)
        flag = jnp.broadcast_to(shown, (*pixels.shape[:3], 1)).astype(pixels.dtype)
        own = jnp.concatenate([pixels, flag], axis=-1)
        if own.shape[1:3] == (height, width):
            return own
        resized: Float[Array, "B H W d"] = jax.image.resize(
            own, (own.shape[0], height, width, own.shape[3]), self.resizing
        )
        return resized

    def scaled(self, value: Shaped[Array | np.ndarray, "B h w c"]) -> Float[Array | np.ndarray, "B h w c"]:
        """The value as floats in the range of the kind."""
        return value / jnp.float32(127.5) - 1 if value.dtype == jnp.uint8 else value

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

    def scaled(self, value: Shaped[Array | np.ndarray, "B h w c"]) -> Float[Array | np.ndarray, "B h w c"]:
        """The value as shares."""
        return value / jnp.float32(255) if value.dtype == jnp.uint8 else value

    def check(self, array: Shaped[Array | np.ndarray, "..."], name: str) -> None:
        """Raises ValueError, naming the part, for a wrong shape or dtype, or floats outside [0, 1]."""
        super().check(array, name)
        if array.dtype != np.uint8:
            check_shares(array, name)


def told_part(value: Part) -> Told:
    """A part with its marks; everywhere told where it has none."""
    return value if isinstance(value, Told) else Told(value, jnp.ones(value.shape[0], bool))


def outside(array: Shaped[Array | np.ndarray, "..."], low: int, high: int) -> Any:
    """A value outside [low, high], None where there is none; the values of a traced array are not known."""
    if not array.size or isinstance(array, jax.core.Tracer):
        return None
    values = np.asarray(array)
    return next((value for value in (values.min(), values.max()) if not low <= value <= high), None)


def check_shares(array: Shaped[Array | np.ndarray, "..."], name: str) -> None:
    """Raises ValueError, naming the part, for values outside [0, 1]."""
    if (wrong := outside(array, 0, 1)) is not None:
        raise ValueError(f"condition {name!r} must lie in [0, 1]; got {wrong}")
