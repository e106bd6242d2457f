"""A method of one's own with a teacher: a network that agrees with its average, beside flow matching."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fmd import methods
from fmd.math import paths
from fmd.methods.flow_matching import FlowMatching


@methods.register("my_method_with_teacher")
@dataclass(frozen=True)
class Agreeing(FlowMatching):
    pull: float = 0.1
    needs_teacher = True
    logs = ("distance",)

    def loss(self, network, drawn, teacher=None):
        plain = super().loss(network, drawn)
        x_t = paths.interpolate(self.schedule, drawn.x0, drawn.x1, drawn.t)
        asked = (x_t, drawn.t, network.drop(drawn.y, drawn.untold))
        distance = jnp.mean((network(*asked) - jax.lax.stop_gradient(teacher(*asked))) ** 2, axis=(1, 2, 3))
        return methods.Loss(plain.value + self.pull * distance, drawn.t, {"distance": distance})
