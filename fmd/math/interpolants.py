"""Stochastic interpolants: a path between any two images, with a noise of its own on the way.

    x_t = alpha(t) x1 + sigma(t) x0 + gamma(t) z,      gamma(t) = scale sqrt(t (1 - t)),      z ~ N(0, I)

(arXiv 2303.08797). x0 is no noise here but a draw of any source; z is independent of the pair, and gone at both ends.
The velocity alpha' x1 + sigma' x0 + gamma' z is regressed as ever: its mean given x_t is the field whose flow carries
the source to the data. For independent Gaussian ends N(m0, V0) and N(m1, V1), with V_t = alpha^2 V1 + sigma^2 V0 +
gamma^2, that field is

    v(x, t) = alpha' m1 + sigma' m0 + V_t' / (2 V_t) (x - alpha m1 - sigma m0)

and its flow scales by sqrt(V_t). Without z (None) all is as in `paths`; with z the conversions of `paths` do not hold.

The ends. gamma' is infinite at t = 0 and t = 1, and so is the variance of the target. The field is not: it is asked
for gamma' E[z | x] = -gamma gamma' score, and gamma gamma' = scale^2 (1/2 - t). So train and ask networks at times
that are `inside` [EDGE, 1 - EDGE]: over uniform times z then adds 2.5 scale^2 to the target's variance, which grows
only with the logarithm of 1/EDGE, and a solver that stands at an end hears the field of EDGE away.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmd.math import paths
from fmd.math.broadcasting import as_float, weighted_sum
from fmd.math.schedules import Schedule
from fmd.types import Images, Number, Scalars, Times

EDGE = 1e-3


def gamma(scale: Number, t: Scalars) -> Float[Array, "..."]:
    """scale sqrt(t (1 - t)), the weight of z."""
    t = as_float(t)
    return scale * jnp.sqrt(t * (1.0 - t))


def d_gamma(scale: Number, t: Scalars) -> Float[Array, "..."]:
    """The time derivative of `gamma`; infinite at t = 0 and t = 1."""
    t = as_float(t)
    return scale * (0.5 - t) / jnp.sqrt(t * (1.0 - t))


def inside(t: Scalars) -> Times:
    """`t` kept in [EDGE, 1 - EDGE]."""
    return jnp.clip(as_float(t), EDGE, 1.0 - EDGE)


def interpolate(
    schedule: Schedule, x0: Images, x1: Images, t: Scalars, z: Images | None = None, *, scale: Number = 0.0
) -> Images:
    """x_t [B, ...] like x0, x1 and z. ValueError if t is neither a scalar nor [B]."""
    x_t = paths.interpolate(schedule, x0, x1, t)
    return x_t if z is None else _plus(x_t, gamma(scale, t), z)


def velocity(
    schedule: Schedule, x0: Images, x1: Images, t: Scalars, z: Images | None = None, *, scale: Number = 0.0
) -> Images:
    """The time derivative of `interpolate` and the training target [B, ...]; with z infinite at both ends."""
    v = paths.velocity(schedule, x0, x1, t)
    return v if z is None else _plus(v, d_gamma(scale, t), z)


def _plus(x: Images, weight: Float[Array, "..."], z: Images) -> Images:
    return weighted_sum(np.promote_types(x.dtype, z.dtype), (jnp.ones_like(weight), x), (weight, z))
