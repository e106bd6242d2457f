"""Reflow: flow matching on pairs of noise and the images that a teacher's flow makes of it (arXiv 2209.03003).

    x1 = where the teacher's (guided) flow takes x0,      loss = |v(x_t, t) - (alpha'(t) x1 + sigma'(t) x0)|^2

The pairs are drawn anew in each step, so no set of them has to be kept; the data give labels and shapes. The flow of
such pairs is straighter than the teacher's, exactly straight at the optimum, where one Euler step is enough. Guidance
is learned with the rest: sample with weight 1. Noise and image are not independent, so there is no score and no
stochastic equation.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from fmd.config import Settings
from fmd.math import couplings, few_step, fields, guidance, schedules, times
from fmd.math.couplings import Coupling
from fmd.math.guidance import Guidance
from fmd.math.schedules import Schedule
from fmd.math.simulators import Solution
from fmd.math.times import TimeSampler
from fmd.methods import flow_matching, register
from fmd.methods.flow_matching import FlowMatching
from fmd.methods.method import Drawn, Loss
from fmd.registry import Between
from fmd.types import Condition, Field, Images, Network, Rng

PAIRS = Coupling("teacher", lambda key, cost: jnp.arange(len(cost)))  # dependent, as no other pairing is


@register("reflow")
@dataclass(frozen=True)
class Reflow:
    """The method; `guidance`, `solver` and `steps` say how the teacher makes its image of a noise."""

    schedule: Schedule = schedules.get("linear")
    times: TimeSampler = times.get("uniform")
    label_dropout: float = 0.1
    guidance: Guidance = guidance.get("cfg")
    solver: str = "midpoint"
    steps: Annotated[int, Between(1)] = 5
    clip_data: bool = False

    second_time = False
    needs_teacher = True
    frozen_teacher = True
    coupling = PAIRS

    @property
    def validated(self) -> FlowMatching:
        """Flow matching of the data, whose loss is lower for a teacher than for its pupil."""
        return FlowMatching(self.schedule, self.times, clip_data=self.clip_data)

    def draw(self, rng: Rng, x1: Images, y: Condition) -> Drawn:
        """Noise and time of each image, and whose condition is not told."""
        t = times.draw(self.times, rng.key("time"), rng.index, rng.batch_size)
        return flow_matching.draw_pair(rng, x1, y, t, couplings.get("independent"), self.label_dropout)

    def loss(self, network: Network, drawn: Drawn, teacher: Network | None = None) -> Loss:
        """That of flow matching with the teacher's images in place of the data, [B] float32."""
        assert teacher is not None
        y = network.drop(drawn.y, drawn.untold)
        rule = self.guidance.then(partial(fields.clip_data, self.schedule)) if self.clip_data else self.guidance
        field = fields.guided_field(teacher, teacher.drop, rule)
        x0 = drawn.x0 * self.schedule.prior_std
        _, x1 = few_step.reflow_pairs(field, x0, args=y, solver=self.solver, steps=self.steps)
        x1 = jax.lax.stop_gradient(jnp.clip(x1, -1, 1) if self.clip_data else x1)
        return self.validated.loss(network, drawn._replace(x1=x1, y=y, untold=jnp.zeros_like(drawn.untold)))

    def field(self, network: Network) -> Field:
        """The velocity field(t, x, y) of the network, without guidance."""
        return self.validated.field(network)

    def sample(
        self,
        network: Network,
        x0: Images,
        y: Condition,
        settings: Settings,
        *,
        rng: Rng | None = None,
        weak: Network | None = None,
    ) -> Solution:
        """Solves the flow from noise x0 [B, ...]."""
        return self.validated.sample(network, x0, y, settings, rng=rng, weak=weak)

    def check(self, settings: Settings) -> None:
        """Raises ValueError for settings that cannot be sampled with."""
        flow_matching.check(self, settings)
