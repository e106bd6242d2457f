"""Times enter every formula of this room as a scalar or one per example; this file checks and shapes them once.

A time is never below float32: bfloat16 has 129 distinct values in [0.5, 1]. A Python float keeps its weak type, so it
takes the precision of the array that it meets and promotes nothing. Integers (0 and 1 are times) become floats.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, Real

Number = float | int
"""A Python number: a parameter fixed when the function is built."""

Scalars = Real[Array, "..."] | Real[np.ndarray, "..."] | np.floating | np.integer | float | int
"""A real number or an array of them: times, log signal-to-noise ratios, weights."""


def as_float(value: Scalars, what: str = "t") -> Float[Array, "..."]:
    """`value` as an array of float32 or float64, weakly typed where it was a Python number.

    Raises ValueError, naming the quantity as `what`, for any narrower or non-real dtype.
    """
    array = jnp.asarray(float(value) if isinstance(value, int) else value)
    array = array.astype(jnp.result_type(float)) if jnp.issubdtype(array.dtype, jnp.integer) else array
    if array.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"{what} has dtype {array.dtype}; it must be float32 or float64 (cast it before the call)")
    return array


def expand_left(t: Scalars, x: Num[Array, "..."]) -> Float[Array, "..."]:
    """`t` (scalar or [B]) shaped to broadcast against `x` [B, ...]: a scalar stays one, [B] becomes [B, 1, ..., 1].

    Raises ValueError for every other shape of `t`.
    """
    t = as_float(t)
    if t.ndim == 0:
        return t
    if x.ndim == 0 or t.shape != x.shape[:1]:
        raise ValueError(
            f"got t or a weight of shape {t.shape} for an array of shape {x.shape}; "
            "it must be a scalar or one value per example, [B]"
        )
    return t.reshape(t.shape + (1,) * (x.ndim - 1))


def concrete(value: Any) -> bool:
    """Whether a value is known now, so that it can be checked; inside jit an argument is not."""
    return not isinstance(value, jax.core.Tracer)


def compute_dtype(*dtypes: np.dtype) -> np.dtype:
    """The dtype to compute in: the widest of these, and float32 at least."""
    return np.result_type(np.float32, *dtypes)


def weighted_sum(dtype: np.dtype, *terms: tuple[Float[Array, "..."], Float[Array, "..."]]) -> Float[Array, "..."]:
    """Sum of coefficient (scalar or [B]) times array ([B, ...]), computed in float32 or wider, returned as `dtype`.

    The explicit casts keep bfloat16 arrays and float32 coefficients legal under strict dtype promotion.
    """
    compute = compute_dtype(dtype)
    products = [expand_left(c, x).astype(compute) * x.astype(compute) for c, x in terms]
    return sum(products[1:], products[0]).astype(dtype)
