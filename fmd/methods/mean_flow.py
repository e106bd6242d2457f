"""MeanFlow: regress the average velocity between two times, sample by one or a few jumps (arXiv 2505.13447).

    U(x_t, t, r) = 1/(r - t) int_t^r v(x_s, s) ds,      U = v + (r - t) dU/dt,      x_r = x_t + (r - t) U(x_t, t, r)

The second identity is the target; its derivative along the path is one `jax.jvp`. At r = t it is flow matching, so the
same network also solves the flow. The tangent is the velocity of the pair, or that of the network itself
(arXiv 2512.02012), or of its average, which makes the target quieter. A frozen teacher can give tangent and target:
then the target has no noise at all, and the teacher's guidance is learned with it.

The integral can be solved instead of differentiated (arXiv 2101.02388 from noise to image): a step costs more, and no
error of the network's derivative is in the target.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.math import couplings, few_step, fields, guidance, paths, schedules, times
from fmd.math.broadcasting import rows_of
from fmd.math.couplings import Coupling
from fmd.math.guidance import Guidance
from fmd.math.schedules import Schedule
from fmd.math.times import TimeSampler
from fmd.methods import flow_matching, register
from fmd.methods.jumps import Jumps
from fmd.methods.method import Drawn, Loss
from fmd.methods.solving import Velocity
from fmd.registry import Between
from fmd.types import Condition, Images, Network, Rng

LAST_GREY = 1 - 1 / 255  # half a grey level from white and black
Weight = Annotated[float, Between(0, math.inf, open_low=True, open_high=True)]


@register("mean_flow")
@dataclass(frozen=True)
class MeanFlow(Jumps):
    """The method; `equal` is the share of rows with r = t, `ends` that of the others which go from t = 0 to r = 1.

    `power` and `c` weigh an example's squared error e, a mean over pixels, by 1 / (e + c)^power. `tangent` and `target`
    say whose velocity is v in the derivative and in the target; "teacher" is a frozen model, under the rule `guidance`.
    The derivative counts fully from step `warmup` on, before in proportion. With `steps` above 0 there is none: the
    flow of `tangent` is solved from t to r by so many midpoint steps. `clip_data` is as in `flow_matching`, for a
    teacher that was trained so, and holds for the images that jumps end at. With `weights`, a range, the network is
    told a guidance weight of it, one per example, and learns the flow guided by it: by the teacher's, or from pairs by

        v + (1 - 1/w) (U(x, t, t | y, w) - U(x, t, t | untold, 1)),

    whose fixed point is v_untold + w (v - v_untold) (arXiv 2512.02012). One jump then takes any weight.
    """

    schedule: Schedule = schedules.get("linear")
    times: TimeSampler = times.get("uniform")
    coupling: Coupling = couplings.get("independent")
    label_dropout: float = 0.1
    equal: float = 0.75
    ends: float = 0.0
    power: float = 1.0
    c: float = 1e-3
    tangent: Literal["pair", "network", "average", "teacher"] = "pair"
    target: Literal["pair", "teacher"] = "pair"
    guidance: Guidance = guidance.get("cfg")
    warmup: Annotated[int, Between(0)] = 0
    steps: Annotated[int, Between(0)] = 0
    clip_data: bool = False
    weights: tuple[Weight, Weight] | None = None

    logs = ("squared_error",)

    def __post_init__(self) -> None:
        if self.weights is not None and self.weights[0] > self.weights[1]:
            raise ValueError(f"method 'mean_flow': weights = {self.weights}; the lower one must come first")
        if self.weights is not None and self.guidance.name != "cfg":
            raise ValueError(
                f"method 'mean_flow': weights = {self.weights} go with guidance 'cfg', not {self.guidance.name!r}"
            )
        if self.weights is not None and self.target == "pair" and self.tangent == "pair":
            raise ValueError("method 'mean_flow': weights need tangent 'network', 'average' or 'teacher'")
        if self.target == "teacher" and self.tangent == "average":
            raise ValueError(
                "method 'mean_flow': target 'teacher' with tangent 'average' asks for two teachers; take the tangent "
                "from the teacher, the network or the pair"
            )
        if self.steps and self.tangent == "pair":
            raise ValueError(
                f"method 'mean_flow': steps = {self.steps} solves the flow of the tangent, and a pair has none; take "
                f"tangent 'network', 'average' or 'teacher'"
            )
        if self.steps and self.warmup:
            raise ValueError(f"method 'mean_flow': warmup = {self.warmup} has no effect with steps; leave it out")
        for name in ("equal", "ends", "label_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"method 'mean_flow': {name} = {getattr(self, name)}; it must be a share in [0, 1]")

    @property
    def needs_teacher(self) -> bool:
        return self.tangent == "average" or self.frozen_teacher

    @property
    def frozen_teacher(self) -> bool:
        return "teacher" in (self.tangent, self.target)

    @property
    def validated(self) -> "MeanFlow":
        """The method without a frozen teacher, whose loss compares runs with and without one."""
        return replace(self, tangent="pair", target="pair", steps=0) if self.frozen_teacher else self

    def draw(self, rng: Rng, x1: Images, y: Condition) -> Drawn:
        """A pair and two times t <= r for each image."""
        first = times.draw(self.times, rng.key("time"), rng.index, rng.batch_size)
        second = self.times.from_uniform(rng.uniform("second_time"))  # stratified, it would follow the first
        equal, ends = rng.uniform("equal_times") < self.equal, rng.uniform("end_times") < self.ends
        t, r = jnp.minimum(first, second), jnp.maximum(first, second)
        t, r = jnp.where(ends, 0.0, t), jnp.where(ends, 1.0, r)
        t, r = jnp.where(equal, first, t), jnp.where(equal, first, r)
        drawn = flow_matching.draw_pair(rng, x1, y, t, self.coupling, self.label_dropout)
        warm = jnp.minimum(1.0, (rng.step + 1) / self.warmup) if self.warmup else 1.0
        weight = None
        if self.weights is not None:  # log-uniform, as in the paper
            low, high = jnp.log(jnp.array(self.weights, jnp.float32))
            weight = jnp.exp(low + (high - low) * rng.uniform("weight"))
        return drawn._replace(r=r, derivative=jnp.broadcast_to(jnp.float32(warm), t.shape), weight=weight)

    def loss(self, network: Network, drawn: Drawn, teacher: Network | None = None) -> Loss:
        """The weighed squared error of U from its target, [B] float32; `squared_error` without the weight."""
        assert drawn.r is not None
        y = network.drop(drawn.y, drawn.untold)
        x_t, pair = (f(self.schedule, drawn.x0, drawn.x1, drawn.t) for f in (paths.interpolate, paths.velocity))
        weight = {} if drawn.weight is None else {"w": drawn.weight}
        at: dict[str, Velocity] = {"network": lambda x, t, y: network(x, t, y, t, **weight)}
        if teacher is not None:
            rule = self.guidance if drawn.weight is None else guidance.get("cfg", weight=drawn.weight)
            guided = fields.guided_field(teacher, teacher.drop, rule)
            at["average"] = lambda x, t, y: teacher(x, t, y, t, **weight)
            at["teacher"] = lambda x, t, y: guided(t, x, y)
        if self.clip_data:
            at = {name: flow_matching.clipped(velocity, self.schedule) for name, velocity in at.items()}
        at["pair"] = lambda x, t, y: pair
        asked = {
            name: jax.lax.stop_gradient(at[name](x_t, drawn.t, y))
            for name in dict.fromkeys((self.tangent, self.target))
        }
        if drawn.weight is not None and self.target == "pair":
            null = jax.lax.stop_gradient(network(x_t, drawn.t, network.drop(drawn.y), drawn.t))
            strength = jnp.where(drawn.untold, 0.0, 1 - 1 / drawn.weight)
            asked["pair"] = pair + rows_of(strength, pair) * (asked[self.tangent] - null)
        if self.steps == 0 and self.equal < 1:
            predicted, target = few_step.mean_flow(
                lambda x, t, r: network(x, t, y, r, **weight),
                asked[self.target],
                x_t,
                drawn.t,
                drawn.r,
                tangent=asked[self.tangent],
                share=drawn.derivative,
            )
        else:
            predicted, target = network(x_t, drawn.t, y, drawn.r, **weight), asked[self.target]
            if self.equal < 1:
                field = flow_matching.as_field(at[self.tangent])
                solved = few_step.solved(field, x_t, drawn.t, drawn.r, args=y, steps=self.steps)
                target = jnp.where(rows_of(drawn.r > drawn.t, x_t), jax.lax.stop_gradient(solved), target)
        error = predicted - target
        if self.clip_data:
            found, wanted = (few_step.end(self.schedule, u, x_t, drawn.t, drawn.r) for u in (predicted, target))
            wanted = jnp.where(jnp.abs(wanted) > LAST_GREY, jnp.sign(wanted), wanted)  # black up to rounding
            error = flow_matching.without_overshoot(error, found, wanted)
        return weighed(error, drawn.t, self.power, self.c)


def weighed(error: Images, t: Float[Array, " B"], power: float, c: float) -> Loss:
    """The adaptively weighed loss of an error [B, ...], with the plain one as a figure."""
    squared = jnp.mean(error**2, axis=tuple(range(1, error.ndim)))
    return Loss(squared * few_step.adaptive_weight(squared, power, c), t, {"squared_error": squared})
