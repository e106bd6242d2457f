"""An operator of an inverse problem of one's own: a gradient image, each pixel less its left neighbour."""

import jax.numpy as jnp

from fmd.math import operators
from fmd.math.operators import Operator


@operators.register("my_operator")
def my_operator(gain: float = 1.0):
    return Operator("my_operator", lambda x: gain * (x - jnp.roll(x, 1, axis=-2)), params=(gain,))
