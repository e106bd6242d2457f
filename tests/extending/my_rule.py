"""A guidance rule of one's own: a function of the two velocities, x and t."""

from fmd.math import guidance
from fmd.math.broadcasting import expand_left
from fmd.types import Scalars


@guidance.register("my_rule")
def my_rule(weight: Scalars = 1.0, until: float = 0.5):
    def rule(v_null, v_cond, x, t):
        extra = expand_left(weight, v_cond) - 1.0
        return v_cond + extra * (v_cond - v_null) * (expand_left(t, v_cond) < until)

    return guidance.Guidance("my_rule", weight, rule, jump_times=(until,))
