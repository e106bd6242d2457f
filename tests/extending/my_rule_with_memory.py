"""A guidance rule with memory: it averages the difference of the two velocities over the steps."""

import jax.numpy as jnp

from fmd.math import guidance
from fmd.math.broadcasting import expand_left
from fmd.types import Scalars


@guidance.register("my_rule_with_memory")
def my_rule_with_memory(weight: Scalars = 1.0, keep: float = 0.5):
    def rule(memory, v_null, v_cond, x, t):
        memory = keep * memory + (1.0 - keep) * (v_cond - v_null)
        return v_cond + (expand_left(weight, v_cond) - 1.0) * memory, memory

    return guidance.Guidance("my_rule_with_memory", weight, rule, init=jnp.zeros_like)
