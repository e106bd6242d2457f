"""Training targets for networks that take long steps: MeanFlow, shortcut models and reflow.

The first two learn the average velocity U(x, t, r) between t and r, r >= t, whose step is the flow map itself:

    U(x_t, t, r) = 1/(r - t) int_t^r v(x_s, s) ds,    x_r = x_t + (r - t) U(x_t, t, r),    U(x, t, t) = v(x, t)

    MeanFlow (2505.13447)   U = v + (r - t) dU/dt, the derivative along the path: one jvp with tangents (v, 1, 0)
    shortcut (2410.12557)   one step of 2d is two of d: U(x, t, t + 2d) = (U(x, t, t + d) + U(x', t + d, t + 2d)) / 2
    reflow (2209.03003)     pairs (x0, ODE(x0)): the linear path between them is straighter, exactly straight at the
                            optimum, where one Euler step is enough

Those papers count time from data to noise; here t = 0 is noise, so the sign of (r - t) and the tangents differ.
A network is `average(x, t, r)` with x [B, ...], t and r [B] or scalars. Targets come without gradient. Reflow pairs,
like optimal-transport pairs, are not independent: the score, and with it SDE sampling, is then not to be had.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.math.broadcasting import Scalars, as_float, weighted_sum
from fmd.math.integration import Field
from fmd.math.simulators import solve_ode

Batch = Float[Array, "b ..."]
Average = Callable[[Any, Any, Any], Batch]


def jump(average: Average, x: Batch, t: Scalars, r: Scalars) -> Batch:
    """x_r = x + (r - t) U(x, t, r), one evaluation."""
    t, r = as_float(t), as_float(r, "r")
    return weighted_sum(x.dtype, (jnp.ones_like(t), x), (r - t, average(x, t, r)))


def mean_flow(average: Average, v: Batch, x: Batch, t: Scalars, r: Scalars) -> tuple[Batch, Batch]:
    """(U(x, t, r), its target v + (r - t) dU/dt without gradient), from one `jax.jvp`; both [B, ...].

    v is the velocity alpha' x1 + sigma' x0 of the training pair (or `guided_velocity`). Where r = t the target is v;
    the paper trains three quarters of a batch so.
    """
    t, r = as_float(t), as_float(r, "r")
    tangents = (v.astype(x.dtype), jnp.ones_like(t), jnp.zeros_like(r))
    predicted, rate = jax.jvp(average, (x, t, r), tangents)
    target = weighted_sum(x.dtype, (jnp.ones_like(t), v), (r - t, rate))
    return predicted, jax.lax.stop_gradient(target)


def guided_velocity(v: Batch, cond: Batch, null: Batch, weight: Scalars, mix: Scalars = 0.5) -> Batch:
    """w v + k U_cond + (1 - w - k) U_null, k = `mix`: guidance inside the MeanFlow target.

    cond and null are U(x, t, t) with the label and with the null label. The guided field that this trains has the
    effective weight w / (1 - k).
    """
    w, k = as_float(weight, "weight"), as_float(mix, "mix")
    return weighted_sum(v.dtype, (w, v), (k, cond), (1 - w - k, null))


def adaptive_weight(squared_error: Float[Array, " b"], power: float = 1.0, c: float = 0.01) -> Float[Array, " b"]:
    """1 / (|e|^2 + c)^power without gradient: the weight of each example's squared error |e|^2 in the MeanFlow loss."""
    return jax.lax.stop_gradient((squared_error + c) ** -power)


def shortcut(average: Average, x: Batch, t: Scalars, d: Scalars) -> Batch:
    """The target for U(x, t, t + 2d), [B, ...], without gradient: the mean of two successive steps of d.

    The paper trains an eighth of a batch so, with d a power of two and `average` the averaged weights, the rest on
    U(x, t, t) = v.
    """
    t, d = as_float(t), as_float(d, "d")
    first = average(x, t, t + d)
    middle = weighted_sum(x.dtype, (jnp.ones_like(d), x), (d, first))
    second = average(middle, t + d, t + 2 * d)
    half = jnp.full_like(d, 0.5)
    return jax.lax.stop_gradient(weighted_sum(x.dtype, (half, first), (half, second)))


def reflow_pairs(field: Field, x0: Batch, **options: Any) -> tuple[Batch, Batch]:
    """(x0, x1) with x1 where the flow takes x0, `options` those of `solve_ode`; a failed example holds NaN.

    To be trained on along the linear path, keeping each pair together.
    """
    solution = solve_ode(field, x0, **options)
    ok = solution.success.reshape(-1, *(1,) * (x0.ndim - 1))
    return x0, jnp.where(ok, solution.x, jnp.nan)
