"""Times and weights beside arrays: scalars or one per example, never below float32.

bfloat16 has 129 distinct values in [0.5, 1], too few for a time. A Python float keeps its weak type, so it
takes the precision of the array that it meets and promotes nothing. Integers (0 and 1 are times) become floats.
"""

import math
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, Shaped

from fmd.registry import Between
from fmd.types import Images, Number, Scalars

Positive = Annotated[Number, Between(0.0, math.inf, open_low=True, open_high=True)]
"""A positive, finite parameter."""

finfo: Callable[[object], jnp.finfo] = jnp.finfo  # typed


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
    """`t` shaped to broadcast against `x` [B, ...].

    A scalar stays one, [B] becomes [B, 1, ..., 1]. Raises ValueError for every other shape of `t`.
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


def rows_of(marks: Shaped[Array, " B"], x: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
    """A value of any type per example, [B], shaped to broadcast against x [B, ...]."""
    return marks.reshape(-1, *(1,) * (x.ndim - 1))


def times_of_rows(t: Scalars, x: Images) -> Float[Array, " B"]:
    """`t` as one float32 (beside float64 x, float64) per example of x [B, ...]."""
    rows = expand_left(t, x).astype(compute_dtype(x.dtype)).reshape(-1)
    return jnp.broadcast_to(rows, x.shape[:1])


def concrete(value: object) -> bool:
    """True for a value that is known now and can be checked; inside jit an argument is not."""
    return not isinstance(value, jax.core.Tracer)


def compute_dtype(*dtypes: np.dtype) -> np.dtype:
    """The widest of these dtypes, and float32 at least."""
    return np.result_type(np.float32, *dtypes)


def weighted_sum(dtype: np.dtype, *terms: tuple[Float[Array, "..."], Float[Array, "..."]]) -> Float[Array, "..."]:
    """Sum of coefficients (scalar or [B]) times arrays [B, ...], as `dtype`.

    It is computed in float32 or wider. The explicit casts keep bfloat16 arrays and float32 coefficients legal under
    strict dtype promotion.
    """
    compute = compute_dtype(dtype)
    products = [expand_left(c, x).astype(compute) * x.astype(compute) for c, x in terms]
    return sum(products[1:], products[0]).astype(dtype)
