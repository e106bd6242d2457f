"""Solving the flow dx/dt = field(t, x), noise to data or back, and the noisy flow around it.

A field is written for a batch: `field(t, x, args) -> dx/dt` with t a scalar or [B], x [B, ...], and `args` anything
else it needs (labels, weights, parameters of a toy). The solvers are Diffrax's, described in `fmd.math.solvers`;
`fmd.math.runge_kutta`, which imports Diffrax, is imported by the first solve.

Differentiation and memory. With the default adjoint, `jax.grad` through a solve differentiates the numerical solution
itself (discretise, then optimise). It keeps about sqrt(2 n) states for n steps (`max_steps` for an adaptive solver),
which XLA on the CPU holds twice, and recomputes the rest; `diffrax.RecursiveCheckpointAdjoint(checkpoints=k)` keeps k.
Sampling without a gradient keeps one state. `jax.jvp` needs `adjoint=diffrax.ForwardMode()`, both kinds of derivative
`diffrax.DirectAdjoint()`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from fmd.math import fields, solvers
from fmd.math.broadcasting import compute_dtype, concrete, finfo
from fmd.math.schedules import Schedule
from fmd.math.solvers import TimeList
from fmd.types import Field, Images, Index, Scalars, Times, TypedKey

TOLERANCE = 1e-5  # of adaptive solvers in float32, where none is asked for
SDE_SOLVERS = {"euler_maruyama": "euler", "heun": "heun"}
Partial: Callable[..., Callable[..., PyTree]] = jax.tree_util.Partial  # equal arguments, one trace

__all__ = ["Solution", "solve_ode", "solve_sde"]


class Solution(NamedTuple):
    """The end of a solve, and its trajectory where asked for.

    x            final state, [B, ...], float32 at least
    trajectory   states at `times`, [T, B, ...], or None where no times were asked; times that a failed adaptive
                 solve did not reach hold inf
    times        [T], or None
    evaluations  [B] int32: field evaluations spent on each example
    success      [B] bool: the solver reached t1 and every number of the example is finite
    """

    x: PyTree
    trajectory: PyTree
    times: Times | None
    evaluations: Int[Array, " B"]
    success: Bool[Array, " B"]


def solve_ode(
    field: Field,
    x0: PyTree[Float[Array, "B ..."]],
    *,
    solver: str = "heun",
    steps: int = 50,
    rtol: float | None = None,
    atol: float | None = None,
    times: TimeList | None = None,
    t0: Scalars = 0.0,
    t1: Scalars = 1.0,
    args: PyTree = None,
    grid: TimeList | None = None,
    jump_ts: Sequence[float] = (),
    end_epsilon: float | None = None,
    max_steps: int = 4096,
    adjoint: PyTree = None,
    memory: PyTree = None,
) -> Solution:
    """Solves dx/dt = field(t, x, args) from t0 to t1; t1 < t0 runs backwards.

    field        called as field(t, x, args), t a scalar of the state's dtype and never outside [t0, t1]
    x0           [B, ...] array, or a pytree of them; solved in float32 at least, in float64 where x0 is float64
    solver       fixed grid: "euler", "midpoint", "heun", "ralston", "rk4"; adaptive, each example by itself:
                 "tsit5", "dopri5", "dopri8", "bosh3"
    steps        steps of a fixed grid, spread evenly over [t0, t1]; an adaptive solver does not use it
    grid         [steps + 1] times for a fixed grid instead of `steps`, `t0` and `t1`
    rtol, atol   adaptive only; by default 1e-5 each in float32 (which allows rtol >= 1e-6) and 1e-8 in float64. They
                 bound the root mean square error of an example in one step; in a tree that of each leaf
    times        [T] times in the direction of the solve at which the trajectory is wanted, interpolated between
                 steps with the solver's own polynomial. Diffrax checks them in a host callback, so a program that
                 saves a trajectory cannot be exported; one without can, for cpu, cuda and tpu at once
    args         handed to the field. An adaptive solver solves each example with its own slice of every leaf, as a
                 batch of one: leaves are scalars, the same for all, or have the batch axis first. Let the field
                 close over anything else
    jump_ts      adaptive only: times where the field jumps (edges of a guidance interval); the solver stops before
                 and starts after each of them instead of hunting for it. With a fixed grid put them into `grid`
    end_epsilon  the field is called with t clipped to [end_epsilon, 1 - end_epsilon], by default 1e-5 in float32 and
                 1e-12 in float64: many fields are 0/0 at an end, which Heun, RK4 and all adaptive solvers evaluate.
                 Where the field has a finite limit there this costs about end_epsilon h |dv/dt| once, h the step;
                 0 asks the field at the ends themselves. Use 1e-4 for "vp", "linear_vp" and "sqrt_beta", whose
                 velocity is infinite at t = 1
    max_steps    adaptive only: steps tried, rejected ones included, before an example counts as failed
    adjoint      of Diffrax: how gradients are computed, `RecursiveCheckpointAdjoint()` by default; see the text above
    memory       any pytree, fixed grids only: the field is then field(t, x, args, memory) -> (dx/dt, memory), and the
                 memory that the first stage of a step returns is that of the next step. Gradients keep every step,
                 and `times` are interpolated linearly

    Nothing is raised from the device: look at `success`. ValueError for an unknown solver, steps < 1, a tolerance
    below what the dtype can do or given to a fixed grid, times outside [t0, t1] or out of order, a grid that is
    not monotonic, end_epsilon outside [0, 0.5), a memory with an adaptive solver or an adjoint.
    """
    from fmd.math import runge_kutta

    solvers.check_name(solver)
    x0, dtype = _at_least_float32(x0)
    evaluate = Partial(_evaluate, field, _choose_end_epsilon(end_epsilon, dtype))
    ends = (t0, t1) if grid is None else (grid[0], grid[-1])
    when = solvers.make_times(times, ends, dtype)
    if memory is not None and (solver not in solvers.FIXED or adjoint is not None):
        raise ValueError(f"a memory needs a solver of fixed steps, one of {sorted(solvers.FIXED)}, and no adjoint")

    if solver in solvers.FIXED:
        if rtol is not None or atol is not None or len(jump_ts):
            raise ValueError(f"rtol, atol, jump_ts are for adaptive solvers, and {solver!r} is not: give steps or grid")
        knots = solvers.make_knots(grid, steps, t0, t1, dtype)
        if memory is not None:
            return _pack(_solve_with_memory(evaluate, x0, args, memory, solver, knots, when), when)
        return _pack(runge_kutta.fixed(runge_kutta.ODETerm(evaluate), x0, args, solver, knots, when, adjoint), when)

    if grid is not None:
        raise ValueError(f"grid is for fixed-grid solvers, and {solver!r} chooses its own steps: give rtol and atol")
    solvers.check_interval(t0, t1)
    if max_steps < 1:
        raise ValueError(f"max_steps={max_steps} must be at least 1")
    default = TOLERANCE if dtype == jnp.float32 else 1e-8
    rtol = _check_tolerance("rtol", default if rtol is None else rtol, dtype, 8 * float(finfo(dtype).eps))
    atol = _check_tolerance("atol", default if atol is None else atol, dtype, 0.0)
    controller = runge_kutta.controller(solver, rtol, atol, np.asarray(sorted(jump_ts), dtype))
    term, between = runge_kutta.ODETerm(evaluate), (jnp.asarray(t0, dtype), jnp.asarray(t1, dtype))
    return _pack(runge_kutta.adaptive(term, x0, args, solver, between, when, adjoint, controller, max_steps), when)


def solve_sde(
    field: Field,
    x0: Images,
    key: TypedKey,
    *,
    schedule: Schedule,
    noise: str = "sigma",
    scale: Scalars = 1.0,
    steps: int = 250,
    solver: str = "euler_maruyama",
    times: TimeList | None = None,
    t0: Scalars = 0.0,
    t1: Scalars = 1.0,
    args: PyTree = None,
    grid: TimeList | None = None,
    end_epsilon: float | None = None,
    independent: bool = True,
    indices: Index | None = None,
    adjoint: PyTree = None,
) -> Solution:
    """Samples dX = [v + g^2/2 score] dt + g dW with v = field(t, x, args), from t0 to t1 > t0.

    field, x0, times, args, grid, end_epsilon, adjoint   as in `solve_ode`; x0 is one array
    key          typed key; the noise of example i is a function of (key, indices[i], step)
    schedule     the schedule that the field was trained along: it turns the velocity into the score
    noise        "sigma" (g^2 = 2 k sigma), "quadratic" (2 k sigma^2), "memoryless", "constant" (2 k): see
                 `fmd.math.fields`. The latter two are singular at an end: their table is read no closer to it than
                 the neighbouring knot
    scale        k >= 0, a scalar or [B]; a known 0 gives `solve_ode` with "euler" or "heun", bit for bit
    steps        steps of an even grid, the last of them without noise. Stable where g^2 h < 4 sigma^2, roughly
    solver       "euler_maruyama" (1 evaluation a step) or "heun" (2; second order in the drift)
    independent  whether x0 and x1 were paired independently in training
    indices      [B] global index of each example, 0 .. B - 1 by default; a device or a chunk gives its own

    ValueError for an unknown noise or solver, a negative scale, t1 <= t0, and for a coupling that is not independent,
    whose score this equation does not know.
    """
    from fmd.math import runge_kutta

    if not independent:
        raise ValueError("an SDE needs the score, which a velocity gives only for independent pairs: use solve_ode")
    if solver not in SDE_SOLVERS:
        raise ValueError(f"unknown SDE solver {solver!r}; known: {', '.join(SDE_SOLVERS)}")
    if noise not in fields.NOISES:
        raise ValueError(f"unknown noise {noise!r}; known: {', '.join(fields.NOISES)}")
    if concrete(scale) and not bool(np.all(np.isfinite(scale)) and np.all(np.asarray(scale) >= 0)):
        raise ValueError(f"scale={scale} must be finite and not negative")
    x0, dtype = _at_least_float32(x0)
    evaluate = Partial(_evaluate, field, _choose_end_epsilon(end_epsilon, dtype))
    knots = solvers.make_knots(grid, steps, t0, t1, dtype)
    ends = (t0, t1) if grid is None else (grid[0], grid[-1])
    if all(map(concrete, ends)) and not ends[0] < ends[1]:
        raise ValueError(f"an SDE runs from noise to data: t0={ends[0]} must be below t1={ends[1]}")

    term: runge_kutta.Term = runge_kutta.ODETerm(evaluate)
    if not (concrete(scale) and not np.any(scale)):
        dynamics = Partial(fields.stochastic, evaluate, schedule, noise, scale, knots)
        indices = jnp.arange(x0.shape[0]) if indices is None else indices
        term = runge_kutta.Noisy(dynamics, key, indices, knots, x0.shape[1:])
    when = solvers.make_times(times, ends, dtype)
    return _pack(runge_kutta.fixed(term, x0, args, SDE_SOLVERS[solver], knots, when, adjoint), when)


def _at_least_float32(state: PyTree) -> tuple[PyTree, np.dtype]:
    """(the state with bfloat16 and float16 leaves widened, the dtype of its times)."""
    state = jax.tree.map(_widened, state)
    return state, jnp.result_type(*jax.tree.leaves(state))


def _widened(x: Array) -> Array:
    return jnp.asarray(x, compute_dtype(x.dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.asarray(x)


def _choose_end_epsilon(end_epsilon: float | None, dtype: np.dtype) -> float:
    """The checked `end_epsilon`; by default far above rounding, so that 0/0 keeps digits, and far below any step."""
    if end_epsilon is None:
        return 1e-5 if dtype == jnp.float32 else 1e-12
    if not 0 <= end_epsilon < 0.5:
        raise ValueError(f"end_epsilon={end_epsilon} must be in [0, 0.5)")
    return end_epsilon


def _check_tolerance(name: str, value: float, dtype: np.dtype, least: float) -> float:
    """`value`; ValueError where it is below what rounding in `dtype` leaves (`least`)."""
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{name}={value} is not possible in {dtype.name}: give a finite {name} >= {least:.1g}")
    return value


def _evaluate(field: Field, end_epsilon: float, t: Scalars, x: PyTree, args: PyTree, *memory: PyTree) -> PyTree:
    """The field as solvers call it: kept off the singular ends, dx/dt in the dtype of the state."""
    if end_epsilon:
        t = jnp.clip(t, end_epsilon, 1 - end_epsilon)
    if not memory:
        return jax.tree.map(_as_state, field(t, x, args), x)
    v, after = field(t, x, args, *memory)
    return jax.tree.map(_as_state, v, x), after


def _as_state(v: PyTree, state: Array) -> Array:
    """The derivative `v` with the dtype of the state; only a number may stand for an array of another shape."""
    v = jnp.asarray(v, state.dtype)
    if v.ndim and v.shape != state.shape:
        raise ValueError(f"the field returned shape {v.shape} for x of shape {state.shape}; they must be equal")
    return jnp.broadcast_to(v, state.shape)


def _solve_with_memory(
    field: Field, x0: PyTree, args: PyTree, memory: PyTree, solver: str, knots: solvers.Knots, times: Times | None
) -> solvers.Solved:
    """A Runge-Kutta step between neighbouring knots, whose first stage writes the memory of the next step."""
    from fmd.math import runge_kutta

    rows, weights, nodes = runge_kutta.table(runge_kutta.METHODS[solver])

    def step(before: tuple[PyTree, PyTree], ends: tuple[Array, Array]) -> tuple[PyTree, PyTree]:
        (x, memory), (t0, t1) = before, ends
        stages: list[tuple[PyTree, PyTree]] = []
        for row, node in zip(rows, nodes, strict=True):
            at = _moved(x, t1 - t0, row, stages)
            stages.append(field(t0 + float(node) * (t1 - t0), at, args, memory))
        x = _moved(x, t1 - t0, weights, stages)
        return (x, stages[0][1]), None if times is None else x

    memory = jax.tree.map(_widened, memory)
    (final, _), states = jax.lax.scan(step, (x0, memory), (knots[:-1], knots[1:]))
    trajectory = None if times is None else jax.tree.map(partial(_interpolate, knots, times), x0, states)
    return final, trajectory, (len(knots) - 1) * solvers.STAGES[solver], None


def _moved(x: PyTree, h: Array, weights: np.ndarray, stages: list[tuple[PyTree, PyTree]]) -> PyTree:
    """x + h times the weighted slopes of the stages."""

    def leaf(x: Array, *slopes: Array) -> Array:
        return x + h * sum(float(w) * k for w, k in zip(weights, slopes, strict=True)) if slopes else x

    return jax.tree.map(leaf, x, *(slope for slope, _ in stages))


def _interpolate(knots: solvers.Knots, times: Times, first: Array, later: Array) -> Array:
    """The states [T, ...] at `times` on straight lines between those at the knots, `first` and `later` [steps, ...]."""
    states, sign = jnp.concatenate([first[None], later]), jnp.sign(knots[-1] - knots[0])
    i = jnp.clip(jnp.searchsorted(sign * knots, sign * times, side="right") - 1, 0, len(knots) - 2)
    share = ((times - knots[i]) / (knots[i + 1] - knots[i])).reshape(-1, *(1,) * first.ndim)
    return (1 - share) * states[i] + share * states[i + 1]


def _pack(solved: solvers.Solved, times: Times | None) -> Solution:
    final, trajectory, evaluations, reached = solved
    finite = [jnp.isfinite(x).all(axis=tuple(range(1, x.ndim))) for x in jax.tree.leaves(final)]
    success = jnp.stack(finite).all(axis=0)
    counts = jnp.full(success.shape, evaluations, jnp.int32) if isinstance(evaluations, int) else evaluations
    return Solution(final, trajectory, times, counts, success if reached is None else reached & success)
