"""How `fmd.math.simulators` and `fmd.math.likelihood` call Diffrax: grids checked, solved, and packed as a `Solution`.

Three things are arranged here so that a solve is the same everywhere. Times are exact: a fixed grid is an array of
knots, not a repeatedly added step. Nothing is checked on the device, so that a program exports for several platforms;
what can be known before is checked before. And state and time are float32 at least.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fmd.math import solvers
from fmd.math.broadcasting import concrete

Field = Callable[[Any, Any, Any], Any]
Time = int | float | np.floating | Float[Array, ""]
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


def at_least_float32(state: Any) -> tuple[Any, Any]:
    """(the state with bfloat16 and float16 leaves widened, the dtype of its times)."""
    state = jax.tree.map(lambda x: jnp.asarray(x, np.promote_types(x.dtype, np.float32)), state)
    return state, jnp.result_type(*jax.tree.leaves(state))


def fixed(term, x0, args, method, knots, ends, times, adjoint) -> Solution:
    """The whole batch at once with a Diffrax `method`, exactly one step between neighbouring `knots`.

    `ends` are the first and last knot as the caller gave them, so that `times` can be checked where they are known.
    """
    steps = len(knots) - 1
    solution = diffrax.diffeqsolve(
        term,
        method,
        knots[0],
        knots[-1],
        None,
        x0,
        args,
        saveat=save_at(times, ends, knots.dtype),
        stepsize_controller=solvers.Grid(knots),
        max_steps=steps,
        throw=False,
        adjoint=adjoint,
    )
    final, trajectory = _unpack(solution)
    success = _finite(final)
    evaluations = jnp.full(success.shape, steps * solvers.stages(method), jnp.int32)
    return Solution(final, trajectory, _as_array(times, knots.dtype), evaluations, success)


def adaptive(term, x0, args, method, controller, ends, times, max_steps, dtype, adjoint) -> Solution:
    """One example at a time under vmap, each seen by the field as a batch of one."""
    saveat = save_at(times, ends, dtype)
    t0, t1 = (jnp.asarray(t, dtype) for t in ends)

    def one(x, example_args):
        solution = diffrax.diffeqsolve(
            term,
            method,
            t0,
            t1,
            None,
            x,
            example_args,
            saveat=saveat,
            stepsize_controller=controller,
            max_steps=max_steps,
            throw=False,
            adjoint=adjoint,
        )
        return *_unpack(solution), solvers.evaluations(solution), diffrax.is_successful(solution.result)

    batch = jax.tree.leaves(x0)[0].shape[0]
    axes = jax.tree.map(lambda leaf: _axis_of_examples(leaf, batch), args)
    batches_of_one = jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 1) if jnp.ndim(leaf) else leaf, (x0, args))
    final, trajectory, evaluations, reached = jax.vmap(one, in_axes=(0, axes))(*batches_of_one)
    final = jax.tree.map(lambda x: jnp.squeeze(x, 1), final)
    trajectory = jax.tree.map(lambda x: jnp.moveaxis(jnp.squeeze(x, 2), 1, 0), trajectory)
    return Solution(final, trajectory, _as_array(times, dtype), evaluations, reached & _finite(final))


def _axis_of_examples(leaf: Any, batch: Any) -> int | None:
    """Where `jax.vmap` finds the examples in a leaf of args: first, or nowhere in a scalar.

    `batch` is a number, or a symbol in a program that is exported for any batch size.
    """
    shape = jnp.shape(leaf)
    if shape and shape[0] != batch:
        raise ValueError(
            f"args holds shape {shape} for a batch of {batch}: an adaptive solver needs scalars or one slice per "
            "example; let the field close over what all examples share"
        )
    return 0 if shape else None


def make_knots(grid: Times | None, steps: int, t0: Time, t1: Time, dtype: Any) -> Float[Array, " knots"]:
    """The times of a fixed grid, [steps + 1], its ends exactly t0 and t1; `grid` instead of these where given."""
    if grid is not None:
        if concrete(grid):
            gaps = np.diff(np.asarray(grid, dtype))
            if not (len(gaps) and (np.all(gaps > 0) or np.all(gaps < 0))):
                raise ValueError(f"grid must hold at least two strictly monotonic times in {jnp.dtype(dtype).name}")
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


def check_interval(t0: Time, t1: Time) -> None:
    """ValueError where t0 and t1 are known and are not two different finite times."""
    if concrete(t0) and concrete(t1) and not (np.isfinite(t0) and np.isfinite(t1) and t0 != t1):
        raise ValueError(f"t0={t0} and t1={t1} must be two different finite times")


def choose_end_epsilon(end_epsilon: float | None, dtype: Any) -> float:
    """The checked `end_epsilon`; by default far above rounding, so that 0/0 keeps digits, and far below any step."""
    if end_epsilon is None:
        return 1e-5 if dtype == jnp.float32 else 1e-12
    check_end_epsilon(end_epsilon)
    return end_epsilon


def check_end_epsilon(end_epsilon: float) -> None:
    """ValueError where times cannot be clipped to [end_epsilon, 1 - end_epsilon]."""
    if not 0 <= end_epsilon < 0.5:
        raise ValueError(f"end_epsilon={end_epsilon} must be in [0, 0.5)")


def save_at(times: Times | None, ends: tuple[Time, Time], dtype: Any) -> diffrax.SaveAt:
    """Save the final state, and the trajectory at `times` where given; ValueError for times outside or out of order."""
    at_times = None
    if times is not None:
        if all(map(concrete, (times, *ends))):
            given, first, last = np.asarray(times, dtype), *np.asarray(ends, dtype)
            inside = len(given) and min(first, last) <= given.min() and given.max() <= max(first, last)
            if not (inside and np.all(np.diff(given) * (1 if first < last else -1) > 0)):
                raise ValueError(
                    f"times {given.tolist()} must run strictly from t0={first} towards t1={last}, within them"
                )
        at_times = diffrax.SubSaveAt(ts=jnp.asarray(times, dtype))
    return diffrax.SaveAt(subs=(diffrax.SubSaveAt(t1=True), at_times), controller_state=True)


def _as_array(times: Times | None, dtype: Any) -> Float[Array, " times"] | None:
    return None if times is None else jnp.asarray(times, dtype)


def _unpack(solution: diffrax.Solution) -> tuple[Any, Any]:
    """(state at t1, states at the times asked for or None)."""
    ys: Any = solution.ys
    at_end, at_times = ys
    return jax.tree.map(lambda y: y[-1], at_end), at_times


def _finite(state: Any) -> Bool[Array, " batch"]:
    per_leaf = [jnp.isfinite(x).all(axis=tuple(range(1, x.ndim))) for x in jax.tree.leaves(state)]
    return jnp.stack(per_leaf).all(axis=0)
