"""The numerical methods behind `simulators` by name: their cost, their grids, and the times that they are asked for.

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

Times are exact: a fixed grid is an array of knots, not a repeatedly added step. The methods themselves are Diffrax's,
in `runge_kutta`: loading them takes two thirds as long as JAX, so it waits for the first solve.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from fmd.math.broadcasting import concrete
from fmd.types import Scalars, Times

TimeList = Sequence[float] | Float[np.ndarray, " times"] | Float[Array, " times"]
"""Times in order: of a grid, or at which a trajectory is wanted."""

Knots = Float[Array, " knots"]
"""The times between which a solver with fixed steps takes one step each."""

Solved = tuple[PyTree, PyTree, int | Int[Array, " B"], Bool[Array, " B"] | None]
"""(final state, states at the times asked for or None, evaluations, whether an adaptive solver reached the end)."""


FIXED = {"euler": 1, "midpoint": 2, "heun": 2, "ralston": 2, "rk4": 4}
"""The solvers of fixed steps, with the evaluations of a step."""

ADAPTIVE = {"tsit5": 7, "dopri5": 7, "dopri8": 14, "bosh3": 4}
"""The solvers that choose their steps, with the evaluations of their first."""

STAGES = FIXED | ADAPTIVE

JUMP = "jump"
"""The solver of `Settings` that takes steps of an average velocity. It is none of an equation."""


def check_name(solver: str, *, jumps: bool = False) -> None:
    """Raises ValueError with the list of solvers where the name is not one of them; `jumps` where those are one."""
    if solver in STAGES or (jumps and solver == JUMP):
        return
    known = f"fixed grids {sorted(FIXED)}, adaptive {sorted(ADAPTIVE)}"
    if solver == JUMP:
        raise ValueError(
            f"solver {JUMP!r} needs a network that is told a second time, as mean_flow trains it; choose of {known}"
        )
    raise ValueError(f"unknown solver {solver!r}: {known}{f', average velocity {JUMP!r}' if jumps else ''}")


def make_knots(grid: TimeList | None, steps: int, t0: Scalars, t1: Scalars, dtype: np.dtype) -> Knots:
    """The times of a fixed grid, [steps + 1], its ends exactly t0 and t1; `grid` instead of these where given."""
    if grid is not None:
        if concrete(grid):
            gaps = np.diff(np.asarray(grid, dtype))
            if not (len(gaps) and (np.all(gaps > 0) or np.all(gaps < 0))):
                raise ValueError(f"grid must hold at least two strictly monotonic times in {dtype.name}")
        return jnp.asarray(grid, dtype)
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    check_interval(t0, t1)
    fractions = np.linspace(0.0, 1.0, steps + 1)
    if concrete(t0) and concrete(t1):
        knots = float(t0) + (float(t1) - float(t0)) * fractions
        knots[-1] = float(t1)
        return jnp.asarray(knots, dtype)
    t0, t1 = jnp.asarray(t0, dtype), jnp.asarray(t1, dtype)
    return (t0 + (t1 - t0) * jnp.asarray(fractions, dtype)).at[-1].set(t1)


def check_interval(t0: Scalars, t1: Scalars) -> None:
    """ValueError where t0 and t1 are known and are not two different finite times."""
    if concrete(t0) and concrete(t1) and not (np.isfinite(t0) and np.isfinite(t1) and t0 != t1):
        raise ValueError(f"t0={t0} and t1={t1} must be two different finite times")


def make_times(times: TimeList | None, ends: tuple[Scalars, Scalars], dtype: np.dtype) -> Times | None:
    """`times` as an array. ValueError where they are outside `ends` or out of order, as far as that is known."""
    if times is None:
        return None
    if all(map(concrete, (times, *ends))):
        given, first, last = np.asarray(times, dtype), *np.asarray(ends, dtype)
        inside = len(given) and min(first, last) <= given.min() and given.max() <= max(first, last)
        if not (inside and np.all(np.diff(given) * (1 if first < last else -1) > 0)):
            raise ValueError(f"times {given.tolist()} must run strictly from t0={first} towards t1={last}, within them")
    return jnp.asarray(times, dtype)
