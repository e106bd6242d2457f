"""Grids: the times between which a solver steps from noise to data, and the time shift.

    uniform    evenly
    shifted    the uniform grid moved by `shift` (factor)                              2403.03206
    cosine     sin^2(pi u/2), denser at both ends
    karras     uniform in (sigma/alpha)^(1/rho), from noisy to clean                   2206.00364
               (schedule, noise_max, noise_min, rho)

A grid is given by a warp: warp(u, t0, t1) are the times, increasing from t0 to t1, at u = 0, 1/steps, ..., 1, an array
of NumPy (so that simple grids compile nothing). A grid of your own is a function that returns one. Its parameters are
keys of the config, and a parameter called `schedule` is the schedule that the model was trained along:

    @grids.register("quadratic")
    def quadratic(power: float = 2.0) -> Warp:
        return lambda u, t0, t1: t0 + (t1 - t0) * u**power
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmd.math.broadcasting import Positive, as_float, concrete
from fmd.math.schedules import Schedule
from fmd.registry import Registry
from fmd.types import Number, Scalars, Times

Shares = Float[np.ndarray, " knots"]
Warp = Callable[[Shares, Number, Number], Shares | Times]

GRIDS: Registry[Warp] = Registry("time grid")
register = GRIDS.register


def get(
    name: str,
    steps: int,
    *,
    t0: Number = 0.0,
    t1: Number = 1.0,
    schedule: Schedule | str | Mapping[str, object] | None = None,
    **params: object,
) -> Float[Array, " knots"]:
    """The [steps + 1] increasing times of a grid, its ends exactly t0 and t1.

    schedule: handed to the grids that depend on one. Raises ValueError for steps < 1, times out of order, unknown names
    and parameters, or a grid that does not increase.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; a grid needs at least 1")
    if not 0.0 <= t0 < t1 <= 1.0:
        raise ValueError(f"the grid runs from t0={t0} to t1={t1}; need 0 <= t0 < t1 <= 1")
    warp = GRIDS.build(name, params, offered={} if schedule is None else {"schedule": schedule})
    shares = np.linspace(0.0, 1.0, steps + 1, dtype=jnp.result_type(float))
    with jax.ensure_compile_time_eval():
        times = np.array(warp(shares, t0, t1), shares.dtype)
        times[0], times[-1] = t0, t1
        if not np.all(np.diff(times) > 0.0):
            raise ValueError(f"time grid {name!r} does not increase with {steps} steps from {t0} to {t1}: {times}")
        return jnp.asarray(times)


def shift(t: Scalars, factor: Scalars) -> Times:
    """t / (t + factor (1 - t)), the resolution-dependent time shift (2403.03206).

    It adds -2 log(factor) to the log-SNR of "linear": factor > 1 moves times towards the noise. The inverse is 1 /
    factor. ValueError unless factor, where it is known and not traced, is positive and finite.
    """
    if concrete(factor) and not (np.all(np.isfinite(factor)) and np.all(np.asarray(factor) > 0.0)):
        raise ValueError(f"time shift is {factor}; it must be positive and finite")
    t = as_float(t)
    return t / (t + factor * (1.0 - t))


@register("uniform")
def uniform() -> Warp:
    """Equal steps."""
    return lambda u, t0, t1: t0 + (t1 - t0) * u


@register("shifted")
def shifted(factor: Positive) -> Warp:
    """Equal steps before a `shift`; factor > 1 puts more of them near the noise."""
    return lambda u, t0, t1: t0 + (t1 - t0) * shift(u, factor)


@register("cosine")
def cosine() -> Warp:
    """sin^2(pi u/2), denser at both ends."""
    return lambda u, t0, t1: t0 + (t1 - t0) * jnp.sin(math.pi / 2.0 * u) ** 2


@register("karras")
def karras(schedule: Schedule, noise_max: Number = 80.0, noise_min: Number = 0.002, rho: Positive = 7.0) -> Warp:
    """Equal steps in (sigma/alpha)^(1/rho), sigma/alpha kept within [noise_min, noise_max]."""
    if not 0.0 < noise_min < noise_max < math.inf:
        raise ValueError(f"time grid 'karras': {noise_max = }, {noise_min = }; need 0 < noise_min < noise_max")

    def warp(u: Shares, t0: Number, t1: Number) -> Times:
        # sigma/alpha = exp(-log_snr/2) runs over what lies between t0 and t1; if t1 is cleaner than that, it is the
        # target of one more step.
        begin, end = (float(jnp.exp(-schedule.log_snr(t) / 2.0)) for t in (t0, t1))
        first, last = (min(max(s, noise_min), noise_max) ** (1.0 / rho) for s in (begin, end))
        steps = u.size - 1
        nodes = max(steps - 1, 1) if end < 0.999 * noise_min else steps
        noise = (first + jnp.minimum(u * (steps / nodes), 1.0) * (last - first)) ** rho
        return schedule.inverse_log_snr(-2.0 * jnp.log(noise))

    return warp
