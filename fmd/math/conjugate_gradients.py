"""Conjugate gradients: x with A x = b for a symmetric, positive semi-definite A, each example of a batch by itself.

Started at zero, n steps solve the system exactly where A has n distinct eigenvalues, and b in its range gives the
shortest solution. An example that has arrived, or along whose direction A is not positive (the Jacobian of a network
need not be), stays where it is, so that it does not depend on the others of its batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fmd.types import Images

Map = Callable[[Images], Images]
Rows = Float[Array, "B ..."]
State = tuple[Array, Images, Images, Images, Rows, Bool[Array, "B ..."]]

TOLERANCE = 1e-6


def solve(apply: Map, b: Images, *, steps: int, tolerance: float = TOLERANCE) -> Images:
    """x [B, ...] with apply(x) = b [B, ...], from zero by at most `steps` steps; in the dtype of b.

    An example has arrived where |apply(x) - b| <= tolerance |b|.
    """
    enough = tolerance**2 * inner(b, b)

    def unfinished(state: State) -> Array:
        return (state[0] < steps) & jnp.any(state[-1])

    def step(state: State) -> State:
        count, x, residual, direction, size, moving = state
        image = apply(direction)
        curvature = inner(direction, image)
        moving &= curvature > 0
        length = jnp.where(moving, size / jnp.where(moving, curvature, 1), 0)
        x, residual = x + length * direction, residual - length * image
        after = inner(residual, residual)
        share = jnp.where(moving, after / jnp.where(moving, size, 1), 0)
        return count + 1, x, residual, residual + share * direction, after, moving & (after > enough)

    size = inner(b, b)
    start = jnp.zeros((), jnp.int32), jnp.zeros_like(b), b, b, size, size > 0
    return jax.lax.while_loop(unfinished, step, start)[1]


def inner(a: Images, b: Images) -> Rows:
    """The inner product of each example, [B, 1, ..., 1]."""
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)), keepdims=True)
