"""Flower (2509.26287): restoring without a gradient of the network, by draws of x1 and fresh noise.

At each time x1 given x_t is taken to be N(X1, r^2 I), r^2 = sigma^2/(alpha^2 + sigma^2), so that given y too it is
N(mu, P^-1) with P = A^T A/noise_std^2 + I/r^2 and mu = P^-1 (A^T y/noise_std^2 + X1/r^2). A draw of it and
fresh noise make x at the next time, alpha x1 + sigma eps; the last draw is the result. For N(0, I) data this is exact
in any number of steps. gamma scales the spread of the draw: the paper takes 0, the mean, which spreads too little.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fmd.math import conjugate_gradients
from fmd.math.broadcasting import weighted_sum
from fmd.math.restoration import Problem, register, squared
from fmd.registry import Between
from fmd.types import Images, Number


@register("flower")
@dataclass(frozen=True)
class Flower:
    """Draws of x1 given y and X1; at most `iterations` steps of conjugate gradients, which do not ask the network."""

    gamma: Annotated[Number, Between(0.0, 1.0)] = 1.0
    iterations: Annotated[int, Between(1)] = 50

    linear, noisy = True, True

    def draw(self, problem: Problem, x0: Images, steps: int) -> Images:
        operator, schedule, y = problem.operator, problem.schedule, problem.measurement
        times, shape = jnp.linspace(0.0, 1.0, steps + 1, dtype=x0.dtype), x0.shape[1:]
        variance = squared(problem.noise_std, x0.dtype)

        def given(step: Array, x: Images) -> Images:
            """x1 given y and x at the time of the step: P times noise_std^2 of its distance from X1 is solved."""
            c = schedule.at(times[step])
            data = problem.data(times[step], x)
            ratio = (variance * (1 + c.alpha**2 / c.sigma**2)).astype(x.dtype)  # noise_std^2/r^2
            spread = self.gamma * problem.normal(3 * step + 1, y.shape[1:])
            miss = y + jnp.sqrt(variance) * spread - operator(data)
            own = self.gamma * jnp.sqrt(variance * ratio) * problem.normal(3 * step + 2, shape)
            distance = conjugate_gradients.solve(
                lambda u: operator.transpose(operator(u)) + ratio * u,
                operator.transpose(miss) + own,
                steps=self.iterations,
            )
            return data + distance

        def step(number: Array, x: Images) -> Images:
            c = schedule.at(times[number + 1])
            return weighted_sum(x.dtype, (c.alpha, given(number, x)), (c.sigma, problem.normal(3 * number + 3, shape)))

        start = x0 * schedule.prior_std
        before_last: Images = jax.lax.fori_loop(0, steps - 1, step, start)
        return given(jnp.asarray(steps - 1), before_last)
