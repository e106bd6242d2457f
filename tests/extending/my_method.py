"""A method of one's own with two times: regress the pair's displacement, sample by Euler jumps to r."""

from dataclasses import dataclass

import jax.numpy as jnp

from fmd import methods
from fmd.math import paths, schedules
from fmd.math.schedules import Schedule
from fmd.math.simulators import Solution


@methods.register("my_method")
@dataclass(frozen=True)
class MyMethod:
    schedule: Schedule = schedules.get("linear")
    label_dropout: float = 0.1
    second_time, needs_teacher = True, False

    def draw(self, rng, x1, y):
        t, r = jnp.sort(jnp.stack([rng.uniform("time"), rng.uniform("later_time")]), axis=0)
        x0 = rng.normal("noise", x1.shape[1:])
        return methods.Drawn(x0, x1, y, t, rng.uniform("label_dropout") < self.label_dropout, r)

    def loss(self, network, drawn, teacher=None):
        x_t, x_r = (paths.interpolate(self.schedule, drawn.x0, drawn.x1, time) for time in (drawn.t, drawn.r))
        step = network(x_t, drawn.t, network.drop(drawn.y, drawn.untold), drawn.r)
        return methods.Loss(jnp.mean((x_t + step - x_r) ** 2, axis=(1, 2, 3)), drawn.t)

    def sample(self, network, x0, y, settings):
        x, count = x0, len(x0)
        for i in range(settings.steps):
            t, r = (jnp.full(count, k / settings.steps) for k in (i, i + 1))
            x = x + network(x, t, y, r)
        return Solution(x, None, None, jnp.full(count, settings.steps), jnp.isfinite(x).all(axis=(1, 2, 3)))
