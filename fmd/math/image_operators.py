"""Operators of images [..., H, W, C]: parts hidden, pixels averaged, left out or blurred, colours mixed.

They are made by name, `operators.get("blur", std=2.0)`: see `fmd.math.operators`. Every transpose and pseudo-inverse
is in closed form.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from fmd.math.broadcasting import Positive, compute_dtype
from fmd.math.operators import Operator, Shape, register
from fmd.registry import Between
from fmd.types import Number

Values = Float[Array, "..."]
Factor = Annotated[int, Between(1)]
REGIONS = ("lower_half", "upper_half", "left_half", "right_half", "centre")
REC_601 = (0.299, 0.587, 0.114)


@register("mask")
def mask(
    mask: Shaped[Array, "..."] | Shaped[np.ndarray, "..."] | None = None,
    hidden: Literal["lower_half", "upper_half", "left_half", "right_half", "centre"] | None = None,
    share: Annotated[Number, Between(0.0, 1.0, open_low=True, open_high=True)] = 0.5,
) -> Operator:
    """x where `mask` (0 or 1) is 1, else 0: inpainting.

    A mask [H, W] is that of images [..., H, W, C]; any other is broadcast against the last axes of x. Or
    the name of a `hidden` region of images: a half, or a box in the centre whose sides are `share` of the image's.
    """
    if (mask is None) == (hidden is None):
        raise ValueError(f"operator 'mask' needs either mask, an array of 0 and 1, or hidden, one of {REGIONS}")
    if mask is not None and not np.isin(np.asarray(mask), (0, 1)).all():
        raise ValueError("operator 'mask': mask holds other values than 0 and 1; 1 is where a pixel is seen")

    given = None if mask is None else np.asarray(mask)
    made_with = (hidden, share) if given is None else (given.shape, given.astype(bool).tobytes())

    def seen(x: Values) -> Values:
        values = _region(x.shape, hidden, share) if given is None else given
        values = values[..., None] if values.ndim == 2 and x.ndim > 2 else values
        if values.ndim > x.ndim or any(
            n not in (1, m) for n, m in zip(values.shape[::-1], x.shape[::-1], strict=False)
        ):
            raise ValueError(f"operator 'mask': a mask {values.shape} does not fit images {x.shape}")
        return x * jnp.asarray(values, x.dtype).reshape((1,) * (x.ndim - values.ndim) + values.shape)

    return Operator("mask", seen, seen, seen, params=made_with)


@register("block_average")
def block_average(factor: Factor) -> Operator:
    """Means of factor x factor pixels: super-resolution."""

    def average(x: Values) -> Values:
        *batch, height, width, channels = _divisible("block_average", x, factor)
        blocks = x.reshape(*batch, height // factor, factor, width // factor, factor, channels)
        return blocks.mean(axis=(-4, -2))

    def repeat(y: Values) -> Values:
        return jnp.repeat(jnp.repeat(y, factor, axis=-3), factor, axis=-2)

    return Operator("block_average", average, lambda y: repeat(y) / factor**2, repeat, params=(factor,))


@register("subsample")
def subsample(factor: Factor) -> Operator:
    """Each factor-th pixel of each factor-th row."""

    def take(x: Values) -> Values:
        _divisible("subsample", x, factor)
        return x[..., ::factor, ::factor, :]

    def spread(y: Values) -> Values:
        between = [(0, 0, 0)] * (y.ndim - 3) + [(0, factor - 1, factor - 1)] * 2 + [(0, 0, 0)]
        return jax.lax.pad(y, jnp.zeros((), y.dtype), between)

    return Operator("subsample", take, spread, spread, params=(factor,))


@register("blur")
def blur(std: Positive, cutoff: Annotated[Number, Between(0.0, 1.0, True, True)] = 1e-4) -> Operator:
    """Convolution with a Gaussian of `std` pixels, the image mirrored at its edges.

    It is one symmetric matrix for the rows and one for the columns. The pseudo-inverse takes what they damp below
    `cutoff` as lost: inverting it would amplify rounding.
    """

    def both(x: Values, of: Callable[[int], np.ndarray]) -> Values:
        _divisible("blur", x, 1)
        rows, columns = (jnp.asarray(of(n), x.dtype) for n in x.shape[-3:-1])
        return jnp.einsum("ih,...hwc,jw->...ijc", rows, x, columns, precision=jax.lax.Precision.HIGHEST)

    def forward(x: Values) -> Values:
        return both(x, lambda n: blur_matrix(n, std))

    def inverse(y: Values) -> Values:
        return both(y, lambda n: np.linalg.pinv(blur_matrix(n, std), rcond=cutoff, hermitian=True))

    return Operator("blur", forward, forward, inverse, params=(std, cutoff))


def blur_matrix(size: int, std: Number) -> Float[np.ndarray, "N N"]:
    """The Gaussian blur of a line of pixels that is mirrored at both ends: symmetric, its rows sum to 1. float64."""
    reach = math.ceil(8 * std / (2 * size)) + 1
    i, j = np.arange(size)[:, None], np.arange(size)[None, :]
    images = np.arange(-reach, reach + 1)[:, None, None] * 2 * size
    weights = sum(np.exp(-(((d + images) / std) ** 2) / 2).sum(0) for d in (i - j, i + j + 1))
    matrix: np.ndarray = weights / weights.sum(1)[0]
    return matrix


@register("grey")
def grey(weights: tuple[float, ...] = REC_601) -> Operator:
    """The weighted mean of the channels, one channel: colourisation. By default the brightness of Rec. 601."""
    vector = np.asarray(weights, np.float64)
    if not vector.size or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(f"operator 'grey': weights = {weights}; it needs one finite number a channel, not all 0")

    def mean(x: Values) -> Values:
        if x.shape[-1] != len(vector):
            raise ValueError(f"operator 'grey' weighs {len(vector)} channels; the images are {x.shape}")
        return (x * _last(vector, x)).sum(axis=-1, keepdims=True)

    def spread(y: Values) -> Values:
        return y * _last(vector, y)

    return Operator("grey", mean, spread, lambda y: y * _last(vector / (vector @ vector), y), params=tuple(weights))


def _last(vector: np.ndarray, x: Values) -> Float[Array, "..."]:
    """A vector along the last axis, shaped and typed for x."""
    return jnp.asarray(vector, compute_dtype(x.dtype)).astype(x.dtype).reshape((1,) * (x.ndim - 1) + vector.shape)


def _divisible(name: str, x: Values, factor: int) -> Shape:
    """The shape of x. ValueError where it is no image whose height and width `factor` divides."""
    if x.ndim < 3 or x.shape[-3] % factor or x.shape[-2] % factor:
        sides = f" with sides that {factor} divides" if factor > 1 else ""
        raise ValueError(f"operator {name!r} takes images [..., H, W, C]{sides}, not {x.shape}")
    return x.shape


def _region(shape: Shape, hidden: str | None, share: Number) -> np.ndarray:
    """1 where a pixel is seen, 0 in the hidden region, [H, W, 1]."""
    if len(shape) < 3:
        raise ValueError(f"operator 'mask': hidden = {hidden!r} is a region of images [..., H, W, C], not of {shape}")
    height, width = shape[-3:-1]
    box = [round(n * share) for n in (height, width)]
    top, left = (height - box[0]) // 2, (width - box[1]) // 2
    rows, columns = {
        "lower_half": np.s_[height // 2 :, :],
        "upper_half": np.s_[: height // 2, :],
        "left_half": np.s_[:, : width // 2],
        "right_half": np.s_[:, width // 2 :],
        "centre": np.s_[top : top + box[0], left : left + box[1]],
    }[str(hidden)]
    seen = np.ones((height, width, 1))
    seen[rows, columns] = 0
    return seen
