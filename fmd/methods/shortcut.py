"""Shortcut models: a long step is taught by two short ones of the averaged network (arXiv 2410.12557).

    U(x, t, t + 2d) = (U(x, t, t + d) + U(x', t + d, t + 2d)) / 2,      x' = x + d U(x, t, t + d)

on a grid of steps d = 1/2, 1/4, ..., 1/finest; the other rows are flow matching, U(x, t, t) = v. No derivative of the
network is needed.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from fmd.math import couplings, few_step, paths, schedules, times
from fmd.math.broadcasting import rows_of
from fmd.math.couplings import Coupling
from fmd.math.schedules import Schedule
from fmd.math.times import TimeSampler
from fmd.methods import flow_matching, register
from fmd.methods.jumps import Jumps
from fmd.methods.method import Drawn, Loss
from fmd.types import Condition, Images, Network, Rng


@register("shortcut")
@dataclass(frozen=True)
class Shortcut(Jumps):
    """The method; `share` of the rows learn long steps, `finest` is the number of steps of the finest grid."""

    schedule: Schedule = schedules.get("linear")
    times: TimeSampler = times.get("uniform")
    coupling: Coupling = couplings.get("independent")
    label_dropout: float = 0.1
    share: float = 0.125
    finest: int = 128

    needs_teacher = True

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"method 'shortcut': share = {self.share}; it must lie in [0, 1]")
        if self.finest < 2 or self.finest & (self.finest - 1):
            raise ValueError(f"method 'shortcut': finest = {self.finest}; it must be a power of two, 2 or more")

    def draw(self, rng: Rng, x1: Images, y: Condition) -> Drawn:
        """A pair and its times: r = t for flow matching, r = t + 2d on the grid of 2d for a long step."""
        t = times.draw(self.times, rng.key("time"), rng.index, rng.batch_size)
        levels = self.finest.bit_length() - 1  # 2d = 1, 1/2, ..., 2/finest
        level = jnp.floor(rng.uniform("step_size") * levels)
        count = jnp.exp2(level)  # steps of 2d in [0, 1]
        start = jnp.floor(t * count) / count
        long = rng.uniform("long_step") < self.share
        drawn = flow_matching.draw_pair(rng, x1, y, jnp.where(long, start, t), self.coupling, self.label_dropout)
        return drawn._replace(r=jnp.where(long, start + 1.0 / count, t))

    def loss(self, network: Network, drawn: Drawn, teacher: Network | None = None) -> Loss:
        """The squared error from v, or from two short steps of the teacher; the mean over pixels, [B] float32."""
        assert teacher is not None
        assert drawn.r is not None
        y = network.drop(drawn.y, drawn.untold)
        x_t, v = (f(self.schedule, drawn.x0, drawn.x1, drawn.t) for f in (paths.interpolate, paths.velocity))
        half = (drawn.r - drawn.t) / 2
        two_steps = few_step.shortcut(lambda x, t, r: teacher(x, t, y, r), x_t, drawn.t, half)
        error = network(x_t, drawn.t, y, drawn.r) - jnp.where(rows_of(half > 0, x_t), two_steps, v)
        return Loss(jnp.mean(error**2, axis=tuple(range(1, error.ndim))), drawn.t)
