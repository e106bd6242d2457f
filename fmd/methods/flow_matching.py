"""Flow matching: regress the velocity of a path from noise to data, sample by solving its equation.

For a pair of noise x0 and image x1 and a time t the network sees x_t = alpha(t) x1 + sigma(t) x0 and is regressed on
the velocity alpha'(t) x1 + sigma'(t) x0 (arXiv 2210.02747), or on x1 or x0. The target is a sum, never a quotient.
A share of the conditions is not told, so that one network learns the conditional and the unconditional field
(arXiv 2207.12598).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.config import Settings
from fmd.math import couplings, fields, paths, schedules, times
from fmd.math.couplings import Coupling
from fmd.math.schedules import Schedule
from fmd.math.simulators import Solution
from fmd.math.times import TimeSampler
from fmd.methods import register, solving
from fmd.methods.method import Drawn, Loss
from fmd.methods.solving import Velocity
from fmd.registry import Between
from fmd.types import Condition, Field, Images, Network, Rng, Times

SAMPLING_EDGE = 0.01  # how near an end a prediction of data or noise is asked for a velocity, unless `edge` says so
HUBER = 0.00054  # c / sqrt(d) of arXiv 2310.14189


@register("flow_matching")
@dataclass(frozen=True)
class FlowMatching:
    """The method; `error` and `weighting` say how the difference from the target becomes a loss.

    `clip_data` is for images that are black or white in large parts: an overshoot of the predicted image beyond a pixel
    that lies at the end of its range is no error, and fields clip that prediction. A background then comes out as
    black as it is, not in the greys of the network's error.

    `margin` is the same within bounds, and fields clip nothing: so far beyond the end of its range a pixel of the
    prediction is as good as at it, and an overshoot of more counts for what it is more. `clip_data` costs likelihoods
    and predictions of the image, the margin .6 to .9 bits per dimension of digits and clothes.

    `edge` is for predictions of data or noise: the velocity that they amount to is told, and weighed, no closer than
    that to the end where it is not known. With the linear schedule, data and weighting = "velocity" the loss is
    |data - x1|^2 / max(1 - t, edge)^2, that of JiT with 0.05 (arXiv 2511.13720). By default 0.01 when sampling.
    """

    schedule: Schedule = schedules.get("linear")
    times: TimeSampler = times.get("uniform")
    coupling: Coupling = couplings.get("independent")
    prediction: Literal["velocity", "data", "noise"] = "velocity"
    error: Literal["squared", "pseudo_huber"] = "squared"
    weighting: Literal["prediction", "velocity"] = "prediction"
    label_dropout: float = 0.1
    clip_data: bool = False
    margin: Annotated[float, Between(0, 1)] = 0.0
    edge: Annotated[float, Between(0, 0.5, open_low=True, open_high=True)] | None = None

    second_time = False
    needs_teacher = False

    def __post_init__(self) -> None:
        if self.weighting == "velocity" and self.prediction != "velocity" and not (self.times.clip or self.edge):
            raise ValueError(
                f"config.train.weighting = 'velocity' with config.path.prediction = {self.prediction!r} gives "
                f"infinite weights at an end of [0, 1]; set config.path.times.clip, e.g. to 0.01, or config.method.edge"
            )
        if self.margin and self.clip_data:
            raise ValueError(
                f"config.method.margin = {self.margin:g} has no effect with clip_data, which forgives every overshoot; "
                f"leave one of them out"
            )

    def draw(self, rng: Rng, x1: Images, y: Condition) -> Drawn:
        """Noise, time and dropped conditions of a batch; the noise is paired over the whole batch."""
        t = times.draw(self.times, rng.key("time"), rng.index, rng.batch_size)
        return draw_pair(rng, x1, y, t, self.coupling, self.label_dropout)

    def loss(self, network: Network, drawn: Drawn, teacher: Network | None = None) -> Loss:
        """The mean over pixels and channels of the error, weighed, [B] float32.

        With a network that predicts 0, the linear schedule and the velocity, its expectation is E[x1^2] + 1.
        """
        x_t = paths.interpolate(self.schedule, drawn.x0, drawn.x1, drawn.t)
        targets = {
            "velocity": lambda: paths.velocity(self.schedule, drawn.x0, drawn.x1, drawn.t),
            "data": lambda: drawn.x1,
            "noise": lambda: drawn.x0,
        }
        predicted = network(x_t, drawn.t, network.drop(drawn.y, drawn.untold))
        error = predicted - targets[self.prediction]()
        if self.clip_data or self.margin:
            data = paths.convert(self.schedule, x_t, drawn.t, predicted, source=self.prediction, target="data")
            error = without_overshoot(error, data, drawn.x1, jnp.inf if self.clip_data else self.margin)
        squared = jnp.mean(error**2, axis=tuple(range(1, error.ndim)))
        if self.weighting == "velocity":
            squared = squared * velocity_weight(self.schedule, drawn.t, self.prediction, self.edge or 0.0)
        if self.error == "pseudo_huber":  # sqrt(|e|^2 + c^2) - c, divided by sqrt(d): a mean over pixels, too
            squared = jnp.sqrt(squared + HUBER**2) - HUBER
        return Loss(squared, drawn.t)

    def field(self, network: Network) -> Field:
        """The velocity field(t, x, y) of the network, without guidance."""
        return as_field(self.velocity(network))

    def velocity(self, network: Network) -> Velocity:
        """The velocity(x, t, y) of the network."""
        edge = SAMPLING_EDGE if self.edge is None else self.edge
        velocity = fields.as_velocity(network, self.schedule, self.prediction, edge=edge)
        return clipped(velocity, self.schedule) if self.clip_data else velocity

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
        """Solves the guided equation from noise x0 [B, ...]."""
        weaker = None if weak is None else self.velocity(weak)
        return solving.solve(self, network, self.velocity(network), x0, y, settings, rng=rng, weak=weaker)

    def check(self, settings: Settings) -> None:
        """Raises ValueError for settings that cannot be sampled with."""
        solving.check(self, settings)


def draw_pair(rng: Rng, x1: Images, y: Condition, t: Times, coupling: Coupling, label_dropout: float) -> Drawn:
    """A pair for each image, coupled over the whole batch, and whose condition is not told."""
    x0 = rng.normal("noise", x1.shape[1:])
    if not coupling.independent:
        labels = y.get("label") if isinstance(y, dict) else y
        x0 = rng.whole_batch(lambda *batch: coupling(rng.key("coupling"), *batch)[0], x0, x1, labels)
    return Drawn(x0, x1, y, t, rng.uniform("label_dropout") < label_dropout)


def without_overshoot(error: Images, data: Images, x1: Images, margin: float = jnp.inf) -> Images:
    """The error [B, ...] without what the predicted data lie beyond a pixel of x1 at the end of [-1, 1].

    Of an overshoot of more than `margin` the rest remains. `error` is proportional to data - x1 in each pixel.
    """
    overshoot = jnp.where(x1 <= -1, -1 - data, jnp.where(x1 >= 1, data - 1, 0.0))
    beyond = overshoot > 0
    share = jnp.maximum(overshoot - margin, 0.0) / jnp.where(beyond, overshoot, 1.0)
    return jnp.where(beyond, share * error, error)


def clipped(velocity: Velocity, schedule: Schedule) -> Velocity:
    """The velocity with its data prediction inside [-1, 1]."""
    return lambda x, t, y: fields.clip_data(schedule, velocity(x, t, y), x, t)


def as_field(velocity: Velocity) -> Field:
    """velocity(x, t, y) as a field(t, x, y) of a solver."""
    return lambda t, x, args=None: velocity(x, t, args)


def velocity_weight(
    schedule: Schedule, t: Float[Array, " B"], prediction: str, edge: float = 0.0
) -> Float[Array, " B"]:
    """The squared velocity error that a squared error of 1 amounts to, [B].

    With D = alpha' sigma - alpha sigma': 1 for the velocity, (D / sigma)^2 for data, (D / alpha)^2 for noise
    (arXiv 2303.00848). Infinite at t = 1 for data and at t = 0 for noise: no closer to these ends than `edge` it grows
    no more.
    """
    t = {"velocity": t, "data": jnp.minimum(t, 1 - edge), "noise": jnp.maximum(t, edge)}[prediction]
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    determinant = schedule.d_alpha(t) * sigma - alpha * schedule.d_sigma(t)
    return {
        "velocity": lambda: jnp.ones_like(t),
        "data": lambda: (determinant / sigma) ** 2,
        "noise": lambda: (determinant / alpha) ** 2,
    }[prediction]()
