"""Solving the flow: dx/dt = field(t, x) from noise (t = 0) to data (t = 1), or back.

A field is written for a batch: `field(t, x, args) -> dx/dt` with t a scalar or [B], x [B, ...], and `args` anything
else it needs (labels, weights, parameters of a toy). The solvers themselves are Diffrax's, described in
`fmd.math.solvers`; stochastic sampling is in `fmd.math.sdes` and offered here as `solve_sde`.

Differentiation and memory. With the default adjoint, `jax.grad` through `solve_ode` differentiates the numerical
solution itself (discretise, then optimise). It keeps about sqrt(2 n) states for n steps (`max_steps` for an adaptive
solver) and recomputes the rest; `diffrax.RecursiveCheckpointAdjoint(checkpoints=k)` keeps k. Sampling without a
gradient keeps one state. `jax.jvp` needs `adjoint=diffrax.ForwardMode()`, both kinds `diffrax.DirectAdjoint()`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from fmd.math import solvers

Field = Callable[[Any, Any, Any], Any]
Time = int | float | Float[Array, ""]
Times = Sequence[float] | Float[np.ndarray, " times"] | Float[Array, " times"]


class Solution(NamedTuple):
    """What a solver returns.

    x            final state, [B, ...], float32 at least
    trajectory   states at `times`, [T, B, ...], or None where no times were asked; times that a failed adaptive
                 solve did not reach hold inf
    times        [T], or None
    evaluations  [B] int32: field evaluations spent on each example
    success      [B] bool: the solver reached t1 and every number of the example is finite
    """

    x: Any
    trajectory: Any
    times: Float[Array, " times"] | None
    evaluations: Int[Array, " batch"]
    success: Bool[Array, " batch"]


def solve_ode(
    field: Field,
    x0: PyTree[Float[Array, "batch ..."]],
    *,
    solver: str = "heun",
    steps: int = 50,
    rtol: float | None = None,
    atol: float | None = None,
    times: Times | None = None,
    t0: Time = 0.0,
    t1: Time = 1.0,
    args: PyTree = None,
    grid: Times | None = None,
    jump_ts: Sequence[float] = (),
    end_epsilon: float = 0.0,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Solution:
    """Solves dx/dt = field(t, x, args) from t0 to t1; t1 < t0 runs backwards.

    field        called as field(t, x, args), t a scalar of the state's dtype and never outside [t0, t1]
    x0           [B, ...] array, or a pytree of them; solved in float32 at least, in float64 where x0 is float64
    solver       fixed grid: "euler", "midpoint", "heun", "ralston", "rk4"; adaptive, each example by itself:
                 "tsit5", "dopri5", "dopri8", "bosh3"
    steps        steps of a fixed grid, spread evenly over [t0, t1]; an adaptive solver does not use it
    grid         [steps + 1] times for a fixed grid instead of `steps`, `t0` and `t1`
    rtol, atol   adaptive only, 1e-5 each by default; float32 allows rtol >= 1e-6
    times        [T] times in the direction of the solve at which the trajectory is wanted, interpolated between
                 steps with the solver's own polynomial. Diffrax checks them in a host callback, so a program that
                 saves a trajectory cannot be exported; one without can, for cpu, cuda and tpu at once
    args         handed to the field. For an adaptive solver each leaf needs a leading batch axis: an example is
                 solved with its own slice, as a batch of one
    jump_ts      adaptive only: times where the field jumps (edges of a guidance interval); the solver stops before
                 and starts after each of them instead of hunting for it. With a fixed grid put them into `grid`
    end_epsilon  the field is called with t clipped to [end_epsilon, 1 - end_epsilon]: for fields that are 0/0 or
                 infinite at an end, which Heun, RK4 and all adaptive solvers evaluate. 1e-4 costs less than the
                 step error of any usual grid as long as the field has a finite limit there
    max_steps    adaptive only: steps tried, rejected ones included, before an example counts as failed
    adjoint      how gradients are computed, `diffrax.RecursiveCheckpointAdjoint()` by default; see the module's text

    Nothing is raised from the device: look at `success`. ValueError for an unknown solver, steps < 1, a tolerance
    below what the dtype can do or given to a fixed grid, times outside [t0, t1] or out of order, a grid that is
    not monotonic, end_epsilon outside [0, 0.5).
    """
    solvers.check_name(solver)
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    if not 0 <= end_epsilon < 0.5:
        raise ValueError(f"end_epsilon={end_epsilon} must be in [0, 0.5)")
    x0 = jax.tree.map(lambda x: jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32)), x0)
    dtype = jnp.result_type(*jax.tree.leaves(x0))
    term = diffrax.ODETerm(jax.tree_util.Partial(_evaluate, field, end_epsilon))

    if solver in solvers.FIXED:
        if rtol is not None or atol is not None or len(jump_ts):
            raise ValueError(
                f"rtol, atol and jump_ts are for adaptive solvers, and {solver!r} is not: give steps or grid"
            )
        knots = _knots(grid, steps, t0, t1, dtype)
        saveat = _save_at(times, knots[0], knots[-1], dtype)
        solution = _fixed(term, x0, args, solver, knots, saveat, adjoint)
    else:
        if grid is not None:
            raise ValueError(
                f"grid is for fixed-grid solvers, and {solver!r} chooses its own steps: give rtol and atol"
            )
        _check_interval(t0, t1)
        if max_steps < 1:
            raise ValueError(f"max_steps={max_steps} must be at least 1")
        rtol = solvers.check_tolerance("rtol", 1e-5 if rtol is None else rtol, dtype, 8 * float(jnp.finfo(dtype).eps))
        atol = solvers.check_tolerance("atol", 1e-5 if atol is None else atol, dtype, 0.0)
        jumps = np.asarray(sorted(jump_ts), dtype)
        controller = solvers.adaptive_controller(solver, rtol, atol, jumps)
        ends = jnp.asarray(t0, dtype), jnp.asarray(t1, dtype)
        saveat = _save_at(times, t0, t1, dtype)
        solution = _adaptive(term, x0, args, solver, ends, controller, saveat, max_steps, adjoint)
    return solution._replace(times=None if times is None else jnp.asarray(times, dtype))


def _evaluate(field: Field, end_epsilon: float, t, x, args):
    """The field as Diffrax calls it: kept off the singular ends, its value in the dtype of the state."""
    if end_epsilon:
        t = jnp.clip(t, end_epsilon, 1 - end_epsilon)
    return jax.tree.map(lambda v, leaf: v.astype(leaf.dtype), field(t, x, args), x)


def _fixed(term, x0, args, solver, knots, saveat, adjoint) -> Solution:
    """The whole batch at once, exactly one step between neighbouring knots."""
    steps = len(knots) - 1
    solution = diffrax.diffeqsolve(
        term,
        solvers.FIXED[solver](),
        knots[0],
        knots[-1],
        None,
        x0,
        args,
        saveat=saveat,
        stepsize_controller=solvers.Grid(knots),
        max_steps=steps,
        throw=False,
        adjoint=adjoint,
    )
    final, trajectory = _unpack(solution)
    success = _finite(final)
    evaluations = jnp.full(success.shape, steps * solvers.STAGES[solver], jnp.int32)
    return Solution(final, trajectory, None, evaluations, success)


def _adaptive(term, x0, args, solver, ends, controller, saveat, max_steps, adjoint) -> Solution:
    """One example at a time under vmap, each seen by the field as a batch of one."""

    def one(x, example_args):
        solution = diffrax.diffeqsolve(
            term,
            solvers.ADAPTIVE[solver](),
            *ends,
            None,
            x,
            example_args,
            saveat=saveat,
            stepsize_controller=controller,
            max_steps=max_steps,
            throw=False,
            adjoint=adjoint,
        )
        evaluations = solvers.evaluations(solution)
        return *_unpack(solution), evaluations, diffrax.is_successful(solution.result)

    batches_of_one = jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 1), (x0, args))
    final, trajectory, evaluations, reached = jax.vmap(one)(*batches_of_one)
    final = jax.tree.map(lambda x: jnp.squeeze(x, 1), final)
    trajectory = jax.tree.map(lambda x: jnp.moveaxis(jnp.squeeze(x, 2), 1, 0), trajectory)
    return Solution(final, trajectory, None, evaluations, reached & _finite(final))


def _unpack(solution: diffrax.Solution):
    """(state at t1, states at the times asked for or None)."""
    ys: Any = solution.ys
    at_end, at_times = ys
    return jax.tree.map(lambda y: y[-1], at_end), at_times


def _save_at(times, t0, t1, dtype) -> diffrax.SaveAt:
    at_times = None
    if times is not None:
        if all(map(solvers.concrete, (times, t0, t1))):
            given, direction = np.asarray(times, dtype), 1 if t0 < t1 else -1
            inside = len(given) and min(t0, t1) <= given.min() and given.max() <= max(t0, t1)
            if not (inside and np.all(np.diff(given) * direction > 0)):
                raise ValueError(
                    f"times {list(map(float, given))} must run strictly from t0={t0} towards t1={t1} within them"
                )
        at_times = diffrax.SubSaveAt(ts=jnp.asarray(times, dtype))
    return diffrax.SaveAt(subs=(diffrax.SubSaveAt(t1=True), at_times), controller_state=True)


def _knots(grid, steps: int, t0, t1, dtype) -> Float[Array, " knots"]:
    """The times of a fixed grid, its ends exactly t0 and t1."""
    if grid is not None:
        if solvers.concrete(grid):
            gaps = np.diff(np.asarray(grid, dtype))
            if not (len(gaps) and (np.all(gaps > 0) or np.all(gaps < 0))):
                raise ValueError(f"grid must hold at least two strictly monotonic times in {jnp.dtype(dtype).name}")
        return jnp.asarray(grid, dtype)
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    _check_interval(t0, t1)
    fractions = np.linspace(0.0, 1.0, steps + 1)
    if solvers.concrete(t0) and solvers.concrete(t1):
        return jnp.asarray(float(t0) + (float(t1) - float(t0)) * fractions, dtype).at[-1].set(t1)
    return (t0 + (t1 - t0) * jnp.asarray(fractions, dtype)).at[-1].set(t1)


def _check_interval(t0, t1) -> None:
    if solvers.concrete(t0) and solvers.concrete(t1) and not (np.isfinite(t0) and np.isfinite(t1) and t0 != t1):
        raise ValueError(f"t0={t0} and t1={t1} must be two different finite times")


def _finite(state) -> Bool[Array, " batch"]:
    per_leaf = [jnp.isfinite(x).all(axis=tuple(range(1, x.ndim))) for x in jax.tree.leaves(state)]
    return jnp.stack(per_leaf).all(axis=0)
