"""Editing: changing an image by the flow that could have made it.

    invert      the noise that flows to an image: the same equation, solved from t = 1, or from just before, to 0
    round_trip  that noise, with the distance of what flows back from the image
    sde_edit    noise is added up to a time, and taken away again under another condition (2108.01073)
    flow_edit   the image moves along the difference of two velocities, without the noise in between (2412.08629)
    slerp       between two noises along the sphere that they lie on

Fields are field(t, x, args), `args` what the network is told. A field of a data prediction is 0/0 at t = 1: there
`fmd.math.fields.from_model` and `end_epsilon` keep it inside.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fmd.math import schedules
from fmd.math.broadcasting import compute_dtype, concrete, expand_left, finfo
from fmd.math.paths import interpolate
from fmd.math.schedules import Schedule
from fmd.math.simulators import solve_ode
from fmd.types import Field, Images, Index, Number, Scalars, TypedKey


def invert(
    field: Field, x: Images, *, start: Number = 1.0, args: PyTree = None, solver: str = "midpoint", steps: int = 50,
    **options: Any,
) -> Images:  # fmt: skip
    """The state x(0) [B, ...] that flows to x [B, ...] at t = `start`; options as in `solve_ode`.

    A flow that leads many noises to one pixel, black, cannot say which of them it was: give the image with noise added
    up to a start below 1, and the pixel gets that noise. ValueError for a start outside (0, 1].
    """
    if concrete(start) and not 0 < start <= 1:
        raise ValueError(f"start={start} must be in (0, 1], the time from which an image is inverted")
    x0: Images = solve_ode(field, x, args=args, solver=solver, steps=steps, t0=start, t1=0.0, **options).x
    return x0


def round_trip(
    field: Field,
    x1: Images,
    *,
    noised: tuple[Number, Images] | None = None,
    args: PyTree = None,
    solver: str = "midpoint",
    steps: int = 50,
    **options: Any,
) -> tuple[Images, Float[Array, " B"]]:
    """(x0 of `invert`, the root mean square [B] over numbers of x1 minus the x1 that x0 flows to).

    `noised`: the time to begin at and x1 with noise added up to there, instead of 1 and x1. The error is that of both
    solves; without added noise it is of second order in 1/steps with the midpoint rule.
    """
    start, x = (1.0, x1) if noised is None else noised
    x0 = invert(field, x, start=start, args=args, solver=solver, steps=steps, **options)
    back: Images = solve_ode(field, x0, args=args, solver=solver, steps=steps, **options).x
    axes = tuple(range(1, x1.ndim))
    return x0, jnp.sqrt(jnp.mean((back - x1.astype(back.dtype)) ** 2, axis=axes))


def sde_edit(
    field: Field,
    x1: Images,
    key: TypedKey,
    *,
    start: Number = 0.5,
    args: PyTree = None,
    schedule: Schedule | None = None,
    solver: str = "midpoint",
    steps: int = 50,
    noise: Images | None = None,
    indices: Index | None = None,
    **options: Any,
) -> Images:
    """x1 with noise added up to the time `start`, then carried to t = 1 by field(t, x, args), [B, ...].

    start      in [0, 1): the smaller, the more is changed
    noise      standard normal [B, ...] instead of the key's; that of example i is a function of (key, indices[i])
    options    as in `solve_ode`

    ValueError for a start outside [0, 1).
    """
    _check_start(start)
    x1 = x1.astype(compute_dtype(x1.dtype))
    noise = _normal(key, x1, indices) if noise is None else noise
    schedule = schedules.get("linear") if schedule is None else schedule
    x = interpolate(schedule, noise, x1, start)
    edited: Images = solve_ode(field, x, args=args, solver=solver, steps=steps, t0=start, **options).x
    return edited


def flow_edit(
    field: Field,
    x1: Images,
    key: TypedKey,
    *,
    source: PyTree,
    target: PyTree,
    start: Number = 0.3,
    schedule: Schedule | None = None,
    steps: int = 50,
    draws: int = 1,
    source_field: Field | None = None,
    indices: Index | None = None,
) -> Images:
    """x1 moved from the condition `source` to `target`, [B, ...] (2412.08629).

    z = x1 at t = `start`, and dz/dt = v(z_t + z - x1, t | target) - v(z_t, t | source) to t = 1 by the midpoint rule,
    z_t = alpha x1 + sigma eps with fresh noise in each step, in the mean over `draws` noises.

    source, target   args of the field, leaves [B, ...] or None
    start            in [0, 1): the smaller, the more is changed
    source_field     the field told `source`, where its guidance differs from that of `field`
    indices          [B]: the noise of example i is a function of (key, indices[i])

    ValueError for a start outside [0, 1), steps or draws < 1.
    """
    _check_start(start)
    if steps < 1 or draws < 1:
        raise ValueError(f"steps={steps} and draws={draws} must be at least 1")
    x1 = x1.astype(compute_dtype(x1.dtype))
    path = schedules.get("linear") if schedule is None else schedule
    times = jnp.linspace(start, 1.0, steps + 1, dtype=x1.dtype)
    before = field if source_field is None else source_field

    def difference(t: Scalars, z: Images, noise: Images) -> Images:
        x = interpolate(path, noise, x1, t)
        v: Images = field(t, x + z - x1, target) - before(t, x, source)
        return v

    def step(number: Array, z: Images) -> Images:
        t, h = times[number], times[number + 1] - times[number]

        def moved(draw: Array) -> Images:
            noise = _normal(jax.random.fold_in(key, number * draws + draw), x1, indices)
            middle = z + h / 2 * difference(t, z, noise)
            return h * difference(t + h / 2, middle, noise)

        change: Images = jnp.mean(jax.lax.map(moved, jnp.arange(draws)), axis=0)
        return z + change

    edited: Images = jax.lax.fori_loop(0, steps, step, x1)
    return edited


def slerp(a: Float[Array, "..."], b: Float[Array, "..."], share: Scalars) -> Float[Array, "..."]:
    """The point a share of the way from a to b [B, ...] along the arc between them; one vector where a is [d].

    (sin((1 - share) w) a/|a| + sin(share w) b/|b|) / sin w, w the angle between a and b, times a length between theirs:
    what lies between two noises is as long as noise. share: a scalar or [B]; 0 gives a, 1 gives b. Between parallel
    vectors it is a straight line; between opposite ones no arc is the shortest, and the result is undefined.
    """
    if a.shape != b.shape:
        raise ValueError(f"slerp between shapes {a.shape} and {b.shape}; they must be equal")
    if a.ndim == 1:
        return slerp(a[None], b[None], share)[0]
    axes = tuple(range(1, a.ndim))
    lengths = [jnp.sqrt(jnp.sum(x**2, axis=axes, keepdims=True)) for x in (a, b)]
    units = [x / jnp.maximum(length, finfo(x.dtype).tiny) for x, length in zip((a, b), lengths, strict=True)]
    # The angle by its half tangent: accurate for small angles, where the arc cosine is not.
    halves = [jnp.sqrt(jnp.sum(x**2, axis=axes, keepdims=True)) for x in (units[0] - units[1], units[0] + units[1])]
    angle = 2 * jnp.atan2(halves[0], halves[1])
    share = jnp.asarray(expand_left(share, a), a.dtype)
    straight = angle < 1e-4
    sine = jnp.where(straight, 1.0, jnp.sin(angle))
    weights = [jnp.where(straight, s, jnp.sin(s * angle) / sine) for s in (1 - share, share)]
    length = (1 - share) * lengths[0] + share * lengths[1]
    return length * (weights[0] * units[0] + weights[1] * units[1])


def _check_start(start: Number) -> None:
    if concrete(start) and not 0.0 <= start < 1.0:
        raise ValueError(f"start={start} must be in [0, 1): the time up to which noise is added")


def _normal(key: TypedKey, x: Images, indices: Index | None) -> Images:
    """Standard normal numbers of the shape of x, those of example i a function of (key, indices[i])."""
    indices = jnp.arange(x.shape[0]) if indices is None else indices
    drawn: Images = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), x.shape[1:], x.dtype))(indices)
    return drawn
