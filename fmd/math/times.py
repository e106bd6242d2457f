"""Training times: the place of each example between noise (t = 0) and data (t = 1).

A time is the quantile function of its distribution at a uniform number u, so every distribution can be stratified:
example i of B takes u = (i + u_i)/B (low discrepancy, 2107.00630), and each example alone is still uniform. u_i depends
on the key and the global index i only: the draws are the same on one device and on eight.

    uniform        t = u
    logit_normal   t = sigmoid(mean + std Phi^-1(u))           2403.03206; median sigmoid(mean)
    mode           t = u + scale (u - sin^2(pi u/2))           2403.03206; -1 <= scale <= 2/(pi - 2)
    cosmap         t = sin(pi u/2)/(sin(pi u/2) + cos(pi u/2)) 2403.03206; uniform t on the cosine path, at equal SNR

Papers whose t = 1 is noise give logit-normal means of the opposite sign: their -0.4 is mean=0.4 here. `mode` and
`cosmap` are symmetric, so nothing changes for them. The times of a solver's steps are `fmd.math.grids`.

A distribution of your own is its quantile function, under a name for configs:

    @times.register("late")
    def late(power: float = 2.0) -> TimeSampler:
        return TimeSampler("late", lambda u: u ** (1 / power))
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from fmd.math.broadcasting import Positive, as_float, finfo
from fmd.math.grids import get as grid
from fmd.math.grids import shift
from fmd.registry import Between, Registry
from fmd.types import Index, Number, Scalars, Times, TypedKey

__all__ = ["SAMPLERS", "TimeSampler", "draw", "get", "grid", "register", "shift"]

Quantile = Callable[[Times], Times]
Clip = Annotated[Number, Between(0.0, 0.5, open_high=True)]


@dataclass(frozen=True)
class TimeSampler:
    """Draws of t: sampler(key, shape) -> float32 times strictly inside (0, 1).

    `quantile` maps u in (0, 1) to t. Then the shift is applied, and last the clip to [clip, 1 - clip].
    """

    name: str
    quantile: Quantile
    shift: Number = 1.0
    clip: Number = 0.0
    stratified: bool = False

    def __call__(self, key: TypedKey, shape: int | np.integer | Sequence[int]) -> Times:
        """Times of this shape (an integer is one axis), numbered row by row as examples 0, 1, ... of one batch."""
        sizes = (int(shape),) if isinstance(shape, int | np.integer) else tuple(shape)
        total = math.prod(sizes)
        return draw(self, key, jnp.arange(total), total).reshape(sizes)

    def from_uniform(self, u: Scalars) -> Times:
        """The times at the uniform numbers u (any shape, float32 or float64); increasing in u."""
        u = as_float(u, "u")
        t = shift(self.quantile(_inside(u, 0.0)), self.shift)
        return _inside(t, self.clip)


SAMPLERS: Registry[TimeSampler] = Registry("time sampler", makes=TimeSampler)
register = SAMPLERS.register


def get(name: str, **params: object) -> TimeSampler:
    """The sampler called `name`: uniform, stratified, logit_normal (mean, std), mode (scale), cosmap.

    Each takes also `shift` (see `shift`), `clip` (times stay in [clip, 1 - clip]; without it in the open interval) and
    `stratified`; "stratified" is "uniform" with stratified=True. ValueError for unknown names, parameters and values.
    """
    return SAMPLERS.build(name, params)


def draw(sampler: TimeSampler, key: TypedKey, index: Index, total: int) -> Float[Array, " B"]:
    """The times of some examples of a batch of `total`: sampler(key, (total,))[index].

    A device that holds a slice of the batch draws its own slice, and nothing depends on how the batch was cut.
    """
    # The draws are multiples of 2^-23 and include 0; half a step more makes them symmetric and keeps them inside.
    numbers: Array = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), dtype=jnp.float32))(index)
    u = numbers + 2.0**-24
    return sampler.from_uniform((index.astype(jnp.float32) + u) / total if sampler.stratified else u)


@register("uniform")
def uniform(*, shift: Positive = 1.0, clip: Clip = 0.0, stratified: bool = False) -> TimeSampler:
    """Uniform on (0, 1)."""
    return TimeSampler("uniform", lambda u: u, shift, clip, stratified)


@register("stratified")
def stratified(*, shift: Positive = 1.0, clip: Clip = 0.0) -> TimeSampler:
    """Uniform, one example in each of the B equal parts of (0, 1)."""
    return TimeSampler("stratified", lambda u: u, shift, clip, True)


@register("logit_normal")
def logit_normal(
    mean: Number = 0.0, std: Positive = 1.0, *, shift: Positive = 1.0, clip: Clip = 0.0, stratified: bool = False
) -> TimeSampler:
    """logit(t) ~ N(mean, std^2); mean > 0 leans to the data."""
    if not math.isfinite(mean):
        raise ValueError(f"time sampler 'logit_normal': mean = {mean}; it must be finite")
    return TimeSampler("logit_normal", lambda u: jax.nn.sigmoid(mean + std * ndtri(u)), shift, clip, stratified)


@register("mode")
def mode(
    scale: Annotated[Number, Between(-1.0, 2.0 / (math.pi - 2.0))] = 1.29,
    *,
    shift: Positive = 1.0,
    clip: Clip = 0.0,
    stratified: bool = False,
) -> TimeSampler:
    """Heavier in the middle for scale > 0, at the ends for scale < 0; 0 is uniform."""
    return TimeSampler("mode", lambda u: u + scale * (u - jnp.sin(math.pi / 2.0 * u) ** 2), shift, clip, stratified)


@register("cosmap")
def cosmap(*, shift: Positive = 1.0, clip: Clip = 0.0, stratified: bool = False) -> TimeSampler:
    """Density 2 / (pi - 2 pi t + 2 pi t^2)."""

    def quantile(u: Times) -> Times:
        toward_data, toward_noise = jnp.sin(math.pi / 2.0 * u), jnp.sin(math.pi / 2.0 * (1.0 - u))
        return toward_data / (toward_data + toward_noise)

    return TimeSampler("cosmap", quantile, shift, clip, stratified)


def _inside(t: Times, margin: Number) -> Times:
    """t kept in [margin, 1 - margin], and never nearer to 0 or 1 than the dtype resolves below 1."""
    margin = max(margin, float(finfo(t.dtype).epsneg))
    return jnp.clip(t, margin, 1.0 - margin)
