"""Times: where on the path a training example or a sampling step stands (t = 0 noise, t = 1 data).

A training time is the quantile function of its distribution at a uniform number u, so every distribution can be
stratified: example i of B takes u = (i + u_i)/B (low discrepancy, 2107.00630), and each example alone is still uniform.
u_i depends on the key and the global index i only: the draws are the same on one device and on eight.

    uniform        t = u
    logit_normal   t = sigmoid(mean + std Phi^-1(u))           2403.03206; median sigmoid(mean)
    mode           t = u + scale (u - sin^2(pi u/2))           2403.03206; -1 <= scale <= 2/(pi - 2)
    cosmap         t = sin(pi u/2)/(sin(pi u/2) + cos(pi u/2)) 2403.03206; uniform t on the cosine path, at equal SNR

Papers whose t = 1 is noise give logit-normal means of the opposite sign: their -0.4 is mean=0.4 here. `mode` and
`cosmap` are symmetric, so nothing changes for them.

A sampling grid (`grid`) is an increasing sequence of steps + 1 times from t0 to t1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Int, Key

from fmd.math.broadcasting import Number, Scalars, as_float, concrete
from fmd.math.registry import build
from fmd.math.schedules import Schedule

Times = Float[Array, "..."]
Quantile = Callable[[Times], Times]


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

    def __call__(self, key: Key[Array, ""], shape: int | np.integer | Sequence[int]) -> Times:
        """Times of this shape (an integer is one axis), numbered row by row as examples 0, 1, ... of one batch."""
        sizes = (int(shape),) if isinstance(shape, int | np.integer) else tuple(shape)
        total = math.prod(sizes)
        return draw(self, key, jnp.arange(total), total).reshape(sizes)

    def from_uniform(self, u: Scalars) -> Times:
        """The times at the uniform numbers u (any shape, float32 or float64); increasing in u."""
        u = as_float(u, "u")
        t = shift(self.quantile(_inside(u, 0.0)), self.shift)
        return _inside(t, self.clip)


def get(name: str, **params: Any) -> TimeSampler:
    """The sampler called `name`: uniform, stratified, logit_normal (mean, std), mode (scale), cosmap.

    Each takes also `shift` (see `shift`), `clip` (times stay in [clip, 1 - clip]; without it in the open interval) and
    `stratified`; "stratified" is "uniform" with stratified=True. ValueError for unknown names, parameters and values.
    """
    return build("time sampler", SAMPLERS, name, params)


def draw(sampler: TimeSampler, key: Key[Array, ""], index: Int[Array, " b"], total: int) -> Float[Array, " b"]:
    """The times of the examples with these global indices in a batch of `total`: sampler(key, (total,))[index].

    A device that holds a slice of the batch draws its own slice, and nothing depends on how the batch was cut.
    """
    # The draws are multiples of 2^-23 and include 0; half a step more makes them symmetric and keeps them inside.
    uniform = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), dtype=jnp.float32))
    u = uniform(index) + 2.0**-24
    return sampler.from_uniform((index.astype(jnp.float32) + u) / total if sampler.stratified else u)


def shift(t: Scalars, factor: Scalars) -> Times:
    """t / (t + factor (1 - t)), the resolution-dependent shift of 2403.03206; adds -2 log(factor) to a linear log-SNR.

    factor > 1 moves times towards the noise. The inverse is 1 / factor. ValueError unless factor, where it is known and
    not traced, is positive and finite.
    """
    if concrete(factor) and not (np.all(np.isfinite(factor)) and np.all(np.asarray(factor) > 0.0)):
        raise ValueError(f"time shift is {factor}; it must be positive and finite")
    t = as_float(t)
    return t / (t + factor * (1.0 - t))


def uniform(*, shift: Number = 1.0, clip: Number = 0.0, stratified: bool = False) -> TimeSampler:
    """Uniform on (0, 1)."""
    return _sampler("uniform", lambda u: u, shift, clip, stratified)


def stratified(*, shift: Number = 1.0, clip: Number = 0.0) -> TimeSampler:
    """Uniform, one example in each of the B equal parts of (0, 1)."""
    return _sampler("stratified", lambda u: u, shift, clip, True)


def logit_normal(
    mean: Number = 0.0, std: Number = 1.0, *, shift: Number = 1.0, clip: Number = 0.0, stratified: bool = False
) -> TimeSampler:
    """logit(t) ~ N(mean, std^2); mean > 0 leans to the data."""
    if not (math.isfinite(mean) and 0.0 < std < math.inf):
        raise ValueError(f"times 'logit_normal': mean, std are {mean}, {std}; need a finite mean and std > 0")
    return _sampler("logit_normal", lambda u: jax.nn.sigmoid(mean + std * ndtri(u)), shift, clip, stratified)


def mode(scale: Number = 1.29, *, shift: Number = 1.0, clip: Number = 0.0, stratified: bool = False) -> TimeSampler:
    """Heavier in the middle for scale > 0, at the ends for scale < 0; 0 is uniform."""
    if not -1.0 <= scale <= 2.0 / (math.pi - 2.0):
        raise ValueError(f"times 'mode': scale is {scale}; it must be in [-1, 2/(pi - 2) = 1.7519]")
    quantile = lambda u: u + scale * (u - jnp.sin(math.pi / 2.0 * u) ** 2)  # noqa: E731
    return _sampler("mode", quantile, shift, clip, stratified)


def cosmap(*, shift: Number = 1.0, clip: Number = 0.0, stratified: bool = False) -> TimeSampler:
    """Density 2 / (pi - 2 pi t + 2 pi t^2)."""
    return _sampler("cosmap", _cosmap, shift, clip, stratified)


SAMPLERS: dict[str, Callable[..., TimeSampler]] = {
    f.__name__: f for f in (uniform, stratified, logit_normal, mode, cosmap)
}


def _cosmap(u: Times) -> Times:
    toward_data, toward_noise = jnp.sin(math.pi / 2.0 * u), jnp.sin(math.pi / 2.0 * (1.0 - u))
    return toward_data / (toward_data + toward_noise)


def _sampler(name: str, quantile: Quantile, shift: Number, clip: Number, stratified: bool) -> TimeSampler:
    if not 0.0 < shift < math.inf:
        raise ValueError(f"times {name!r}: shift is {shift}; it must be positive and finite")
    if not 0.0 <= clip < 0.5:
        raise ValueError(f"times {name!r}: clip is {clip}; it must be in [0, 0.5)")
    return TimeSampler(name, quantile, shift, clip, stratified)


def _inside(t: Times, margin: float) -> Times:
    """t kept in [margin, 1 - margin], and never nearer to 0 or 1 than the dtype resolves below 1."""
    margin = max(margin, float(jnp.finfo(t.dtype).epsneg))
    return jnp.clip(t, margin, 1.0 - margin)


def grid(name: str, steps: int, *, t0: Number = 0.0, t1: Number = 1.0, **params: Any) -> Float[Array, " times"]:
    """The [steps + 1] increasing times of a sampling grid, the first exactly t0 and the last exactly t1.

    uniform; shifted (factor): `shift` of the uniform grid; cosine: sin^2(pi u/2), denser at both ends;
    karras (schedule, noise_max, noise_min, rho): uniform in (sigma/alpha)^(1/rho), from noisy to clean (2206.00364).
    Raises ValueError for steps < 1, times out of order, unknown names and parameters, or a grid that does not increase.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; a grid needs at least 1")
    if not 0.0 <= t0 < t1 <= 1.0:
        raise ValueError(f"the grid runs from t0={t0} to t1={t1}; need 0 <= t0 < t1 <= 1")
    with jax.ensure_compile_time_eval():
        times = build("time grid", GRIDS, name, params)(jnp.linspace(0.0, 1.0, steps + 1), t0, t1)
        times = times.at[0].set(t0).at[-1].set(t1)
        if not bool(jnp.all(times[1:] > times[:-1])):
            raise ValueError(f"time grid {name!r} does not increase with {steps} steps from {t0} to {t1}: {times}")
    return times


