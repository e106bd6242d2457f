"""MeanFlow: regress the average velocity between two times, sample by one or a few jumps (arXiv 2505.13447).

    U(x_t, t, r) = 1/(r - t) int_t^r v(x_s, s) ds,      U = v + (r - t) dU/dt,      x_r = x_t + (r - t) U(x_t, t, r)

The second identity is the target; its derivative along the path is one `jax.jvp`. At r = t it is flow matching, so the
same network also solves the flow. The tangent is the velocity of the pair, or that of the network itself
(arXiv 2512.02012), or of its average, which makes the target quieter.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.config import Settings
from fmd.math import couplings, few_step, fields, grids, paths, schedules, times
from fmd.math.couplings import Coupling
from fmd.math.schedules import Schedule
from fmd.math.simulators import Solution
from fmd.math.times import TimeSampler
from fmd.methods import flow_matching, register
from fmd.methods.method import Drawn, Loss
from fmd.types import Condition, Field, Images, Network, Rng, Times

JUMP = "jump"  # the solver of `Settings` that takes steps of the average velocity


@register("mean_flow")
@dataclass(frozen=True)
class MeanFlow:
    """The method; `equal` is the share of rows with r = t, `ends` that of the others which go from t = 0 to r = 1.

    `power` and `c` weigh an example's squared error e, a mean over pixels, by 1 / (e + c)^power.
    """

    schedule: Schedule = schedules.get("linear")
    times: TimeSampler = times.get("uniform")
    coupling: Coupling = couplings.get("independent")
    label_dropout: float = 0.1
    equal: float = 0.75
    ends: float = 0.0
    power: float = 1.0
    c: float = 1e-3
    tangent: Literal["pair", "network", "average"] = "pair"

    second_time = True
    logs = ("squared_error",)

    def __post_init__(self) -> None:
        for name in ("equal", "ends", "label_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"method 'mean_flow': {name} = {getattr(self, name)}; it must be a share in [0, 1]")

    @property
    def needs_teacher(self) -> bool:
        return self.tangent == "average"

    def draw(self, rng: Rng, x1: Images, y: Condition) -> Drawn:
        """A pair and two times t <= r for each image."""
        first, second = (
            times.draw(self.times, rng.key(name), rng.index, rng.batch_size) for name in ("time", "second_time")
        )
        equal, ends = rng.uniform("equal_times") < self.equal, rng.uniform("end_times") < self.ends
        t, r = jnp.minimum(first, second), jnp.maximum(first, second)
        t, r = jnp.where(ends, 0.0, t), jnp.where(ends, 1.0, r)
        t, r = jnp.where(equal, first, t), jnp.where(equal, first, r)
        return flow_matching.draw_pair(rng, x1, y, t, self.coupling, self.label_dropout)._replace(r=r)

    def loss(self, network: Network, drawn: Drawn, teacher: Network | None = None) -> Loss:
        """The weighed squared error of U from its target, [B] float32; `squared_error` without the weight."""
        assert drawn.r is not None
        y = network.drop(drawn.y, drawn.untold)
        x_t, v = (f(self.schedule, drawn.x0, drawn.x1, drawn.t) for f in (paths.interpolate, paths.velocity))
        tangent = v
        if self.tangent != "pair":
            asked = network if self.tangent == "network" else teacher
            assert asked is not None
            tangent = jax.lax.stop_gradient(asked(x_t, drawn.t, y, drawn.t))
        predicted, target = few_step.mean_flow(
            lambda x, t, r: network(x, t, y, r), v, x_t, drawn.t, drawn.r, tangent=tangent
        )
        return weighed(predicted - target, drawn.t, self.power, self.c)

    def field(self, network: Network) -> Field:
        """The velocity field(t, x, y) = U(x, t, t) of the network."""
        return fields.from_model(network, self.schedule, "velocity")

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
        """Jumps of the settings' steps where its solver is "jump"; else solves the flow of U(x, t, t)."""
        if settings.solver == JUMP:
            return jumps(network, x0 * self.schedule.prior_std, y, settings, self.schedule)
        return flow_matching.solve(self, network, network, x0, y, settings, rng=rng, weak=weak)

    def check(self, settings: Settings) -> None:
        """Raises ValueError for settings that cannot be sampled with."""
        check(self, settings)


def weighed(error: Images, t: Float[Array, " B"], power: float, c: float) -> Loss:
    """The adaptively weighed loss of an error [B, ...], with the plain one as a figure."""
    squared = jnp.mean(error**2, axis=tuple(range(1, error.ndim)))
    return Loss(squared * few_step.adaptive_weight(squared, power, c), t, {"squared_error": squared})


def jumps(network: Network, x0: Images, y: Condition, settings: Settings, schedule: Schedule) -> Solution:
    """x_r = x_t + (r - t) U(x_t, t, r) between neighbouring times of the grid, one evaluation each."""
    knots = grids.get(settings.grid.name, settings.steps, schedule=schedule, **settings.grid.params)
    count = x0.shape[0]

    def jump(x: Images, ends: tuple[Times, Times]) -> tuple[Images, Images]:
        t, r = (jnp.full(count, end) for end in ends)
        x = few_step.jump(lambda x, t, r: network(x, t, y, r), x, t, r)
        return x, x

    x, states = jax.lax.scan(jump, x0, (knots[:-1], knots[1:]))
    finite = jnp.isfinite(x).all(axis=tuple(range(1, x.ndim)))
    evaluations = jnp.full(count, settings.steps, jnp.int32)
    if settings.times is None:
        return Solution(x, None, None, evaluations, finite)
    wanted = jnp.asarray(settings.times, jnp.float32)  # between two jumps the state of the one before is shown
    states = jnp.concatenate([x0[None], states])
    shown = states[jnp.searchsorted(knots, wanted + 1e-6, side="right") - 1]
    solution = Solution(x, shown, wanted, evaluations, finite)
    return solution._replace(trajectory=flow_matching.to_show(solution, schedule))


def check(method: flow_matching.OnPath, settings: Settings) -> None:
    """Raises ValueError for settings that neither jumps nor the flow can take."""
    if settings.solver != JUMP:
        flow_matching.check(method, settings)
        return
    if settings.weight != 1.0 or "weak" in settings.guidance or settings.guidance.name != "cfg":
        raise ValueError(
            f"guidance {dict(settings.guidance)} with solver 'jump': jumps are not guided; use weight 1, or a solver "
            f"such as midpoint, which solves the guided flow of the same network"
        )
    for key in ("sde", "schedule", "rtol", "atol"):
        if getattr(settings, key) is not None:
            raise ValueError(f"sample.{key} = {getattr(settings, key)} has no effect with solver 'jump'; leave it out")
    grids.get(settings.grid.name, settings.steps, schedule=method.schedule, **settings.grid.params)
