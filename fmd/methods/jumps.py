"""Sampling by jumps of an average velocity, shared by the methods whose networks have a second time.

    x_r = x_t + (r - t) U(x_t, t, r)

One evaluation each; a single jump from 0 to 1 makes the image. At r = t the network predicts the velocity, so every
other solver integrates the flow of U(x, t, t), guided as any flow is.
"""

import jax
import jax.numpy as jnp

from fmd.config import Settings
from fmd.math import few_step, grids, solvers
from fmd.math.couplings import Coupling
from fmd.math.schedules import Schedule
from fmd.math.simulators import Solution
from fmd.math.solvers import JUMP
from fmd.methods import solving
from fmd.methods.flow_matching import FlowMatching
from fmd.types import Condition, Field, Images, Network, Rng, Times


class Jumps:
    """How the methods sample that have such a network; they have these fields among their own.

    `weights` is the range of guidance weights that the network is told, if it is. With `clip_data` its flow is that of
    `flow_matching` with `clip_data`, and jumps lead to images in the range of pixels.
    """

    schedule: Schedule
    coupling: Coupling
    weights: tuple[float, float] | None = None
    clip_data: bool = False

    second_time = True

    @property
    def flow(self) -> FlowMatching:
        """The method whose network U(x, t, t) is."""
        return FlowMatching(self.schedule, coupling=self.coupling, clip_data=self.clip_data)

    def field(self, network: Network) -> Field:
        """The velocity field(t, x, y) = U(x, t, t) of the network."""
        return self.flow.field(network)

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
            return self._jumps(network, x0 * self.schedule.prior_std, y, settings)
        return self.flow.sample(network, x0, y, settings, rng=rng, weak=weak)

    def check(self, settings: Settings) -> None:
        """Raises ValueError for settings that neither jumps nor the flow can take."""
        if settings.solver == JUMP:
            check(settings, self.schedule, self.weights)
        else:
            solvers.check_name(settings.solver, jumps=True)
            self.flow.check(settings)

    def _jumps(self, network: Network, x0: Images, y: Condition, settings: Settings) -> Solution:
        """x_r = x_t + (r - t) U(x_t, t, r) between neighbouring times of the grid, one evaluation each.

        A network that was trained with guidance weights is told that of the settings. With `clip_data` no jump leads
        beyond the range of pixels (`few_step.clip_end`).
        """
        knots = grids.get(settings.grid.name, settings.steps, schedule=self.schedule, **settings.grid.params)
        count = x0.shape[0]
        weight = {"w": jnp.broadcast_to(jnp.float32(settings.weight), (count,))} if self.weights is not None else {}

        def average(x: Images, t: Times, r: Times) -> Images:
            u = network(x, t, y, r, **weight)
            return few_step.clip_end(self.schedule, u, x, t, r) if self.clip_data else u

        def jump(x: Images, ends: tuple[Times, Times]) -> tuple[Images, Images]:
            x = few_step.jump(average, x, *(jnp.full(count, end) for end in ends))
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
        return solution._replace(trajectory=solving.to_show(solution, self.schedule))


def check(settings: Settings, schedule: Schedule, weights: tuple[float, float] | None = None) -> None:
    """Raises ValueError for settings that jumps cannot take; `weights` are those that the network was trained with."""
    plain = settings.guidance.name == "cfg" and not {"weak", "weights"} & settings.guidance.keys()
    if weights is not None and plain:
        if not isinstance(settings.weight, jax.core.Tracer) and not weights[0] <= settings.weight <= weights[1]:
            raise ValueError(
                f"guidance weight {settings.weight} with solver 'jump': this network was trained with weights from "
                f"{weights[0]} to {weights[1]}; choose one of them"
            )
    elif settings.weight != 1.0 or not plain:
        raise ValueError(
            f"guidance {dict(settings.guidance)} with solver 'jump': jumps are not guided; use weight 1, or a solver "
            f"such as midpoint, which solves the guided flow of the same network"
        )
    for key in ("sde", "schedule", "rtol", "atol"):
        if getattr(settings, key) is not None:
            raise ValueError(f"sample.{key} = {getattr(settings, key)} has no effect with solver 'jump'; leave it out")
    grids.get(settings.grid.name, settings.steps, schedule=schedule, **settings.grid.params)
