"""Restoring by a field: the velocity of the prior and a pull towards the measurement, solved from noise to data.

With y = A x1 + noise_std n, X1 = E[x1 | x] and J = dX1/dx the pull of a normal p(x1 | x_t) with covariance C is

    (sigma D / alpha) J^T A^T (A C A^T + noise_std^2 I)^-1 (y - A X1)

    tweedie   C = (sigma^2/alpha) J, which holds for any data. The system is solved by conjugate gradients, each step
              one product with J
    pigdm     C = r^2 I, r^2 = s^2 sigma^2/(s^2 alpha^2 + sigma^2) with s = data_std (2310.04432 has s = 1)

and `projection` (noise_std = 0) replaces X1 by X1 + A+ (y - A X1), the nearest image that is measured as y. After its
last step it does the same with the result, which therefore is measured as y to rounding, whatever the schedule.

J is symmetric, that of a network nearly, and J u stands for J^T u: forward-mode products have the convolutions of the
network itself, which run in the loops of a solver as fast as it does. On a CPU those of a gradient are 20 to 50 times
slower there (`fmd.devices`). J is linearised once in each evaluation.

sigma D/alpha is infinite at t = 0, where J vanishes: that of a trained network not quite. So the pull is asked no
closer to either end than `edge`, by default half a step of the solver.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from fmd.math import conjugate_gradients
from fmd.math.broadcasting import Positive, expand_left
from fmd.math.operators import Map
from fmd.math.restoration import Problem, register, squared
from fmd.math.schedules import Coefficients
from fmd.math.simulators import solve_ode
from fmd.registry import Between
from fmd.types import Images, Number, Scalars

Edge = Annotated[Number, Between(0.0, 0.5, open_high=True)] | None
Count = Annotated[int, Between(1)]


@register("tweedie")
@dataclass(frozen=True)
class Tweedie:
    """The exact covariance of x1 given x_t; at most `iterations` steps of conjugate gradients in each evaluation."""

    solver: str = "midpoint"
    iterations: Count = 10
    tolerance: Positive = 1e-5
    edge: Edge = None

    linear, noisy = False, False

    def draw(self, problem: Problem, x0: Images, steps: int) -> Images:
        def covariance(c: Coefficients, jacobian: Map, u: Images) -> Images:
            return _times(c.sigma**2 / c.alpha, jacobian(u))

        pulled = partial(_pulled, problem, covariance, self.iterations, self.tolerance)
        return _solve(problem, pulled, x0, self.solver, steps, self.edge)


@register("pigdm")
@dataclass(frozen=True)
class Pigdm:
    """The covariance that x1 given x_t has for normal data of standard deviation `data_std`."""

    solver: str = "midpoint"
    iterations: Count = 20
    data_std: Positive = 1.0
    edge: Edge = None

    linear, noisy = False, False

    def draw(self, problem: Problem, x0: Images, steps: int) -> Images:
        def covariance(c: Coefficients, jacobian: Map, u: Images) -> Images:
            return _times((self.data_std * c.sigma) ** 2 / ((self.data_std * c.alpha) ** 2 + c.sigma**2), u)

        pulled = partial(_pulled, problem, covariance, self.iterations, conjugate_gradients.TOLERANCE)
        return _solve(problem, pulled, x0, self.solver, steps, self.edge)


@register("projection")
@dataclass(frozen=True)
class Projection:
    """X1 is replaced by the nearest image that is measured as y; the noise of the measurement counts as none."""

    solver: str = "midpoint"
    edge: Edge = None

    linear, noisy = True, False

    def draw(self, problem: Problem, x0: Images, steps: int) -> Images:
        operator, y = problem.operator, problem.measurement

        def pulled(t: Scalars, x: Images) -> Images:
            c, v = problem.schedule.at(t), problem.velocity(t, x)
            data = _times(c.data_x, x) + _times(c.data_v, v)
            return v + _times(1 / c.data_v, operator.pseudo_inverse(y - operator(data)))

        x = _solve(problem, pulled, x0, self.solver, steps, self.edge)
        return x + operator.pseudo_inverse(y - operator(x))


def _pulled(
    problem: Problem,
    covariance: Callable[[Coefficients, Map, Images], Images],
    iterations: int,
    tolerance: Number,
    t: Scalars,
    x: Images,
) -> Images:
    """v and the pull of a normal p(x1 | x_t); covariance(c, u -> J u, u) is C u."""
    c = problem.schedule.at(t)
    v, data, jacobian = _linearised(problem, t, x)
    residual, of_data, of_measurement = _measured(problem, data)

    def matrix(u: Images) -> Images:
        return of_data(covariance(c, jacobian, of_measurement(u))) + squared(problem.noise_std, u.dtype) * u

    u = conjugate_gradients.solve(matrix, residual, steps=iterations, tolerance=tolerance)
    return v + _times(c.memoryless / 2, jacobian(of_measurement(u)))


def _linearised(problem: Problem, t: Scalars, x: Images) -> tuple[Images, Images, Map]:
    """(v, X1, u -> J u) at x, by one evaluation of the network."""
    c = problem.schedule.at(t)
    v, of_velocity = jax.linearize(lambda x: problem.velocity(t, x), x)

    def data(x: Images, v: Images) -> Images:
        return _times(c.data_x, x) + _times(c.data_v, v)

    return v, data(x, v), lambda u: data(u, of_velocity(u))


def _measured(problem: Problem, x1: Images) -> tuple[Images, Map, Map]:
    """(y - A x1, the derivative of A there, its transpose)."""
    y, forward = jax.linearize(problem.operator, x1)
    backward = jax.linear_transpose(forward, x1)
    return problem.measurement - y, forward, lambda u: backward(u)[0]


def _times(coefficient: Scalars, x: Images) -> Images:
    return expand_left(coefficient, x).astype(x.dtype) * x


def _solve(
    problem: Problem, pulled: Callable[[Scalars, Images], Images], x0: Images, solver: str, steps: int, edge: Edge
) -> Images:
    """x(1) of dx/dt = pulled(t, x), asked within [edge, 1 - edge]."""
    near = 0.5 / steps if edge is None else edge

    def field(t: Scalars, x: Images, args: None) -> Images:
        return pulled(jnp.clip(t, near, 1 - near), x)

    start = x0 * problem.schedule.prior_std
    x: Images = solve_ode(field, start, solver=solver, steps=steps, end_epsilon=0.0).x
    return x