Warp = Callable[[Times, float, float], Times]


def _between(warp: Quantile) -> Warp:
    return lambda u, t0, t1: t0 + (t1 - t0) * warp(u)


def _shifted(factor: Number) -> Warp:
    return _between(lambda u: shift(u, factor))


def _karras(schedule: Schedule, noise_max: Number = 80.0, noise_min: Number = 0.002, rho: Number = 7.0) -> Warp:
    if not (0.0 < noise_min < noise_max < math.inf and rho > 0.0):
        raise ValueError(f"karras: need 0 < noise_min < noise_max and rho > 0; got {noise_min}, {noise_max}, {rho}")

    def warp(u: Times, t0: Number, t1: Number) -> Times:
        # sigma/alpha = exp(-log_snr/2) runs over what lies between t0 and t1; if t1 is cleaner than that, it is the
        # target of one more step.
        begin, end = (float(jnp.exp(-schedule.log_snr(t) / 2.0)) for t in (t0, t1))
        first, last = (min(max(s, noise_min), noise_max) ** (1.0 / rho) for s in (begin, end))
        steps = u.size - 1
        nodes = max(steps - 1, 1) if end < 0.999 * noise_min else steps
        noise = (first + jnp.minimum(u * (steps / nodes), 1.0) * (last - first)) ** rho
        return schedule.inverse_log_snr(-2.0 * jnp.log(noise))

    return warp


GRIDS: dict[str, Callable[..., Warp]] = {
    "uniform": lambda: _between(lambda u: u),
    "shifted": _shifted,
    "cosine": lambda: _between(lambda u: jnp.sin(math.pi / 2.0 * u) ** 2),
    "karras": _karras,
}
