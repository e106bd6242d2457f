"""Brownian noise for a batch, and the Diffrax term that adds it to a drift.

Diffrax draws noise for a state as a whole. Here example i of a batch has a Brownian path of its own, a function of
(key, i, step): the same sample comes out of any batch size and any number of devices. Diffrax's own solvers then take
the steps, so that with g = 0 they compute exactly what they compute for the flow.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


class Noisy(diffrax.AbstractTerm):
    """drift dt + g dW in one term, from dynamics(t, x, args) -> (drift [B, ...], g).

    `knots` are the times of the grid; the last step gets no noise, so that none of it stays in the sample.
    """

    dynamics: Callable[..., Any]
    key: Key[Array, ""]
    indices: Int[Array, " batch"]
    knots: Float[Array, " knots"]
    shape: tuple[int, ...]

    def vf(self, t, y, args):
        drift, g = self.dynamics(t, y, args)
        return drift.astype(y.dtype), g

    def contr(self, t0, t1, **kwargs):
        step = jnp.searchsorted(self.knots, t0, side="right") - 1
        normal = _normal_per_example(self.key, self.indices, step, self.shape, self.knots.dtype)
        noisy = step < self.knots.size - 2
        return t1 - t0, jnp.where(noisy, jnp.sqrt(t1 - t0), 0.0) * normal

    def prod(self, vf, control):
        (drift, g), (dt, dw) = vf, control
        return dt * drift + g * dw


def _normal_per_example(key, indices, step, shape, dtype):
    """Standard normal [B, *shape], row i a function of (key, indices[i], step) alone."""

    def one(index):
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, index), step), shape, dtype)

    return jax.vmap(one)(indices)
