"""Reflow: flow matching on pairs of noise and the images that a teacher's flow makes of it (arXiv 2209.03003).

    x1 = where the teacher's (guided) flow takes x0,      loss = |v(x_t, t) - (alpha'(t) x1 + sigma'(t) x0)|^2

The pairs are drawn anew in each step, so no set of them has to be kept; the data give labels and shapes. The flow of
such pairs is straighter than the teacher's, exactly straight at the optimum, where one Euler step is enough. Guidance
is learned with the rest: sample with weight 1. Noise and image are not independent, so there is no score and no
stochastic equation.
"""

from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from fmd.config import Settings
from fmd.math import few_step, guidance
from fmd.math.fields import clip_data, guided_field
from fmd.math.guidance import Guidance
from fmd.methods import register
from fmd.methods.flow_matching import FlowMatching
from fmd.methods.method import Drawn, Loss
from fmd.registry import Between
from fmd.types import Network


@register("reflow")
@dataclass(frozen=True)
class Reflow(FlowMatching):
    """The method; `guidance`, `solver` and `steps` say how the teacher makes its image of a noise."""

    guidance: Guidance = guidance.get("cfg")
    solver: str = "midpoint"
    steps: Annotated[int, Between(1)] = 5

    needs_teacher = True
    frozen_teacher = True

    @property
    def validated(self) -> FlowMatching:
        """Flow matching of the data, whose loss is lower for a teacher than for its pupil."""
        return FlowMatching(**{field.name: getattr(self, field.name) for field in fields(FlowMatching)})

    def loss(self, network: Network, drawn: Drawn, teacher: Network | None = None) -> Loss:
        """That of flow matching with the teacher's images in place of the data, [B] float32."""
        assert teacher is not None
        y = network.drop(drawn.y, drawn.untold)
        rule = self.guidance.then(partial(clip_data, self.schedule)) if self.clip_data else self.guidance
        field = guided_field(teacher, teacher.drop, rule)
        x0 = drawn.x0 * self.schedule.prior_std
        _, x1 = few_step.reflow_pairs(field, x0, args=y, solver=self.solver, steps=self.steps)
        x1 = jax.lax.stop_gradient(jnp.clip(x1, -1, 1) if self.clip_data else x1)
        return super().loss(network, drawn._replace(x1=x1))

    def check(self, settings: Settings) -> None:
        """Raises ValueError for settings that cannot be sampled with."""
        if settings.sde is not None:
            raise ValueError("the stochastic equation needs the score, which these pairs do not give; leave it out")
        super().check(settings)
