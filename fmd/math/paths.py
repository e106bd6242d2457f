"""The probability path x_t = alpha x1 + sigma x0 and the predictions on it.

Given the pair, x_t and its velocity are sums, never quotients (`interpolate`, `velocity`): the training target is exact
at both ends. Given only x at time t, the velocity v, the posterior means data X1 = E[x1 | x] and noise E0 = E[x0 | x],
and the score S = grad log p_t determine one another (2303.08797, 2412.06264). Each conversion is affine,

    target = c_x(t) x + c_value(t) value,

and `CONVERSIONS` is the table of the twelve pairs (c_x, c_value). What cannot be recovered stays infinite or NaN: at
sigma = 0 (t = 1 of most schedules) x is the data and "data" no longer tells the noise, the score or the velocity; at
alpha = 0 (t = 0) x is the noise and neither "noise" nor "score" tells the data or the velocity. From the velocity both
posterior means are finite at both ends wherever the velocity itself is. All of this assumes x0 ~ N(0, I) independent of
x1; after a coupling (`couplings`) the rows and columns of "score" do not hold.

`x` sets the dtype of what is returned; t is float32 or wider, a scalar or [B].
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmd.math.broadcasting import weighted_sum
from fmd.math.schedules import Coefficients, Schedule
from fmd.types import Images, Scalars

Real = Float[Array, "..."]
PREDICTIONS = ("velocity", "data", "noise", "score")
CONVERSIONS: Mapping[tuple[str, str], Callable[[Coefficients], tuple[Real, Real]]] = MappingProxyType({
    ("velocity", "data"): lambda c: (c.data_x, c.data_v),
    ("velocity", "noise"): lambda c: (c.noise_x, c.noise_v),
    ("velocity", "score"): lambda c: (-c.noise_x / c.sigma, -c.noise_v / c.sigma),
    ("data", "velocity"): lambda c: (c.d_sigma / c.sigma, 1.0 / c.data_v),
    ("data", "noise"): lambda c: (1.0 / c.sigma, -c.alpha / c.sigma),
    ("data", "score"): lambda c: (-1.0 / c.sigma**2, c.alpha / c.sigma**2),
    ("noise", "velocity"): lambda c: (c.d_alpha / c.alpha, 1.0 / c.noise_v),
    ("noise", "data"): lambda c: (1.0 / c.alpha, -c.sigma / c.alpha),
    ("noise", "score"): lambda c: (jnp.zeros_like(c.sigma), -1.0 / c.sigma),
    ("score", "velocity"): lambda c: (c.d_alpha / c.alpha, c.memoryless / 2.0),
    ("score", "data"): lambda c: (1.0 / c.alpha, c.sigma**2 / c.alpha),
    ("score", "noise"): lambda c: (jnp.zeros_like(c.sigma), -c.sigma),
})  # fmt: skip


def interpolate(schedule: Schedule, x0: Images, x1: Images, t: Scalars) -> Images:
    """x_t = alpha(t) x1 + sigma(t) x0, [B, ...] like both. ValueError if t is neither a scalar nor [B]."""
    c = schedule.at(t)
    return weighted_sum(np.promote_types(x0.dtype, x1.dtype), (c.alpha, x1), (c.sigma, x0))


def velocity(schedule: Schedule, x0: Images, x1: Images, t: Scalars) -> Images:
    """alpha'(t) x1 + sigma'(t) x0, the time derivative of `interpolate` and the training target [B, ...]."""
    c = schedule.at(t)
    return weighted_sum(np.promote_types(x0.dtype, x1.dtype), (c.d_alpha, x1), (c.d_sigma, x0))


def convert(schedule: Schedule, x: Images, t: Scalars, value: Images, *, source: str, target: str) -> Images:
    """The prediction `value` [B, ...] of kind `source` at (x, t) as kind `target`, in the dtype of x.

    Kinds: "velocity", "data", "noise", "score". Raises ValueError for any other.
    """
    for kind in (source, target):
        if kind not in PREDICTIONS:
            raise ValueError(f"unknown prediction {kind!r}; known: {', '.join(PREDICTIONS)}")
    if source == target:
        return value.astype(x.dtype)
    of_x, of_value = CONVERSIONS[source, target](schedule.at(t))
    return weighted_sum(x.dtype, (of_x, x), (of_value, value))
