"""Training targets for networks that take long steps: MeanFlow, alpha-Flow, shortcut models, solved flows, reflow.

The first three learn the average velocity U(x, t, r) between t and r, r >= t, whose step is the flow map itself:

    U(x_t, t, r) = 1/(r - t) int_t^r v(x_s, s) ds,    x_r = x_t + (r - t) U(x_t, t, r),    U(x, t, t) = v(x, t)

    MeanFlow (2505.13447)     U = v + (r - t) dU/dt, the derivative along the path: one jvp with tangents (v, 1, 0)
    improved (2512.02012)     the same, with a predicted velocity for the tangent in x: less noise in the target
    alpha-Flow (2510.20771)   U(x, t, r) = a v + (1 - a) U(x + (s - t) v, s, r), s = t + a (r - t): no derivative
    shortcut (2410.12557)     one step of 2d is two of d: U(x, t, t + 2d) = (U(x, t, t + d) + U(x', t + d, t + 2d)) / 2
    solved (2101.02388)       the integral itself, by solving the flow from t to r: neither derivative nor noise
    reflow (2209.03003)       pairs (x0, ODE(x0)): the linear path between them is straighter, exactly straight at the
                              optimum, where one Euler step is enough

Those papers count time from data to noise; here t = 0 is noise, so the sign of (r - t) and the tangents differ.
A network is `average(x, t, r)` with x [B, ...], t and r [B] or scalars. Targets come without gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from fmd.math.broadcasting import as_float, compute_dtype, concrete, rows_of, times_of_rows, weighted_sum
from fmd.math.schedules import Schedule
from fmd.math.simulators import Solution, solve_ode
from fmd.types import Field, Images, Scalars, Times

Average = Callable[[Images, Times, Times], Images]

NEAR = 1e-3  # the end of a shorter step is told by u as a velocity


def jump(average: Average, x: Images, t: Scalars, r: Scalars) -> Images:
    """x_r = x + (r - t) U(x, t, r), one evaluation. ValueError for an r before t."""
    t, r = _in_order(t, r)
    return weighted_sum(x.dtype, (jnp.ones_like(t), x), (r - t, average(x, t, r)))


def end(schedule: Schedule, u: Images, x: Images, t: Scalars, r: Scalars) -> Images:
    """The data that a jump by u = U(x, t, r) leads to, [B, ...].

    x1 of the path alpha x1 + sigma x0 that is at x at t and at x + (r - t) u at r (a step of 2010.02502, inverted): the
    posterior mean of a velocity where r = t, the image itself at r = 1. Of the linear schedule x + (1 - t) u for all r.
    """
    of_x, of_u = _of_end(schedule, x, t, r)
    return weighted_sum(x.dtype, (of_x, x), (of_u, u))


def clip_end(
    schedule: Schedule, u: Images, x: Images, t: Scalars, r: Scalars, *, low: float = -1.0, high: float = 1.0
) -> Images:
    """The average velocity u [B, ...] with its `end` clipped to [low, high], as `fields.clip_data` does for r = t."""
    of_x, of_u = _of_end(schedule, x, t, r)
    data = weighted_sum(x.dtype, (of_x, x), (of_u, u))
    per_data = 1 / jnp.maximum(of_u, NEAR)  # at t = 1 u tells nothing of the data
    return weighted_sum(x.dtype, (jnp.ones_like(of_u), u), (per_data, jnp.clip(data, low, high) - data))


def _of_end(schedule: Schedule, x: Images, t: Scalars, r: Scalars) -> tuple[Times, Times]:
    """(a, b), [B] each, of end = a x + b u: with k = sigma_r / sigma_t, x_r = (alpha_r - k alpha_t) end + k x."""
    t, r = (times_of_rows(s, x) for s in _in_order(t, r))
    length, at, after = r - t, schedule.at(t), schedule.at(r)
    near = length < NEAR
    kept = after.sigma / jnp.where(near, 1.0, at.sigma)
    told = jnp.where(near, 1.0, after.alpha - kept * at.alpha)
    return jnp.where(near, at.data_x, (1 - kept) / told), jnp.where(near, at.data_v, length / told)


def mean_flow(
    average: Average,
    v: Images,
    x: Images,
    t: Scalars,
    r: Scalars,
    *,
    tangent: Images | None = None,
    share: Scalars | None = None,
) -> tuple[Images, Images]:
    """(U(x, t, r), its target v + (r - t) dU/dt), both [B, ...], from one `jax.jvp`; the target has no gradient.

    v        velocity alpha' x1 + sigma' x0 of the training pair, or `guided_velocity`. Where r = t the target is v;
             the paper trains three quarters of a batch so
    tangent  velocity along which dU/dt is taken, v by default. Improved MeanFlow gives a prediction of the marginal
             velocity, such as U(x, t, t): then only v makes the target noisy
    share    of the derivative in the target, 1 by default; below 1 while training warms up (2410.11081)
    """
    t, r = _in_order(t, r)
    along = v if tangent is None else tangent
    tangents = (along.astype(x.dtype), jnp.ones_like(t), jnp.zeros_like(r))
    predicted, rate = jax.jvp(average, (x, t, r), tangents)
    length = r - t if share is None else (r - t) * as_float(share, "share")
    target = weighted_sum(x.dtype, (jnp.ones_like(t), v), (length, rate))
    return predicted, jax.lax.stop_gradient(target)


def solved(
    field: Field, x: Images, t: Scalars, r: Scalars, *, args: PyTree = None, solver: str = "midpoint", steps: int = 5
) -> Images:
    """The average velocity U(x, t, r) of field(t, x, args), [B, ...]: its flow solved from t to r.

    u(1) of du/ds = v(x + (r - t) u, t + s (r - t)), u(0) = 0: nothing is divided by r - t, and U(x, t, t) is v.
    `solver` and `steps` are those of `solve_ode`. NaN where it failed, ValueError for an r before t.
    """
    t, r = _in_order(t, r)

    def velocity(s: Times, u: Images, args: PyTree) -> PyTree:
        return field(t + s * (r - t), weighted_sum(x.dtype, (jnp.ones_like(t), x), (r - t, u)), args)

    return _where_solved(solve_ode(velocity, jnp.zeros_like(x), args=args, solver=solver, steps=steps, end_epsilon=0.0))


def alpha_flow(average: Average, v: Images, x: Images, t: Scalars, r: Scalars, alpha: Scalars) -> Images:
    """The alpha-Flow target for U(x, t, r), [B, ...], without gradient.

    a v + (1 - a) U(x + (s - t) v, s, r), s = t + a (r - t), a = `alpha` in (0, 1], a scalar or [B]. 1 is flow matching;
    to first order in a the residual is a times that of MeanFlow, so the paper divides the loss by a. It lets a fall
    from 1 to 0.005 during training.

    For Python only: no method of `fmd.methods` trains with it yet.
    """
    (t, r), a = _in_order(t, r), as_float(alpha, "alpha")
    s = t + a * (r - t)
    moved = weighted_sum(x.dtype, (jnp.ones_like(t), x), (s - t, v))
    return jax.lax.stop_gradient(weighted_sum(x.dtype, (a, v), (1 - a, average(moved, s, r))))


def guided_velocity(v: Images, cond: Images, null: Images, weight: Scalars, mix: Scalars = 0.5) -> Images:
    """The velocity for a MeanFlow target with guidance: w v + k U_cond + (1 - w - k) U_null, k = `mix`.

    cond and null are U(x, t, t) with the label and with the null label. The guided field that this trains has the
    effective weight w / (1 - k).

    For Python only: with `weights` the method `mean_flow` learns guidance by a target without `mix`.
    """
    w, k = as_float(weight, "weight"), as_float(mix, "mix")
    return weighted_sum(v.dtype, (w, v), (k, cond), (1 - w - k, null))


def adaptive_weight(squared_error: Float[Array, " B"], power: float = 1.0, c: float = 0.01) -> Float[Array, " B"]:
    """Weights 1 / (|e|^2 + c)^power [B] of squared errors |e|^2 in the MeanFlow loss, without gradient."""
    squared_error = squared_error.astype(compute_dtype(squared_error.dtype))
    return jax.lax.stop_gradient((squared_error + c) ** -power)


def shortcut(average: Average, x: Images, t: Scalars, d: Scalars) -> Images:
    """The target for U(x, t, t + 2d), [B, ...]: the mean of two steps of d, without gradient.

    The paper trains an eighth of a batch so, with d a power of two and `average` the averaged weights, the rest on
    U(x, t, t) = v.
    """
    t, d = as_float(t), as_float(d, "d")
    first = average(x, t, t + d)
    middle = weighted_sum(x.dtype, (jnp.ones_like(d), x), (d, first))
    second = average(middle, t + d, t + 2 * d)
    half = jnp.full_like(d, 0.5)
    return jax.lax.stop_gradient(weighted_sum(x.dtype, (half, first), (half, second)))


def _in_order(t: Scalars, r: Scalars) -> tuple[Array, Array]:
    """Both as floats. ValueError where r is before t, as far as they are known."""
    t, r = as_float(t), as_float(r, "r")
    if concrete(t) and concrete(r) and np.any(np.asarray(r) < np.asarray(t)):
        raise ValueError(f"r must not lie before t: a step goes from t = {t} to a later r, not to {r}")
    return t, r


def reflow_pairs(field: Field, x0: Images, **options: PyTree) -> tuple[Images, Images]:
    """(x0, x1), x1 where the flow takes x0; NaN where that failed.

    `options` are those of `solve_ode`. Train on the pairs along the linear path, keeping each pair together. Like
    optimal-transport pairs they are not independent: do not use score conversions or SDE sampling with the model that
    they train.

    `fmd.methods.reflow` draws them in every step.
    """
    return x0, _where_solved(solve_ode(field, x0, **options))


def _where_solved(solution: Solution) -> Images:
    return jnp.where(rows_of(solution.success, solution.x), solution.x, jnp.nan)
