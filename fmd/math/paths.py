"""The probability path x_t = alpha x1 + sigma x0 and the four things a network may predict on it.

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
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmd.math.broadcasting import Scalars, weighted_sum
from fmd.math.schedules import Coefficients, Schedule

PREDICTIONS = ("velocity", "data", "noise", "score")
Field = Callable[..., Float[Array, "..."]]
"""field(t, x, args=None) -> dx/dt, t scalar or [B], x [B, ...]."""

SINGULAR_MARGIN = 1e-6
"""How far inside an end where the old velocity is infinite `change_schedule` asks it."""

SILENT_MARGIN = 1e-3
"""The same where it says nothing of the data (t^n with n > 1 at t = 0); there x is noise to within 1e-3^n."""

CONVERSIONS: Mapping[tuple[str, str], Callable[[Coefficients], tuple[Any, Any]]] = MappingProxyType({
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


def interpolate(
    schedule: Schedule, x0: Float[Array, "b ..."], x1: Float[Array, "b ..."], t: Scalars
) -> Float[Array, "b ..."]:
    """x_t = alpha(t) x1 + sigma(t) x0 for noise x0 and data x1 [B, ...]. ValueError if t is neither scalar nor [B]."""
    c = schedule.at(t)
    return weighted_sum(np.promote_types(x0.dtype, x1.dtype), (c.alpha, x1), (c.sigma, x0))


def velocity(
    schedule: Schedule, x0: Float[Array, "b ..."], x1: Float[Array, "b ..."], t: Scalars
) -> Float[Array, "b ..."]:
    """alpha'(t) x1 + sigma'(t) x0, the time derivative of `interpolate` and the training target [B, ...]."""
    c = schedule.at(t)
    return weighted_sum(np.promote_types(x0.dtype, x1.dtype), (c.d_alpha, x1), (c.d_sigma, x0))


def convert(
    schedule: Schedule, x: Float[Array, "b ..."], t: Scalars, value: Float[Array, "b ..."], *, source: str, target: str
) -> Float[Array, "b ..."]:
    """The prediction `value` of kind `source` at (x, t), x and value [B, ...], as kind `target`; dtype follows x.

    Kinds: "velocity", "data", "noise", "score". Raises ValueError for any other.
    """
    for kind in (source, target):
        if kind not in PREDICTIONS:
            raise ValueError(f"unknown prediction {kind!r}; known: {', '.join(PREDICTIONS)}")
    if source == target:
        return value.astype(x.dtype)
    of_x, of_value = CONVERSIONS[source, target](schedule.at(t))
    return weighted_sum(x.dtype, (of_x, x), (of_value, value))


def change_schedule(field: Field, old: Schedule, new: Schedule) -> Field:
    """The velocity field that follows schedule `new`, from a velocity `field` trained along `old`.

    At equal signal-to-noise ratio the two marginals are copies at different scale: x of `new` at t is asked of `old` at
    (x / c, t_old), c = sigma_new / sigma_old = alpha_new / alpha_old. The posterior means found there are the same, and
    give the new velocity alpha_new' X1 + sigma_new' E0. No derivative of c or t_old, and no 0/0, is needed.
    Where `old` is singular or silent at an end, it is asked a little inside. Start `new` from N(0, new.prior_std^2).
    """
    if old == new:
        return field
    margins = [
        SINGULAR_MARGIN if end in old.singular_times else SILENT_MARGIN if end in old.silent_times else 0.0
        for end in (0.0, 1.0)
    ]

    def changed(t: Scalars, x: Float[Array, "b ..."], args: Any = None) -> Float[Array, "b ..."]:
        c_new = new.at(t)
        t_old = jnp.clip(old.inverse_log_snr(c_new.log_snr), margins[0], 1.0 - margins[1])
        c_old = old.at(t_old)
        # The ratio of the larger coefficients: neither vanishes where it is used.
        clean = c_new.log_snr > 0.0
        shrink = jnp.where(clean, c_old.alpha, c_old.sigma) / jnp.where(clean, c_new.alpha, c_new.sigma)
        x_old = weighted_sum(x.dtype, (shrink, x))
        v = field(t_old, x_old, args)
        of_x = c_new.d_alpha * c_old.data_x + c_new.d_sigma * c_old.noise_x
        of_v = c_new.d_alpha * c_old.data_v + c_new.d_sigma * c_old.noise_v
        return weighted_sum(x.dtype, (of_x, x_old), (of_v, v))

    return changed
