"""The numerical methods behind `fmd.math.simulators`, as Diffrax parts.

A solver is a Diffrax Runge-Kutta method. On a fixed grid the whole batch takes the same steps, and nothing is ever
evaluated outside the grid; an adaptive solver chooses steps for one example at a time, so that no sample depends on
its batch-mates (one error norm shared by a batch lets a hard sample be solved badly when easy ones surround it).

    solver      order   evaluations                     singular end t1
    euler       1       1 a step                        not evaluated
    midpoint    2       2 a step                        not evaluated
    heun        2       2 a step                        evaluated
    ralston     2       2 a step                        not evaluated
    rk4         4       4 a step                        evaluated
    bosh3       3       1 + 3 a step tried              evaluated
    tsit5       5       1 + 6 a step tried              evaluated
    dopri5      5       1 + 6 a step tried              evaluated
    dopri8      8       1 + 13 a step tried             evaluated

The adaptive methods hand their last stage to the next step as its first; after a jump, and again for every retry of
the very first step, the first stage is computed anew and counted.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import jax.numpy as jnp
import numpy as np


class RK4(diffrax.AbstractERK):
    """The classical fourth-order Runge-Kutta method. It has no error estimate, hence fixed grids only."""

    tableau: ClassVar[diffrax.ButcherTableau] = diffrax.ButcherTableau(
        a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
        b_sol=np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]),
        b_error=np.zeros(4),
        c=np.array([0.5, 0.5, 1.0]),
    )
    interpolation_cls: ClassVar[Callable[..., Any]] = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms) -> int:
        return 4


FIXED: dict[str, type] = {
    "euler": diffrax.Euler,
    "midpoint": diffrax.Midpoint,
    "heun": diffrax.Heun,
    "ralston": diffrax.Ralston,
    "rk4": RK4,
}
ADAPTIVE: dict[str, type] = {
    "tsit5": diffrax.Tsit5,
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
    "bosh3": diffrax.Bosh3,
}
STAGES = {
    "euler": 1,
    "midpoint": 2,
    "heun": 2,
    "ralston": 2,
    "rk4": 4,
    "bosh3": 4,
    "tsit5": 7,
    "dopri5": 7,
    "dopri8": 14,
}


def check_name(solver: str) -> None:
    """Raises ValueError with the list of solvers where the name is not one of them."""
    if solver not in FIXED and solver not in ADAPTIVE:
        raise ValueError(f"unknown solver {solver!r}: fixed grids {sorted(FIXED)}, adaptive {sorted(ADAPTIVE)}")


def stages(method: diffrax.AbstractSolver) -> int:
    """Field evaluations of one step of a fixed-grid method."""
    return next(STAGES[name] for name, known in FIXED.items() if type(method) is known)


class Grid(diffrax.StepTo):
    """Steps from one given time to the next.

    `diffrax.StepTo` without its run-time checks: they call back to the host, and a program with host callbacks can be
    exported for one platform at most. `fmd.math.simulators` checks grids before they get here.
    """

    def wrap(self, direction):
        return type(self)(ts=self.ts * direction)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return self.ts[1], 2


class Counted(diffrax.AbstractStepSizeController):
    """An adaptive controller that also counts field evaluations and gives up on a step that cannot shrink further.

    The count is exact for an example solved alone; in a batch the slowest example decides how long all are computed.
    """

    inner: diffrax.AbstractStepSizeController
    stages: int

    def wrap(self, direction):
        return Counted(self.inner.wrap(direction), self.stages)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        # The first try is a hundredth of the interval: it costs no evaluation, and rejections correct it.
        t_next, inner = self.inner.init(terms, t0, t1, y0, (t1 - t0) / 100, args, func, error_order)
        return t_next, (inner, jnp.asarray(0, jnp.int32), jnp.asarray(True))

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        inner, evaluations, first_stage_is_new = controller_state
        keep, t0_next, t1_next, jumped, inner, result = self.inner.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, inner
        )
        evaluations = evaluations + self.stages - 1 + first_stage_is_new.astype(jnp.int32)
        first_stage_is_new = jnp.where(keep, jumped, first_stage_is_new)
        # A field that returns NaN rejects every step: stop that example instead of trying until max_steps.
        hopeless = ~keep & (t1 - t0 < 16 * jnp.finfo(t0.dtype).eps)
        result = diffrax.RESULTS.where(hopeless, diffrax.RESULTS.dt_min_reached, result)
        return keep, t0_next, t1_next, jumped, (inner, evaluations, first_stage_is_new), result


def adaptive_controller(solver: str, rtol: float, atol: float, jumps: np.ndarray) -> Counted:
    """Step size control for one example; `jumps` are times where the field is discontinuous, none allowed."""
    controller: diffrax.AbstractStepSizeController = diffrax.PIDController(rtol=rtol, atol=atol)
    if len(jumps):
        controller = diffrax.ClipStepSizeController(controller, jump_ts=jumps)
    return Counted(controller, STAGES[solver])


def evaluations(solution: diffrax.Solution) -> Any:
    """The count that `Counted` kept during an adaptive solve."""
    state: Any = solution.controller_state
    _, count, _ = state
    return count


def check_tolerance(name: str, value: float, dtype: Any, least: float) -> float:
    """Returns `value`, or raises ValueError where it is below what rounding in `dtype` leaves (`least`)."""
    if not (math.isfinite(value) and value >= least):
        raise ValueError(
            f"{name}={value} is not possible in {jnp.dtype(dtype).name}: give a finite {name} >= {least:.1g}"
        )
    return value
