"""Distribution matching: one jump makes the image, and a critic says how its kind differs from a teacher's.

    x = x0 + U(x0, 0, 1),      x_t = alpha(t) x + sigma(t) n,      dKL / dx ~ X_critic(x_t, t) - X_teacher(x_t, t)

(arXiv 2311.18828, 2405.14867). X are posterior means of the data. The teacher is a frozen flow, under any guidance
rule; the critic is a second network that learns, by flow matching, the flow of the images that are made now. Where both
agree for all x_t the images are distributed as the teacher's. There is no pairing of noise and image and no derivative
of a network, so images are as sharp as the teacher's after few steps. But the critic must be faster than the network
(`critic_rate`), and the network must begin with images of all kinds: after some steps of `mean_flow`, say.

The network's own flow U(x, t, t) is kept by flow matching on the data, of weight `keep_flow`, where that is above 0.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from fmd.math import couplings, fields, guidance, paths, schedules, times
from fmd.math.couplings import Coupling
from fmd.math.guidance import Guidance
from fmd.math.schedules import Schedule
from fmd.math.times import TimeSampler
from fmd.methods import flow_matching, register
from fmd.methods.flow_matching import FlowMatching
from fmd.methods.jumps import Jumps
from fmd.methods.method import Drawn, Loss
from fmd.registry import Between
from fmd.types import Condition, Images, Network, Rng, Times

LEAST_DISTANCE = 1e-3  # of an image from the teacher's guess, by which its gradient is divided


@register("distribution_matching")
@dataclass(frozen=True)
class DistributionMatching(Jumps):
    """The method; `guidance` is the rule of the teacher, `critic_rate` the critic's learning rate over the network's.

    `times` are those of x_t, brought between `low` and `high`: near t = 0 the two networks agree, near 1 they are
    asked about noise of a grey level. `clip_data` is as in `flow_matching`, for a teacher that was trained so.
    """

    schedule: Schedule = schedules.get("linear")
    times: TimeSampler = times.get("uniform")
    coupling: Coupling = couplings.get("independent")
    label_dropout: float = 0.1
    guidance: Guidance = guidance.get("cfg")
    critic_rate: Annotated[float, Between(0, open_low=True)] = 10.0
    keep_flow: Annotated[float, Between(0)] = 0.0
    low: Annotated[float, Between(0, 1)] = 0.02
    high: Annotated[float, Between(0, 1)] = 0.95
    clip_data: bool = False

    needs_teacher = True
    frozen_teacher = True
    needs_critic = True
    logs = ("critic_loss",)

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(
                f"method 'distribution_matching': low = {self.low}, high = {self.high}; low must be less than high"
            )

    @property
    def validated(self) -> FlowMatching:
        """The method whose loss compares the flow with that of other runs."""
        return self.flow

    def draw(self, rng: Rng, x1: Images, y: Condition) -> Drawn:
        """Noise to make images of, noise `z` to hide them and the data in, and a time for each."""
        t = times.draw(self.times, rng.key("time"), rng.index, rng.batch_size)
        x0, z = (rng.normal(name, x1.shape[1:]) for name in ("noise", "noise_again"))
        return Drawn(x0, x1, y, t, rng.uniform("label_dropout") < self.label_dropout, z=z)

    def loss(
        self, network: Network, drawn: Drawn, teacher: Network | None = None, critic: Network | None = None
    ) -> Loss:
        """The losses of network and critic, whose gradients do not mix, [B] float32; the value means nothing."""
        assert teacher is not None
        assert critic is not None
        assert drawn.z is not None
        y, count = network.drop(drawn.y, drawn.untold), len(drawn.t)
        t = self.low + (self.high - self.low) * drawn.t
        made = drawn.x0 + network(drawn.x0, jnp.zeros(count), y, jnp.ones(count))
        x1 = jax.lax.stop_gradient(jnp.clip(made, -1, 1) if self.clip_data else made)
        x_t = paths.interpolate(self.schedule, drawn.z, x1, t)

        rule = self.guidance.then(partial(fields.clip_data, self.schedule)) if self.clip_data else self.guidance
        taught = jax.lax.stop_gradient(fields.guided_field(teacher, teacher.drop, rule)(t, x_t, y))
        answer = critic(x_t, t, y, t)
        direction = jax.lax.stop_gradient(self._direction(x1, x_t, t, taught, answer))
        if self.clip_data:  # an overshoot is black as it is
            direction = jnp.where(((made < -1) & (direction > 0)) | ((made > 1) & (direction < 0)), 0.0, direction)
        axes = tuple(range(1, made.ndim))
        value = jnp.mean(direction * made, axis=axes)

        error = answer - paths.velocity(self.schedule, drawn.z, x1, t)
        if self.clip_data:
            data = paths.convert(self.schedule, x_t, t, answer, source="velocity", target="data")
            error = flow_matching.without_overshoot(error, data, x1)
        critic_loss = jnp.mean(error**2, axis=axes)
        value = value + critic_loss
        if self.keep_flow:
            value = value + self.keep_flow * self.flow.loss(network, drawn._replace(x0=drawn.z)).value
        return Loss(value, t, {"critic_loss": critic_loss})

    def _direction(self, x1: Images, x_t: Images, t: Times, taught: Images, answer: Images) -> Images:
        """X_critic - X_teacher [B, ...], over the mean distance of each image from the teacher's guess."""
        if self.clip_data:
            answer = fields.clip_data(self.schedule, answer, x_t, t)
        ours, theirs = (
            paths.convert(self.schedule, x_t, t, v, source="velocity", target="data") for v in (answer, taught)
        )
        distance = jnp.mean(jnp.abs(x1 - theirs), axis=tuple(range(1, x1.ndim)), keepdims=True)
        return (ours - theirs) / (distance + LEAST_DISTANCE)
